"""Use cases: why something serves."""

from __future__ import annotations

from typing import Any

from registry.client.transport import Transport
from registry.views.use_cases import UseCaseView


class UseCases(Transport):
    """The use cases of each team."""

    def add_use_case(self, name: str, **fields: Any) -> UseCaseView:
        """Define why something serves: purpose, owner, risk_tier, suite, details."""
        return self._post("/use-cases", UseCaseView, {"name": name, **fields})

    def use_cases(self) -> list[UseCaseView]:
        """Return every use case."""
        return self._get("/use-cases", list[UseCaseView])
