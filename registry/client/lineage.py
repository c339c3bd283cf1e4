"""Lineage: where a thing comes from and what derives from it."""

from __future__ import annotations

from registry.client.transport import Transport, ref_path
from registry.views.lineage import LineageView


class Lineage(Transport):
    """Ancestors and descendants of anything that lineage can name."""

    def lineage(self, ref: str) -> LineageView:
        """Return where a thing comes from and what derives from it."""
        return self._get(f"/lineage/{ref_path(ref)}", LineageView)
