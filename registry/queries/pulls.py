"""Repositories and revisions as the Hub dialect names them, already judged by the rule of pulls."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import and_, func, null, or_, select, text
from sqlalchemy.orm import Session

from registry.db import senders
from registry.db.accounts import names
from registry.db.store import Store
from registry.db.versions import Line, Version
from registry.errors import Invalid, NotFound
from registry.queries.pages import containing, seen, storable
from registry.queries.versions import _recall_reasons, files_of
from registry.rules import pulls, refs
from registry.rules.actors import Actor, Role
from registry.rules.pulls import Standing
from registry.rules.versions import State
from registry.views.pulls import Pulled, Refs

HEX = re.compile(r"(?:sha256-)?([0-9a-f]{8,64})")
FULL = re.compile(r"refs/(?:heads|tags)/(.+)")
DRAFT = re.compile(r"draft-[0-9a-f]{8}")

# Where a version is approved now or serves, as itself or under another: as its base, or as the
# quantised base of its profile. A gateway that may serve the one must be able to load the other.
VERSIONS = text(
    """
    with one as (
        select v.*, n.ref, n.seq from version v join node n on n.id = v.id
        where v.line_id = :line
          and (cast(:number as integer) is null or v.number = :number)
          and (cast(:digest as text) is null or v.manifest_digest like :digest)
          and (cast(:id as uuid) is null or v.id = :id)
          and (cast(:ref as text) is null or n.ref = :ref)
          and (cast(:blob as text) is null
               or v.id in (select f.version_id from version_file f where f.blob_id = :blob))
          -- Bytes deleted and registered again are one commit id: it names the version that stands,
          -- or went last.
          and not (v.state = 'deleted' and exists (
              select from version o
              where o.line_id = v.line_id and o.manifest_digest = v.manifest_digest
              and cast(:digest as text) is not null
              and (o.state <> 'deleted' or o.number > v.number) and o.number is not null))
    ), served as (
        select one.id as under, one.id from one
        union select one.id, a.id
            from one join version a on a.base_version_id = one.id and a.state <> 'recalled'
        union select one.id, p.version_id
            from one join serving_profile p on p.base_version_id = one.id
    )
    select one.*, array(
        select r.environment from served s join review r on r.version_id = s.id
        where s.under = one.id and r.state = 'approved' and r.expires_at > clock_timestamp()
        union select c.environment from served s join route_generation g
            on g.valid_to is null and not g.killed
            and s.id in (g.stable_version_id, g.candidate_version_id)
            join channel c on c.id = g.channel_id
        where s.under = one.id
    ) as environments
    from one order by number desc nulls last, seq desc
    """
)
CHANNELS = text(
    "select c.environment, c.name, g.stable_version_id as stable, g.killed, n.ref from channel c "
    "join route_generation g on g.channel_id = c.id and g.valid_to is null "
    "left join node n on n.id = g.stable_version_id where c.line_id = :line "
    "order by array_position(array['production', 'staging', 'dev'], c.environment), c.name"
)

HOLDERS = text(
    "select distinct l.id, l.team, l.name, l.kind from version_file f join version v on v.id = "
    "f.version_id "
    "join line l on l.id = v.line_id where f.blob_id = :blob and (:everywhere or l.team = "
    "any(:teams)) "
    "order by l.team, l.name"
)
# What else names bytes: data, the items of suites, answers, prompts.
BESIDE = text(
    """
    select n.team from dataset_version d join node n on n.id = d.id
        where d.blob_id = :blob and d.state <> 'deleted'
    union select n.team from eval_suite_version s join node n on n.id = s.id
        where s.blob_id = :blob
    union select n.team from eval_run r join node n on n.id = r.id
        where r.samples_blob_id = :blob
    union select n.team from serving_profile p join node n on n.id = p.version_id
        where p.system_prompt_id = :blob
    """
)


@dataclass(frozen=True, slots=True)
class Repo:
    """A line a caller sees; `pinned` is the version a virtual repository `ns/name.v3` stands
    for.
    """

    line: UUID
    team: str
    name: str
    kind: str
    pinned: int | None = None

    @property
    def id(self) -> str:
        whole = f"{self.team}/{self.name}"
        return whole if self.pinned is None else f"{whole}.v{self.pinned}"


def no_revision(revision: str, why: str) -> NotFound:
    """The one answer that makes a client stop instead of serving what it holds."""
    return NotFound(
        "revision-unknown",
        f"Revision '{revision[:80]}' cannot be pulled: {why}.",
    )


def no_repo(name: str) -> NotFound:
    """An unknown repository, or one of a team the caller does not see."""
    return NotFound(
        "repo-unknown",
        f"There is no repository '{name[:120]}'.",
    )


def _repo(session: Session, actor: Actor, team: str, name: str) -> Repo:
    if not refs.NAME.fullmatch(team) or not refs.NAME.fullmatch(name):
        raise no_repo(f"{team}/{name}")
    virtual = refs.PINNED.fullmatch(name)  # no line has such a name: ck_line_name
    called, pinned = (virtual[1], int(virtual[2])) if virtual else (name, None)
    found = session.scalars(
        select(Line).where(Line.team == team, Line.name == called)
    ).one_or_none()
    if found is None or not pulls.roles_in(actor, found.team):
        raise no_repo(f"{team}/{name}")
    return Repo(found.id, team, called, found.kind, pinned)


def check_bytes(store: Store, actor: Actor, digest: str) -> None:
    """Let pass who may have these bytes: as a file of a version he may pull, or as data of a team
    he works in.

    Else NotFound (`blob-unknown`), as if they were not here: by their digest nobody gets round a
    recall, an approval that is missing, or a team. Bytes that nothing he sees names yet are for who
    has sent them.
    """
    teams, why = actor.teams(), ""
    with store.read(actor) as session:
        seen = {"blob": digest, "everywhere": teams is None, "teams": sorted(teams or ())}
        holders = session.execute(HOLDERS, seen).all()
        beside = [
            team
            for team in session.scalars(BESIDE, {"blob": digest})
            if pulls.roles_in(actor, team)
        ]
        if any(pulls.roles_in(actor, team) - {Role.GATEWAY} for team in beside):
            return
        if not holders and not beside and senders.sent(session, actor, digest):
            return
        for row in holders:
            for _, refusal in _judged(
                session, actor, Repo(row.id, row.team, row.name, row.kind), blob=digest
            ):
                if refusal is None:
                    return
                why = why or refusal
    raise NotFound(
        "blob-unknown",
        f"There are no bytes sha256:{digest} for you{': ' if why else ''}{why}.",
        sha256=digest,
    )


def _judged(
    session: Session, actor: Actor, repo: Repo, **only: Any
) -> list[tuple[Pulled, str | None]]:
    given = {"number": None, "digest": None, "id": None, "ref": None, "blob": None, **only}
    rows = session.execute(VERSIONS, {"line": repo.line, **given}).all()
    reasons = _recall_reasons(session, [row.id for row in rows if row.state == "recalled"])
    called = names(session, {row.created_by for row in rows})
    judged = []
    for row in rows:
        standing = Standing(
            row.state, row.created_by, frozenset(row.environments), reasons.get(row.id)
        )
        pulled = Pulled(
            row.id,
            repo.id,
            repo.kind,
            row.ref,
            row.number,
            refs.commit(row.manifest_digest),
            row.created_at,
            called[row.created_by] or "",
            row.meta,
            row.facts,
            deprecated=row.state == State.DEPRECATED,
        )
        judged.append((pulled, pulls.refusal(actor, repo.team, standing)))
    return judged


def _one(session: Session, actor: Actor, repo: Repo, revision: str) -> Pulled:
    found = _named(session, actor, repo, revision)
    if not found:
        raise no_revision(revision, "there is no such version")
    if len(found) > 1:
        raise no_revision(revision, f"{len(found)} versions begin so")
    pulled, why = found[0]
    if repo.pinned is not None and pulled.number != repo.pinned:
        raise no_revision(revision, f"this repository is version {repo.pinned} alone")
    if why is not None:
        raise no_revision(revision, why)
    return pulled


def _named(
    session: Session, actor: Actor, repo: Repo, revision: str
) -> list[tuple[Pulled, str | None]]:
    full = FULL.fullmatch(revision)
    name = full[1] if full else revision
    name = (
        "main" if name == "HEAD" else name
    )  # git's word for it, and that of clients in JavaScript
    if name == "main" and repo.pinned is not None:
        return _judged(session, actor, repo, number=repo.pinned)
    if number := refs.VERSION.fullmatch(name):
        return _judged(session, actor, repo, number=int(number[1]))
    if digest := HEX.fullmatch(name.lower()):
        found = _judged(session, actor, repo, digest=f"sha256:{digest[1]}%")
        # A draft that is not his must not even make a prefix ambiguous.
        return [one for one in found if one[0].number is not None or one[1] is None]
    if DRAFT.fullmatch(name):
        return _judged(session, actor, repo, ref=f"{repo.team}/{repo.name}@{name}")
    within = pulls.bound(actor, repo.team)
    for row in session.execute(CHANNELS, {"line": repo.line}).all():
        branch = _branch(row.environment, row.name)
        default = (
            name == "main"
            and branch == row.environment
            and (within is None or row.environment in within)
        )
        # `production-beta` too: caches that keep refs as files cannot hold both `production` and
        # `production/beta`.
        if name not in (branch, branch.replace("/", "-", 1)) and not default:
            continue
        if row.killed:
            raise no_revision(revision, f"the channel {branch} was stopped and serves nothing")
        if row.stable is not None:
            if served := _judged(session, actor, repo, id=row.stable):
                return served
            raise no_revision(revision, f"the channel {branch} serves the base model {row.ref}")
        if not default:
            raise no_revision(revision, f"the channel {branch} serves no version as stable")
    if name == "main":
        numbered = [one for one in _judged(session, actor, repo) if one[0].number is not None]
        # None that he may pull: the newest then says why.
        return ([one for one in numbered if one[1] is None] or numbered)[:1]
    return []


def _branch(environment: str, name: str) -> str:
    return environment if name == environment else f"{environment}/{name}"


def _filled(session: Session, pulled: Pulled) -> Pulled:
    return replace(pulled, files=tuple(files_of(session, [pulled.id]).get(pulled.id, [])))


def repo(store: Store, actor: Actor, team: str, name: str) -> Repo:
    """The repository of that name, or NotFound `repo-unknown`."""
    with store.read(actor) as session:
        return _repo(session, actor, team, name)


def revision(store: Store, actor: Actor, team: str, name: str, revision: str) -> Pulled:
    """The version a revision names for this caller, with its files; NotFound `repo-unknown` or
    `revision-unknown`.
    """
    with store.read(actor) as session:
        return _filled(session, _one(session, actor, _repo(session, actor, team, name), revision))


def refs_of(store: Store, actor: Actor, team: str, name: str) -> Refs:
    """Every branch and tag this caller may pull."""
    with store.read(actor) as session:
        found = _repo(session, actor, team, name)
        if found.pinned is not None:
            one = _one(session, actor, found, "main")
            return Refs((("main", one.commit),), ((f"v{found.pinned}", one.commit),))
        may = {pulled.id: pulled for pulled, why in _judged(session, actor, found) if why is None}
        branches = [
            (_branch(row.environment, row.name), may[row.stable].commit)
            for row in session.execute(CHANNELS, {"line": found.line})
            if row.stable in may and not row.killed
        ]
        with suppress(NotFound):
            branches.insert(0, ("main", _one(session, actor, found, "main").commit))
        return Refs(
            tuple(branches),
            tuple((f"v{one.number}", one.commit) for one in may.values() if one.number),
        )


def commits(store: Store, actor: Actor, team: str, name: str, revision: str) -> list[Pulled]:
    """The version a revision names and those before it, newest first, as far as the caller may pull
    them.
    """
    with store.read(actor) as session:
        found = _repo(session, actor, team, name)
        head = _one(session, actor, found, revision)
        if head.number is None or found.pinned is not None:
            return [head]
        judged = _judged(session, actor, found)
        return [
            one
            for one, why in judged
            if why is None and one.number is not None and one.number <= head.number
        ]


CHANGED = select(func.max(Version.created_at)).where(
    Version.line_id == Line.id, Version.number.is_not(None)
)
SORTS = {
    "createdAt": Line.created_at,
    "lastModified": func.coalesce(CHANGED.scalar_subquery(), Line.created_at),
}


def listed(
    store: Store,
    actor: Actor,
    team: str | None,
    words: str | None,
    kinds: set[str],
    sort: str,
    after: str,
    limit: int,
    *,
    files: bool = False,
) -> tuple[list[Pulled], str | None]:
    """One page of repositories whose main the caller may pull, and after what the next begins
    (Invalid `bad-cursor`).

    By name, or for the two `SORTS` there are the newest first. A page may be shorter than its
    limit: what he may not pull is left out of it. With `files`, each with its files.
    """
    whole, moment = Line.team + "/" + Line.name, SORTS.get(sort)
    order = (whole,) if moment is None else (moment.desc(), whole)
    statement = (
        select(Line, null() if moment is None else moment)
        .where(seen(actor, Line.team))
        .order_by(*order)
    )
    statement = statement.limit(limit + 1)
    if after:
        at, _, name = after.rpartition("|") if moment is not None else ("", "", after)
        later = whole > storable(name)
        statement = statement.where(
            later if moment is None else or_(moment < _when(at), and_(moment == _when(at), later))
        )
    if team is not None:
        statement = statement.where(Line.team == storable(team))
    if words:
        statement = statement.where(whole.ilike(containing(words)))
    for kind in kinds:
        statement = statement.where(Line.kind == kind)
    with store.read(actor) as session:
        rows = session.execute(statement).all()
        found = []
        for line, _ in rows[:limit]:
            with suppress(NotFound):
                found.append(
                    _one(session, actor, Repo(line.id, line.team, line.name, line.kind), "main")
                )
        held = files_of(session, [one.id for one in found]) if files else {}
        found = [replace(one, files=tuple(held.get(one.id, []))) for one in found]
    if len(rows) <= limit:
        return found, None
    last, changed = rows[limit - 1]
    return found, last.ref if changed is None else f"{changed.isoformat()}|{last.ref}"


def _when(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise Invalid(
            "bad-cursor",
            "The cursor belongs to another list, or was cut.",
            "Begin again without one.",
        ) from None
