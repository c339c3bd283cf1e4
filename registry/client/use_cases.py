"""Use cases: why something serves."""

from __future__ import annotations

from typing import Any

from registry.client.transport import Transport, ref_path
from registry.views.use_cases import UseCaseView


class UseCases(Transport):
    """The use cases of each team."""

    def add_use_case(self, name: str, **fields: Any) -> UseCaseView:
        """Define why something serves: purpose, owner, risk_tier, suite, details."""
        return self._post("/use-cases", UseCaseView, {"name": name, **fields})

    def use_cases(self) -> list[UseCaseView]:
        """Return every use case as its newest version says."""
        return self._get("/use-cases", list[UseCaseView])

    def use_case_versions(self, name: str) -> list[UseCaseView]:
        """Return every version of a use case, newest first."""
        return self._get(f"/use-cases/{ref_path(name)}/versions", list[UseCaseView])

    def update_use_case(self, name: str, reason: str, **fields: Any) -> UseCaseView:
        """Replace what a use case says; its open reviews and approvals are void."""
        return self._post(
            f"/use-cases/{ref_path(name)}/versions", UseCaseView, {"reason": reason, **fields}
        )
