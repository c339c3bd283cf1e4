"""Chat templates, as answers: a version's compared with its base's, and what both render."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class RenderedView:
    """What a template rendered: the text, the message that it raised itself, or why it failed."""

    text: str | None
    raised: str | None
    failed: str | None


@dataclass(frozen=True, slots=True)
class GoldenView:
    """One golden conversation under both templates; a side without a template is null."""

    title: str
    messages: list[dict[str, Any]]
    own: RenderedView | None
    base: RenderedView | None


@dataclass(frozen=True, slots=True)
class TemplateDiffView:
    """One named template compared with the base's of that name.

    `diff` holds the lines of a unified diff; none if both are equal.
    """

    name: str
    in_version: bool
    in_base: bool
    diff: list[str]


@dataclass(frozen=True, slots=True)
class ChatTemplateView:
    """The chat template of a version, compared with its base's.

    `own` is true for an adapter whose template is not its base's. The digests are over all named
    templates. `allowed_in` names the environments whose policy in force lets an adapter bring its
    own.
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
