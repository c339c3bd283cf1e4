"""Serving profiles and the engines' verdicts, as answers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True)
class ReasonView:
    """One rule that speaks against an engine or sets a condition."""

    rule: str
    detail: str
    fix: str


@dataclass(frozen=True, slots=True)
class VerdictView:
    """What one engine says to a version: yes, no or conditional, with every reason and the settings
    it needs.
    """

    engine: str
    verdict: str
    reasons: list[ReasonView]
    needs: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ProfileView:
    """One serving profile; `document` is what its digest is taken over."""

    id: UUID
    digest: str
    version: str
    base: str | None
    engine: str
    build: str
    document: dict[str, Any]
    created_by: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class DefinedView:
    """What defining did: `status` is defined, or found (the same document was already there)."""

    id: UUID
    digest: str
    version: str
    status: str


@dataclass(frozen=True, slots=True)
class PromptView:
    """The text of a profile's system prompt, and the digest that binds it."""

    profile: str
    digest: str
    text: str


@dataclass(frozen=True, slots=True)
class DifferenceView:
    """One part in which two profiles differ."""

    part: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class ComparisonView:
    """Two profiles part by part; `prompt` is a unified diff of their system prompts, when those
    differ.
    """

    before: str
    after: str
    differences: list[DifferenceView]
    prompt: list[str]
