"""Serving profiles and the engines' verdicts, as answers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True)
class ReasonView:
    """One rule that excludes an engine or sets a condition for it."""

    rule: str
    detail: str
    fix: str


@dataclass(frozen=True, slots=True)
class VerdictView:
    """Whether one engine can serve a version: yes, no or conditional.

    `reasons` lists every rule that applies, `needs` the settings that the engine then requires.
    """

    engine: str
    verdict: str
    reasons: list[ReasonView]
    needs: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ProfileView:
    """One serving profile; its digest is over `document`."""

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
    """The result of defining a profile; `status` is defined, or found if the document existed."""

    id: UUID
    digest: str
    version: str
    status: str


@dataclass(frozen=True, slots=True)
class PromptView:
    """The text of a profile's system prompt, and its digest."""

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
    """Two profiles compared part by part; `prompt` is a unified diff of their system prompts."""

    before: str
    after: str
    differences: list[DifferenceView]
    prompt: list[str]
