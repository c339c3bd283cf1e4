"""Use cases, as answers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True)
class UseCaseView:
    """Why something serves, in one numbered version.

    `suite` is the suite version that its gates read. `reason` says why the version before it was
    replaced; the first version has none.
    """

    id: UUID
    name: str
    version: int
    purpose: str
    owner: str
    risk_tier: str
    suite: str
    details: dict[str, Any]
    reason: str | None
    changed_by: str | None
    created_at: datetime
