"""Repositories and commits, as answers for the Hub dialect."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from registry.views.versions import FileView


@dataclass(frozen=True, slots=True)
class Pulled:
    """One version that a caller may pull, as a commit."""

    id: UUID
    repo: str
    kind: str
    ref: str
    number: int | None
    commit: str
    created_at: datetime
    author: str
    meta: dict[str, Any]
    facts: dict[str, Any]
    files: tuple[FileView, ...] = ()
    deprecated: bool = False


@dataclass(frozen=True, slots=True)
class Refs:
    """Branches (channels and main) and tags (versions), each with its commit."""

    branches: tuple[tuple[str, str], ...]
    tags: tuple[tuple[str, str], ...]
