# ruff: noqa: S608 - only names and states of our own are put into SQL; every value is a parameter
"""Read the situation of a channel for the rules that decide what may be done to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from registry.db import policies
from registry.db.table import one_of
from registry.db.versions import Line
from registry.errors import Refused
from registry.rules.channels import Acts, Channel, Version, acts, rollback_target
from registry.rules.versions import USABLE

PLACES = text(
    f"""
    select c.id, c.environment, c.name, l.team || '/' || l.name as line, l.kind,
           base.ref as base, c.base_version_id, u.team || '/' || u.name as use_case,
           {one_of("v.state", *USABLE)} as base_usable,
           coalesce(policy.fallback, false) as base_allowed, stable.ref as stable,
           candidate.ref as candidate, before.ref as taken_off
    from channel c join line l on l.id = c.line_id join version v on v.id = c.base_version_id
    join node base on base.id = v.id join use_case u on u.id = c.use_case_id
    left join lateral (
        select (p.rules ->> 'fallback_to_base')::boolean as fallback from policy_version p
        where p.environment = c.environment order by p.number desc limit 1
    ) policy on true
    left join route_generation g on g.channel_id = c.id and g.valid_to is null
    left join node stable on stable.id = g.stable_version_id
    left join node candidate on candidate.id = g.candidate_version_id
    left join route_generation b on b.channel_id = c.id and b.generation = g.generation - 1
        and g.kind = 'rollback' and b.stable_version_id is distinct from g.stable_version_id
    left join node before on before.id = b.stable_version_id
    where c.id = any(:channels)
    """
)
VERSIONS = text(
    # `was_left`: a rollback or a recall ended the version's last time as stable, not a better
    # version. Versions that were never stable here and are not approved are left out, except those
    # that the caller names (`asked`): for these the rules explain the refusal.
    """
    with route as (
        select g.channel_id, g.generation, g.stable_version_id as version_id,
               lead(g.kind) over later in ('rollback', 'recall')
                   and lead(g.stable_version_id) over later is distinct from g.stable_version_id
                   as pushed,
               g.kind = 'promote' and coalesce(r.state, 'succeeded') = 'succeeded' as promoted
        from route_generation g left join rollout r on r.id = g.rollout_id
        where g.channel_id = any(:channels)
        window later as (partition by g.channel_id order by g.generation)
    ), stood as (
        select channel_id, version_id, max(generation) as newest, bool_or(promoted) as succeeded,
               coalesce((array_agg(pushed order by generation desc))[1], false) as was_left
        from route where version_id is not null group by channel_id, version_id
    ), place as (
        select c.id, c.line_id, c.environment, c.use_case_id, v.base_root,
               g.candidate_version_id
        from channel c join version v on v.id = c.base_version_id
        left join route_generation g on g.channel_id = c.id and g.valid_to is null
        where c.id = any(:channels)
        union all select null, cast(:line as uuid), :environment, null, null, null
        where cast(:line as uuid) is not null
    )
    select p.id as channel_id, v.id, n.ref, coalesce(v.number, 0) as number, v.state,
           bound.ref as base, a.id is not null as approved,
           -- A checkpoint's own root is of its own weights: that of its base is compared.
           p.id is null or v.base_version_id is null or own.base_root is not distinct from
               p.base_root as same_base,
           coalesce(a.expires_at <= clock_timestamp(), false) as expired,
           -- No approval, or no channel yet: there is no use case to differ from.
           coalesce(u.use_case_id = p.use_case_id, true) as same_use_case,
           coalesce(s.succeeded, false) as succeeded, coalesce(s.was_left, false) as was_left
    from place p join version v on v.line_id = p.line_id join node n on n.id = v.id
    left join node bound on bound.id = v.base_version_id
    left join version own on own.id = v.base_version_id
    left join stood s on s.channel_id = p.id and s.version_id = v.id
    left join review a
        on a.version_id = v.id and a.environment = p.environment and a.state = 'approved'
    left join use_case_version u on u.id = a.use_case_version_id
    where v.state <> 'deleted' and (s.version_id is not null or a.id is not null
          or v.id = p.candidate_version_id or v.id = any(:asked))
    order by p.id, coalesce(s.newest, 0), v.number
    """
)


@dataclass(frozen=True, slots=True)
class Situation:
    """A channel as the rules see it, with the ids of the references that they answer with."""

    channel: Channel
    ids: dict[str, UUID]

    @property
    def acts(self) -> Acts:
        """What may be done to the channel now."""
        return acts(self.channel)

    def target(self) -> UUID:
        """Where a rollback goes; raises as `rollback_target` does."""
        return self.ids[rollback_target(self.channel)]

    def refuge(self) -> UUID | None:
        """Where a recall sends the traffic; None if nothing may serve, which kills the channel."""
        try:
            return self.target()
        except Refused:
            return None


def situation(session: Session, channel: UUID, *asked: UUID) -> Situation:
    """The situation of one channel; it includes the versions `asked` for in any case."""
    return situations(session, [channel], asked)[channel]


def situations(
    session: Session, channels: Sequence[UUID], asked: Sequence[UUID] = ()
) -> dict[UUID, Situation]:
    """The situations of many channels in two statements, by channel id."""
    known, ids = _versions(session, channels=channels, asked=asked)
    read = {}
    for row in session.execute(PLACES, {"channels": list(channels)}):
        channel = Channel(
            row.line,
            row.environment,
            row.name,
            row.kind,
            base=row.base,
            use_case=row.use_case,
            base_usable=row.base_usable,
            base_allowed=row.base_allowed,
            stable=row.stable,
            candidate=row.candidate,
            taken_off=row.taken_off,
            versions=tuple(known.get(row.id, ())),
        )
        read[row.id] = Situation(channel, {**ids, row.base: row.base_version_id})
    return read


def unopened(session: Session, line: Line, environment: str, name: str, *asked: UUID) -> Situation:
    """The situation of a channel that does not exist yet."""
    known, ids = _versions(session, line=line.id, environment=environment, asked=asked)
    policy = policies.in_force(session, environment)
    allowed = policy is not None and bool(policy.rules["fallback_to_base"])
    channel = Channel(
        line.ref,
        environment,
        name,
        line.kind,
        base_allowed=allowed,
        versions=tuple(known.get(None, ())),
    )
    return Situation(channel, ids)


def _versions(
    session: Session,
    *,
    channels: Sequence[UUID] = (),
    line: UUID | None = None,
    environment: str | None = None,
    asked: Sequence[UUID] = (),
) -> tuple[dict[UUID | None, list[Version]], dict[str, UUID]]:
    """Versions by channel id (None: a channel that does not exist yet), and their ids by ref."""
    known: dict[UUID | None, list[Version]] = {}
    ids: dict[str, UUID] = {}
    rows = session.execute(
        VERSIONS,
        {
            "channels": list(channels),
            "line": line,
            "environment": environment,
            "asked": list(asked),
        },
    )
    for row in rows:
        ids[row.ref] = row.id
        known.setdefault(row.channel_id, []).append(
            Version(
                row.ref,
                row.number,
                row.state,
                base=row.base,
                same_base=row.same_base,
                approved=row.approved,
                expired=row.expired,
                same_use_case=row.same_use_case,
                succeeded=row.succeeded,
                removed=row.was_left,
            )
        )
    return known, ids
