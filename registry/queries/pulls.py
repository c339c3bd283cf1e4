"""Repositories and revisions by their names on the Hub, under the rule of who may pull what."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from registry.db import senders
from registry.db.accounts import names
from registry.db.store import Store
from registry.db.versions import Line
from registry.errors import NotFound
from registry.queries.versions import files_of, recall_reasons
from registry.rules import pulls, refs
from registry.rules.actors import Actor, Role
from registry.rules.pulls import Standing
from registry.rules.versions import State
from registry.views.pulls import Pulled, Refs

HEX = re.compile(r"(?:sha256-)?([0-9a-f]{8,64})")
"""A commit, or the beginning of one."""
FULL = re.compile(r"refs/(?:heads|tags)/(.+)")
DRAFT = re.compile(r"draft-[0-9a-f]{8}")

# The versions of a line, each with the environments where it is approved or serves now, itself or
# under another version: as its base, or as the quantised base of its profile. A gateway that may
# serve that version must be able to load its base.
VERSIONS = text(
    """
    with chosen as (
        select v.*, n.ref, n.seq from version v join node n on n.id = v.id
        where v.line_id = :line
          and (cast(:number as integer) is null or v.number = :number)
          and (cast(:digest as text) is null or v.manifest_digest like :digest)
          and (cast(:id as uuid) is null or v.id = :id)
          and (cast(:ref as text) is null or n.ref = :ref)
          and (cast(:blob as text) is null
               or v.id in (select f.version_id from version_file f where f.blob_id = :blob))
          -- Bytes that were deleted and registered again have one commit id. It names the version
          -- that exists, else the one that was deleted last.
          and not (v.state = 'deleted' and exists (
              select from version o
              where o.line_id = v.line_id and o.manifest_digest = v.manifest_digest
              and cast(:digest as text) is not null
              and (o.state <> 'deleted' or o.number > v.number) and o.number is not null))
    ), served as (
        select chosen.id as under, chosen.id from chosen
        union select chosen.id, a.id
            from chosen join version a on a.base_version_id = chosen.id and a.state <> 'recalled'
        union select chosen.id, p.version_id
            from chosen join serving_profile p on p.base_version_id = chosen.id
    )
    select chosen.*, array(
        select r.environment from served s join review r on r.version_id = s.id
        where s.under = chosen.id and r.state = 'approved' and r.expires_at > clock_timestamp()
        union select c.environment from served s join route_generation g
            on g.valid_to is null and not g.killed
            and s.id in (g.stable_version_id, g.candidate_version_id)
            join channel c on c.id = g.channel_id
        where s.under = chosen.id
    ) as environments
    from chosen order by number desc nulls last, seq desc
    """
)
CHANNELS = text(
    """
    select c.environment, c.name, g.stable_version_id as stable, g.killed, n.ref from channel c
    join route_generation g on g.channel_id = c.id and g.valid_to is null
    left join node n on n.id = g.stable_version_id where c.line_id = :line
    order by array_position(array['production', 'staging', 'dev'], c.environment), c.name
    """
)

# The lines with a version that has these bytes as a file.
LINES_WITH_BLOB = text(
    """
    select distinct l.id, l.team, l.name, l.kind
    from version_file f join version v on v.id = f.version_id join line l on l.id = v.line_id
    where f.blob_id = :blob and (:everywhere or l.team = any(:teams))
    order by l.team, l.name
    """
)
# The teams of whatever else names these bytes: data, items of suites, answers, prompts. Items and
# samples hold the answers that a suite expects, and so do rows of other splits than train.
TEAMS_WITH_BLOB = text(
    """
    select n.team, not has_only_train(d.splits) as answers
        from dataset_version d join node n on n.id = d.id
        where d.blob_id = :blob and d.state <> 'deleted'
    union select n.team, false from training_run r
        join dataset_version d on d.id = r.dataset_version_id join node n on n.id = d.id
        where r.rows_blob_id = :blob and d.state <> 'deleted'
    union select n.team, true from eval_suite_version s join node n on n.id = s.id
        where s.blob_id = :blob
    union select n.team, false from eval_suite_version s join node n on n.id = s.id
        where s.prompts_blob_id = :blob
    union select n.team, true from eval_run r join node n on n.id = r.id
        where r.samples_blob_id = :blob
    union select n.team, false from serving_profile p join node n on n.id = p.version_id
        where p.system_prompt_id = :blob
    """
)


@dataclass(frozen=True, slots=True)
class Repo:
    """A line that the caller sees, as a repository.

    `pinned` is the version of a virtual repository `team/name.v3`, which has this version alone.
    """

    line: UUID
    team: str
    name: str
    kind: str
    pinned: int | None = None

    @property
    def id(self) -> str:
        line = f"{self.team}/{self.name}"
        return line if self.pinned is None else f"{line}.v{self.pinned}"


def no_revision(revision: str, why: str) -> NotFound:
    """The only answer that makes a client stop instead of using its cache."""
    return NotFound("revision-unknown", f"Revision '{revision[:80]}' cannot be pulled: {why}.")


def no_repo(name: str) -> NotFound:
    """The answer for an unknown repository, and for one of a team the caller does not see."""
    return NotFound("repo-unknown", f"There is no repository '{name[:120]}'.")


def _repo(session: Session, actor: Actor, team: str, name: str) -> Repo:
    ref = refs.read_repository(team, name)
    if ref is None:
        raise no_repo(f"{team}/{name}")
    line = session.scalars(
        select(Line).where(Line.team == team, Line.name == ref.name)
    ).one_or_none()
    if line is None or not pulls.roles_in(actor, line.team):
        raise no_repo(f"{team}/{name}")
    return Repo(line.id, team, line.name, line.kind, ref.number)


def check_bytes(store: Store, actor: Actor, digest: str) -> None:
    """Check that the actor may read these bytes: in a version they may pull, or as a team's data.

    Bytes that nothing they see names yet are for the actors who sent them. Otherwise it raises
    NotFound `blob-unknown`, as if the bytes did not exist, so that nobody uses a digest to get
    around a recall, a missing approval, or the border of a team.
    """
    teams, why = actor.teams(), ""
    with store.read(actor) as session:
        visible = {"blob": digest, "everywhere": teams is None, "teams": sorted(teams or ())}
        lines = session.execute(LINES_WITH_BLOB, visible).all()
        own_teams = [
            row
            for row in session.execute(TEAMS_WITH_BLOB, {"blob": digest})
            if pulls.roles_in(actor, row.team)
        ]
        if any(
            pulls.sees_answers(actor, row.team)
            or (not row.answers and pulls.roles_in(actor, row.team) - {Role.GATEWAY})
            for row in own_teams
        ):
            return
        if not lines and not own_teams and senders.sent(session, actor, digest):
            return
        for line in lines:
            repo = Repo(line.id, line.team, line.name, line.kind)
            for _, refusal in _judged(session, actor, repo, blob=digest):
                if refusal is None:
                    return
                why = why or refusal
    raise NotFound(
        "blob-unknown",
        f"There are no bytes sha256:{digest} for you{': ' if why else ''}{why}.",
        sha256=digest,
    )


def _judged(
    session: Session, actor: Actor, repo: Repo, **filters: Any
) -> list[tuple[Pulled, str | None]]:
    """The versions of a repository, newest first, each with the reason why it cannot be pulled."""
    params = {"number": None, "digest": None, "id": None, "ref": None, "blob": None, **filters}
    rows = session.execute(VERSIONS, {"line": repo.line, **params}).all()
    reasons = recall_reasons(session, [row.id for row in rows if row.state == "recalled"])
    names_by_id = names(session, {row.created_by for row in rows})
    judged = []
    for row in rows:
        standing = Standing(
            row.state, row.created_by, frozenset(row.environments), reasons.get(row.id)
        )
        pulled = Pulled(
            id=row.id,
            repo=repo.id,
            kind=repo.kind,
            ref=row.ref,
            number=row.number,
            commit=refs.commit(row.manifest_digest),
            created_at=row.created_at,
            author=names_by_id[row.created_by] or "",
            meta=row.meta,
            facts=row.facts,
            deprecated=row.state == State.DEPRECATED,
        )
        judged.append((pulled, pulls.refusal(actor, repo.team, standing)))
    return judged


def resolve(session: Session, actor: Actor, repo: Repo, revision: str) -> Pulled:
    """The version that a revision names, without its files; NotFound `revision-unknown`."""
    matches = _named(session, actor, repo, revision)
    if repo.pinned is not None and {pulled.number for pulled, _ in matches} != {repo.pinned}:
        # transformers gives the revision of an adapter to its base as well.
        hint = "; if you load an adapter, give adapter_kwargs={'revision': ...} instead"
        alone = f"{repo.id} has version {repo.pinned} alone"
        raise no_revision(revision, alone + (hint if repo.kind != "adapter" else ""))
    if not matches:
        raise no_revision(revision, "there is no such version")
    if len(matches) > 1:
        raise no_revision(revision, f"{len(matches)} versions begin with it")
    pulled, why = matches[0]
    if why is not None:
        raise no_revision(revision, why)
    return pulled


def _named(
    session: Session, actor: Actor, repo: Repo, revision: str
) -> list[tuple[Pulled, str | None]]:
    full = FULL.fullmatch(revision)
    name = full[1] if full else revision
    if name == "HEAD":  # the name in git, and in clients in JavaScript
        name = "main"
    if name == "main" and repo.pinned is not None:
        return _judged(session, actor, repo, number=repo.pinned)
    if number := refs.VERSION.fullmatch(name):
        return _judged(session, actor, repo, number=int(number[1]))
    if digest := HEX.fullmatch(name.lower()):
        matches = _judged(session, actor, repo, digest=f"sha256:{digest[1]}%")
        # Another person's draft must not even make a prefix ambiguous.
        return [
            (pulled, why) for pulled, why in matches if why is None or pulled.number is not None
        ]
    if DRAFT.fullmatch(name):
        return _judged(session, actor, repo, ref=f"{repo.team}/{repo.name}@{name}")
    environments = pulls.bound(actor, repo.team)
    for row in session.execute(CHANNELS, {"line": repo.line}).all():
        branch = _branch(row.environment, row.name)
        default = (
            name == "main"
            and branch == row.environment
            and (environments is None or row.environment in environments)
        )
        # `production-beta` names it too, because caches that store refs as files cannot store both
        # `production` and `production/beta`.
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
        judged = _judged(session, actor, repo)
        numbered = [(pulled, why) for pulled, why in judged if pulled.number is not None]
        allowed = [match for match in numbered if match[1] is None]
        # If the actor may pull none, the newest version gives the reason.
        return (allowed or numbered)[:1]
    return []


def _branch(environment: str, name: str) -> str:
    return environment if name == environment else f"{environment}/{name}"


def _with_files(session: Session, pulled: Pulled) -> Pulled:
    return replace(pulled, files=tuple(files_of(session, [pulled.id]).get(pulled.id, [])))


def repo(store: Store, actor: Actor, team: str, name: str) -> Repo:
    """The repository of that name, or NotFound `repo-unknown`."""
    with store.read(actor) as session:
        return _repo(session, actor, team, name)


def revision(store: Store, actor: Actor, team: str, name: str, revision: str) -> Pulled:
    """The version that a revision names for this actor, with its files.

    Raises NotFound `repo-unknown` or `revision-unknown`.
    """
    with store.read(actor) as session:
        repo = _repo(session, actor, team, name)
        return _with_files(session, resolve(session, actor, repo, revision))


def refs_of(store: Store, actor: Actor, team: str, name: str) -> Refs:
    """Every branch and tag that this actor may pull."""
    with store.read(actor) as session:
        repo = _repo(session, actor, team, name)
        if repo.pinned is not None:
            commit = resolve(session, actor, repo, "main").commit
            return Refs((("main", commit),), ((f"v{repo.pinned}", commit),))
        judged = _judged(session, actor, repo)
        allowed = {pulled.id: pulled for pulled, why in judged if why is None}
        branches = [
            (_branch(row.environment, row.name), allowed[row.stable].commit)
            for row in session.execute(CHANNELS, {"line": repo.line})
            if row.stable in allowed and not row.killed
        ]
        with suppress(NotFound):
            branches.insert(0, ("main", resolve(session, actor, repo, "main").commit))
        tags = [
            (f"v{pulled.number}", pulled.commit) for pulled in allowed.values() if pulled.number
        ]
        return Refs(tuple(branches), tuple(tags))


def commits(store: Store, actor: Actor, team: str, name: str, revision: str) -> list[Pulled]:
    """The version that a revision names and earlier ones that the actor may pull, newest first."""
    with store.read(actor) as session:
        repo = _repo(session, actor, team, name)
        head = resolve(session, actor, repo, revision)
        if head.number is None or repo.pinned is not None:
            return [head]
        return [
            pulled
            for pulled, why in _judged(session, actor, repo)
            if why is None and pulled.number is not None and pulled.number <= head.number
        ]
