"""Serving profiles, and which engines can serve a version."""

from __future__ import annotations

from difflib import unified_diff
from uuid import UUID

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.orm import Session, aliased

from registry.blobs.store import Blobs
from registry.db import versions as table
from registry.db.accounts import names
from registry.db.profiles import ServingProfile
from registry.db.store import Store
from registry.db.versions import Line, Node, Version
from registry.errors import Invalid, NotFound
from registry.queries.pages import seen
from registry.rules.actors import Actor
from registry.rules.engines import ENGINES, Setup, Subject, Verdict, judge
from registry.rules.profiles import DIGEST, MAX_PROMPT, check_prompt, differences
from registry.views.profiles import (
    ComparisonView,
    DifferenceView,
    ProfileView,
    PromptView,
    ReasonView,
    VerdictView,
)

BaseNode = aliased(Node)


def engines(store: Store, actor: Actor, ref: str) -> list[VerdictView]:
    """Every engine's verdict on a version, with all reasons; it needs no profile."""
    with store.read(actor) as session:
        version, line, _ = table.by_ref(session, ref, gone=True)
    return [
        _verdict(judge(engine, Subject(line.kind, version.state, version.facts)))
        for engine in ENGINES
    ]


def verdict(store: Store, actor: Actor, profile: ProfileView) -> VerdictView:
    """The current verdict of a profile's engine; it changes when a rule is corrected."""
    document = profile.document
    with store.read(actor) as session:
        version, line, _ = table.by_ref(session, profile.version, gone=True)
        return _verdict(
            judge(
                profile.engine,
                Subject(line.kind, version.state, version.facts),
                Setup(
                    build=profile.build,
                    dtype=document["dtype"],
                    quantisation=document["quantisation"],
                ),
            )
        )


def _verdict(verdict: Verdict) -> VerdictView:
    reasons = [ReasonView(reason.rule, reason.detail, reason.fix) for reason in verdict.reasons]
    return VerdictView(verdict.engine, verdict.verdict, reasons, dict(verdict.needs))


def profiles(store: Store, actor: Actor, ref: str) -> list[ProfileView]:
    """The profiles of a version, oldest first."""
    with store.read(actor) as session:
        version, _, _ = table.by_ref(session, ref, gone=True)
        return _views(session, actor, ServingProfile.version_id == version.id)


def profile(store: Store, actor: Actor, name: str) -> ProfileView:
    """The profile of that id or digest, or NotFound."""
    if DIGEST.fullmatch(name):
        which = or_(ServingProfile.digest == name)
    else:
        try:
            which = or_(ServingProfile.id == UUID(name))
        except ValueError:
            raise Invalid("bad-profile-name", f"'{name[:80]}' names no serving profile.") from None
    with store.read(actor) as session:
        # The document contains the manifest digest of the version, so two lines with the same bytes
        # may have the same document.
        views = _views(session, actor, which)
    if not views:
        raise NotFound("profile-unknown", f"There is no serving profile '{name}'.")
    if len(views) > 1:
        raise Invalid(
            "ambiguous-reference", f"'{name}' names more than one serving profile.", "Give its id."
        )
    return views[0]


def system_prompt(store: Store, blobs: Blobs, actor: Actor, name: str) -> PromptView:
    """The text that a profile puts before every conversation; NotFound if it has none."""
    return _prompt(blobs, profile(store, actor, name))


def compare(store: Store, blobs: Blobs, actor: Actor, before: str, after: str) -> ComparisonView:
    """Two profiles compared part by part, and their system prompts line by line."""
    old, new = profile(store, actor, before), profile(store, actor, after)
    parts = [
        DifferenceView(difference.part, difference.before, difference.after)
        for difference in differences(old.document, new.document)
    ]
    lines: list[str] = []
    if any(part.part == "system_prompt" for part in parts):
        old_lines, new_lines = (
            _prompt(blobs, each).text.splitlines() if each.document["system_prompt"] else []
            for each in (old, new)
        )
        diff = list(unified_diff(old_lines, new_lines, lineterm="", n=2))
        lines = diff[2:]  # without the two lines that name files
    return ComparisonView(old.digest, new.digest, parts, lines)


def _prompt(blobs: Blobs, profile: ProfileView) -> PromptView:
    digest = profile.document["system_prompt"]
    if digest is None:
        raise NotFound("prompt-unknown", f"The profile {profile.digest} has no system prompt.")
    sha256 = digest.removeprefix("sha256:")
    text = check_prompt(sha256, blobs.read(sha256, 0, MAX_PROMPT + 1))
    return PromptView(profile.digest, digest, text)


def _views(session: Session, actor: Actor, which: ColumnElement[bool]) -> list[ProfileView]:
    rows = session.execute(
        select(ServingProfile, Node.ref, BaseNode.ref)
        .join(Version, Version.id == ServingProfile.version_id)
        .join(Line, Line.id == Version.line_id)
        .join(Node, Node.id == Version.id)
        .outerjoin(BaseNode, BaseNode.id == ServingProfile.base_version_id)
        .where(which, seen(actor, Line.team))
        .order_by(ServingProfile.created_at, ServingProfile.id)
    ).all()
    names_by_id = names(session, {row[0].created_by for row in rows})
    return [
        ProfileView(
            id=profile.id,
            digest=profile.digest,
            version=ref,
            base=base,
            engine=profile.engine,
            build=profile.document["build"],
            document=profile.document,
            created_by=names_by_id[profile.created_by],
            created_at=profile.created_at,
        )
        for profile, ref, base in rows
    ]
