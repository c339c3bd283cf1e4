# ruff: noqa: S608 - only names of our own are put into SQL; every value is a parameter
"""What has a digest or a run id that begins, and perhaps ends, with given digits."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import TextClause, text

from registry.db.store import Store
from registry.rules.actors import Actor

MAX_MATCHES = 5
WITH_PREFIX = "{0} ~>=~ :low and {0} ~<~ :high and {0} like :pattern"
"""A condition that an index of text patterns serves, for a column of `sha256:<hex>`."""
BARE = "{0} ~>=~ :bare_low and {0} ~<~ :bare_high and {0} like :bare_pattern"
"""The same for a column of bare hex."""
NODE = "join node n on n.id = "
SOURCES = (
    (
        f"l.kind, n.ref, n.team from version v {NODE}v.id join line l on l.id = v.line_id",
        WITH_PREFIX,
        ("v.manifest_digest", "v.tensor_root"),
    ),
    (
        f"'dataset', n.ref, n.team from dataset_version d {NODE}d.id",
        WITH_PREFIX,
        ("d.record_root",),
    ),
    (f"'dataset', n.ref, n.team from dataset_version d {NODE}d.id", BARE, ("d.blob_id",)),
    (f"'suite', n.ref, n.team from eval_suite_version s {NODE}s.id", WITH_PREFIX, ("s.digest",)),
    (f"'suite', n.ref, n.team from eval_suite_version s {NODE}s.id", BARE, ("s.blob_id",)),
    (
        f"'review', r.number::text, n.team from review r {NODE}r.version_id",
        WITH_PREFIX,
        ("r.evidence_root",),
    ),
    (
        "'policy', p.environment || '-v' || p.number, null from policy_version p",
        WITH_PREFIX,
        ("p.digest",),
    ),
    ("'key', k.id, null from signing_key k", BARE, ("k.id",)),
    (
        f"'eval', e.id::text, n.team from eval_run e {NODE}e.subject_id",
        BARE,
        ("e.samples_blob_id",),
    ),
)
"""What to select, how to compare, and the columns that hold digests."""
BY_DIGEST = text(
    "select distinct kind, ref from ("
    + " union all ".join(
        f"select {selected} where {condition.format(name)}"
        for selected, condition, names in SOURCES
        for name in names
    )
    + ") known (kind, ref, team) where cast(:teams as text[]) is null or team is null "
    "or team = any(:teams) order by kind, ref limit :most"
)
BY_RUN = text(
    """
    select kind, ref from (
        select 'training' as kind, t.id::text as ref, l.team
        from training_run t join line l on l.id = t.line_id
        union all
        select 'eval', e.id::text, n.team from eval_run e join node n on n.id = e.subject_id
    ) known
    where ref like :pattern and (cast(:teams as text[]) is null or team = any(:teams))
    order by kind, ref limit :most
    """
)


@dataclass(frozen=True, slots=True)
class Match:
    """A thing by its kind and its reference, number or id."""

    kind: str
    ref: str


def by_digest(store: Store, actor: Actor, start: str, end: str = "") -> list[Match]:
    """At most five things of the teams that the caller sees, with such a SHA-256 digest."""
    bare = {"bare_low": start, "bare_high": start + "g", "bare_pattern": f"{start}%{end}"}
    prefixed = {
        "low": f"sha256:{start}",
        "high": f"sha256:{start}g",
        "pattern": f"sha256:{start}%{end}",
    }
    return _matches(store, actor, BY_DIGEST, bare | prefixed)


def by_run(store: Store, actor: Actor, start: str) -> list[Match]:
    """At most five training runs and eval runs with such an id."""
    return _matches(store, actor, BY_RUN, {"pattern": f"{start}%"})


def _matches(
    store: Store, actor: Actor, statement: TextClause, digits: dict[str, str]
) -> list[Match]:
    teams = actor.teams()
    visible = {"teams": None if teams is None else sorted(teams), "most": MAX_MATCHES}
    with store.read(actor) as session:
        rows = session.execute(statement, digits | visible)
        return [Match(row.kind, row.ref.rpartition(":")[2]) for row in rows]
