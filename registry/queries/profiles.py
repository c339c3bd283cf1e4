"""Serving profiles, and what each engine says to a version."""

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
    """Every engine's verdict on a version, with all reasons; no profile is needed to ask."""
    with store.read(actor) as session:
        version, line, _ = table.by_ref(session, ref, gone=True)
    return [
        _told(judge(engine, Subject(line.kind, version.state, version.facts))) for engine in ENGINES
    ]


def verdict(store: Store, actor: Actor, one: ProfileView) -> VerdictView:
    """What the engine of a profile says today: the rules may have been fixed since it was
    defined.
    """
    document = one.document
    with store.read(actor) as session:
        version, line, _ = table.by_ref(session, one.version, gone=True)
        return _told(
            judge(
                one.engine,
                Subject(line.kind, version.state, version.facts),
                Setup(
                    build=one.build,
                    dtype=document["dtype"],
                    quantisation=document["quantisation"],
                ),
            )
        )


def _told(one: Verdict) -> VerdictView:
    reasons = [ReasonView(each.rule, each.detail, each.fix) for each in one.reasons]
    return VerdictView(one.engine, one.verdict, reasons, dict(one.needs))


def profiles(store: Store, actor: Actor, ref: str) -> list[ProfileView]:
    """The profiles of a version, oldest first."""
    with store.read(actor) as session:
        version, _, _ = table.by_ref(session, ref, gone=True)
        return _views(session, actor, ServingProfile.version_id == version.id)


def profile(store: Store, actor: Actor, name: str) -> ProfileView:
    """The one profile of that id or digest, or NotFound."""
    if DIGEST.fullmatch(name):
        which = or_(ServingProfile.digest == name)
    else:
        try:
            which = or_(ServingProfile.id == UUID(name))
        except ValueError:
            raise Invalid(
                "bad-profile-name",
                f"'{name[:80]}' names no serving profile.",
            ) from None
    with store.read(actor) as session:
        # The document holds the version's manifest digest; two lines with the same bytes may share
        # a document.
        found = _views(session, actor, which)
    if not found:
        raise NotFound(
            "profile-unknown",
            f"There is no serving profile '{name}'.",
        )
    if len(found) > 1:
        raise Invalid(
            "ambiguous-reference", f"'{name}' names more than one serving profile.", "Give its id."
        )
    return found[0]


def system_prompt(store: Store, blobs: Blobs, actor: Actor, name: str) -> PromptView:
    """The text a profile puts before every conversation; NotFound when it has none."""
    return _prompt(blobs, profile(store, actor, name))


def compare(store: Store, blobs: Blobs, actor: Actor, before: str, after: str) -> ComparisonView:
    """Two profiles part by part, and their system prompts line by line: any difference at all is
    another profile.
    """
    one, other = profile(store, actor, before), profile(store, actor, after)
    found = [
        DifferenceView(each.part, each.before, each.after)
        for each in differences(one.document, other.document)
    ]
    lines: list[str] = []
    if any(each.part == "system_prompt" for each in found):
        was, now = (
            _prompt(blobs, each).text.splitlines() if each.document["system_prompt"] else []
            for each in (one, other)
        )
        lines = list(unified_diff(was, now, lineterm="", n=2))[
            2:
        ]  # the first two name files, and there are none
    return ComparisonView(one.digest, other.digest, found, lines)


def _prompt(blobs: Blobs, one: ProfileView) -> PromptView:
    digest = one.document["system_prompt"]
    if digest is None:
        raise NotFound(
            "prompt-unknown",
            f"The profile {one.digest} has no system prompt.",
        )
    bare = digest.removeprefix("sha256:")
    return PromptView(one.digest, digest, check_prompt(bare, blobs.read(bare, 0, MAX_PROMPT + 1)))


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
    called = names(session, {row[0].created_by for row in rows})
    return [
        ProfileView(
            id=one.id,
            digest=one.digest,
            version=ref,
            base=base,
            engine=one.engine,
            build=one.document["build"],
            document=one.document,
            created_by=called[one.created_by],
            created_at=one.created_at,
        )
        for one, ref, base in rows
    ]
