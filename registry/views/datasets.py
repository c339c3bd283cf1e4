"""Data sets and their versions, as answers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True)
class DatasetVersionView:
    """A frozen data set version; `record_root` covers every row, `splits` counts rows by split."""

    id: UUID
    ref: str
    number: int | None
    state: str
    sha256: str
    size: int
    record_root: str
    rows: int
    splits: dict[str, int]
    duplicates: int
    overlap: int
    meta: dict[str, Any]
    created_by: str
    created_at: datetime
