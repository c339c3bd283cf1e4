"""Deprecations, as answers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class DeprecationView:
    """A version or data set version that nothing new should use: since when, by whom and why."""

    ref: str
    at: datetime
    by: str
    reason: str
