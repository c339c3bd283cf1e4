"""Gates: a policy applied to a version's evidence."""

from __future__ import annotations

from registry.client.transport import Transport
from registry.views.evals import VerdictView


class Gates(Transport):
    """Whether the evidence of a version suffices."""

    def gate(self, ref: str, environment: str, use_case: str) -> VerdictView:
        """Judge a version's evidence by the environment's current policy, rule by rule."""
        return self._get("/gates", VerdictView, ref=ref, environment=environment, use_case=use_case)
