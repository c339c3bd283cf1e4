"""Policies: the rules of each environment, current and past."""

from __future__ import annotations

from registry.client.transport import Transport
from registry.views.policies import PolicyView


class Policies(Transport):
    """What must hold before something may serve."""

    def policies(self) -> list[PolicyView]:
        """Return every published policy version."""
        return self._get("/policies", list[PolicyView])

    def publish_policy(self, text: str) -> PolicyView:
        """Publish a policy's YAML as the next version of the environment it names.

        Raises Invalid (`bad-policy`) with every defect of the policy, and Conflict
        (`policy-unchanged`) where the current policy has the same rules.
        """
        return self._post("/policies", PolicyView, {"text": text})
