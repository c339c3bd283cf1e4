"""Use cases, as answers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True)
class UseCaseView:
    """Why something serves; `suite` names the eval suite that its gates read."""

    id: UUID
    name: str
    purpose: str
    owner: str
    risk_tier: str
    suite: str
    details: dict[str, Any]
    created_at: datetime
