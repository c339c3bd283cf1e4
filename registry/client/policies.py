"""Policies: the rules of each environment, as they are and were in force."""

from __future__ import annotations

from registry.client.transport import Transport
from registry.views.policies import PolicyView


class Policies(Transport):
    """What must hold before something may serve."""

    def policies(self) -> list[PolicyView]:
        """Every published policy version."""
        return self._get("/policies", list[PolicyView])

    def publish_policy(self, text: str) -> PolicyView:
        """Publish a policy's YAML as the next version of the environment it names.

        Raises Invalid (`bad-policy`) with everything that is wrong with it, Conflict
        (`policy-unchanged`) where the policy in force says the same.
        """
        return self._post("/policies", PolicyView, {"text": text})
