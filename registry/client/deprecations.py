"""Deprecations: versions that no new rollout may start on."""

from __future__ import annotations

from registry.client.transport import Transport
from registry.views.deprecations import DeprecationView


class Deprecations(Transport):
    """Deprecate versions and data set versions."""

    def deprecate(self, ref: str, reason: str) -> DeprecationView:
        """Deprecate a version for good. Write `dataset:` before the reference of a data set."""
        return self._post("/deprecations", DeprecationView, {"ref": ref, "reason": reason})
