"""Chat templates as answers: what a version's says, against its base's, and what both make of the
same conversations.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class RenderedView:
    """What a template made of a conversation: its text, or the refusal it raises itself, or why it
    failed.
    """

    text: str | None
    raised: str | None
    failed: str | None


@dataclass(frozen=True, slots=True)
class GoldenView:
    """One golden conversation under both templates; a side is null where there is no template."""

    title: str
    messages: list[dict[str, Any]]
    own: RenderedView | None
    base: RenderedView | None


@dataclass(frozen=True, slots=True)
class TemplateDiffView:
    """One named template against the base's of that name, as lines of a unified difference; none
    where they are equal.
    """

    name: str
    in_version: bool
    in_base: bool
    diff: list[str]


@dataclass(frozen=True, slots=True)
class ChatTemplateView:
    """A version's chat template: `own` when an adapter's is not its base's; digests are over all
    named templates.

    `allowed_in` names the environments whose policy in force lets an adapter bring its own.
    """

    ref: str
    base: str | None
    own: bool
    source: str | None
    digest: str | None
    base_source: str | None
    base_digest: str | None
    allowed_in: list[str]
    concerns: list[str] = field(default_factory=list)
    templates: list[TemplateDiffView] = field(default_factory=list)
    conversations: list[GoldenView] = field(default_factory=list)
