"""Policies, as answers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class PolicyView:
    """A published, frozen policy version."""

    ref: str
    environment: str
    number: int
    digest: str
    current: bool
    rules: dict[str, Any]
    text: str
    published_by: str
    published_at: datetime
