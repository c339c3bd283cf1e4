"""What serves where: now, at any moment of the past, and in the form that a gateway needs."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, func, select, text, true
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session, aliased

from registry.db.accounts import names, personal_texts
from registry.db.channels import Situation, situations, unopened
from registry.db.evals import EvalSuiteVersion
from registry.db.policies import PolicyVersion
from registry.db.reviews import Review
from registry.db.rollouts import Channel, Rollout, RouteGeneration
from registry.db.store import Store
from registry.db.use_cases import UseCase
from registry.db.versions import Line, Node, Version
from registry.documents import canonical
from registry.errors import Invalid
from registry.queries.pages import seen, storable
from registry.queries.versions import files_of
from registry.rules.actors import Actor
from registry.rules.channels import Act, unknown
from registry.rules.refs import check_channel, check_environment, parse_line
from registry.rules.versions import usable
from registry.views.rollouts import (
    ActsView,
    ActView,
    ArmView,
    AsOfView,
    ChannelView,
    GenerationView,
    PromptForm,
    RefusalView,
    RoutingEntry,
    RoutingView,
)

CLOCK_SKEW = timedelta(minutes=5)
"""How far a caller's clock may be ahead of the registry's."""

Stable = aliased(Node)
Candidate = aliased(Node)


def channels(store: Store, actor: Actor, environment: str | None = None) -> list[ChannelView]:
    """Every channel that serves or served, by adapter, with its current route and possible acts."""
    which: ColumnElement[bool] = true()
    if environment is not None:
        which = Channel.environment == check_environment(environment)
    with store.read(actor) as session:
        return _channels(session, actor, which)


def channel(
    store: Store, actor: Actor, environment: str, adapter: str, channel: str
) -> ChannelView:
    """One channel, or NotFound."""
    with store.read(actor) as session:
        views = _channels(session, actor, _named(environment, adapter, channel))
    if not views:
        raise unknown(environment, channel)
    return views[0]


def first_acts(
    store: Store, actor: Actor, environment: str, adapter: str, channel: str
) -> ActsView:
    """The acts that are possible on a channel that has never served.

    Raises NotFound without such a line.
    """
    ref = parse_line(adapter)
    with store.read(actor) as session:
        line = session.scalars(
            select(Line).where(seen(actor, Line.team), Line.team == ref.team, Line.name == ref.name)
        ).one_or_none()
        if line is None:
            raise unknown(environment, channel)
        return _acts(
            unopened(session, line, check_environment(environment), check_channel(channel))
        )


def history(
    store: Store, actor: Actor, name: str, environment: str, channel: str | None = None
) -> list[GenerationView]:
    """The history of a channel, oldest first, or NotFound.

    The channel is the default of the environment unless it is named.
    """
    with store.read(actor) as session:
        rows = session.execute(
            select(RouteGeneration, Stable.ref, Candidate.ref)
            .join(Channel, Channel.id == RouteGeneration.channel_id)
            .join(Line, Line.id == Channel.line_id)
            .outerjoin(Stable, Stable.id == RouteGeneration.stable_version_id)
            .outerjoin(Candidate, Candidate.id == RouteGeneration.candidate_version_id)
            .where(seen(actor, Line.team), _named(environment, name, channel or environment))
            .order_by(RouteGeneration.generation)
        ).all()
        if not rows:
            raise unknown(environment, channel or environment)
        names_by_id = names(session, {row[0].actor_id for row in rows})
        reasons = personal_texts(session, {row[0].reason_commitment for row in rows})
        return [
            GenerationView(
                generation=route.generation,
                version=stable,
                candidate=candidate,
                weight_bp=route.weight_bp,
                kind=route.kind,
                valid_from=route.valid_from,
                valid_to=route.valid_to,
                actor=names_by_id[route.actor_id],
                reason=reasons.get(route.reason_commitment, "(erased)"),
            )
            for route, stable, candidate in rows
        ]


def _named(environment: str, adapter: str, channel: str) -> ColumnElement[bool]:
    line = parse_line(adapter)
    return (
        (Channel.environment == check_environment(environment))
        & (Channel.name == storable(channel))
        & (Line.team == line.team)
        & (Line.name == line.name)
    )


def _fallbacks(session: Session) -> dict[str, bool]:
    """By environment, whether the policy in force lets the base model serve."""
    rows = session.scalars(
        select(PolicyVersion)
        .ext(distinct_on(PolicyVersion.environment))
        .order_by(PolicyVersion.environment, PolicyVersion.number.desc())
    )
    return {row.environment: bool(row.rules["fallback_to_base"]) for row in rows}


# The review under which a generation serves: the newest that was ever approved, of the stable
# version or else of the candidate.
REVIEWS = text(
    """
    select g.id as generation_id, chosen.number, chosen.id
    from route_generation g join channel c on c.id = g.channel_id
    cross join lateral (
        select r.number, r.id from review r join policy_version p on p.id = r.policy_version_id
        where r.version_id in (g.stable_version_id, g.candidate_version_id)
            and r.environment = c.environment
            and r.state in ('approved', 'voided', 'expired')
            and (select count(*) from vote v where v.review_id = r.id and v.verdict = 'approve'
                 and v.at <= coalesce(:at, clock_timestamp()))
                >= (p.rules -> 'quorum' ->> 'approvals')::int
        order by r.version_id = g.stable_version_id desc, r.number desc limit 1
    ) chosen
    where g.id = any(:generations)
    """
)


def _reviews(
    session: Session, generations: list[UUID], at: datetime | None
) -> dict[UUID, Row[*tuple[Any, ...]]]:
    rows = session.execute(REVIEWS, {"generations": generations, "at": at})
    return {row.generation_id: row for row in rows}


def _channels(session: Session, actor: Actor, which: ColumnElement[bool]) -> list[ChannelView]:
    rows = session.execute(
        select(Channel, Line, UseCase, RouteGeneration, Stable.ref, Candidate.ref)
        .add_columns(Rollout.id, Rollout.state)
        .join(Line, Line.id == Channel.line_id)
        .join(UseCase, UseCase.id == Channel.use_case_id)
        .join(
            RouteGeneration,
            (RouteGeneration.channel_id == Channel.id) & RouteGeneration.valid_to.is_(None),
        )
        .outerjoin(Stable, Stable.id == RouteGeneration.stable_version_id)
        .outerjoin(Candidate, Candidate.id == RouteGeneration.candidate_version_id)
        .outerjoin(Rollout, (Rollout.channel_id == Channel.id) & Rollout.ended_at.is_(None))
        .where(seen(actor, Line.team), which)
        .order_by(Line.team, Line.name, Channel.environment, Channel.name)
    ).all()
    by_channel = situations(session, [row[0].id for row in rows])
    reviews = _reviews(session, [row[3].id for row in rows], None)
    views = []
    for place, line, use_case, now, stable, candidate, rollout, rollout_state in rows:
        review = reviews.get(now.id)
        views.append(
            ChannelView(
                adapter=line.ref,
                channel=place.name,
                environment=place.environment,
                use_case=use_case.ref,
                generation=now.generation,
                stable=stable,
                candidate=candidate,
                weight_bp=now.weight_bp,
                since=now.valid_from,
                rollout=rollout,
                rollout_state=rollout_state,
                review=review.number if review else None,
                acts=_acts(by_channel[place.id]),
            )
        )
    return views


def _acts(situation: Situation) -> ActsView:
    acts = situation.acts
    return ActsView(*map(_act, (acts.canary, acts.promote, acts.rollback)))


def _act(act: Act) -> ActView:
    error = act.refusal
    refusal = RefusalView(error.kind, error.detail, error.fix) if error else None
    return ActView(list(act.versions), act.default, refusal)


def as_of(store: Store, actor: Actor, at: datetime, environment: str) -> list[AsOfView]:
    """What every channel was ordered to serve at a moment, and who had approved it by then.

    Raises Invalid `bad-time` for a moment without a time zone, or one in the future.
    """
    if at.tzinfo is None:
        raise Invalid("bad-time", f"'{at.isoformat()}' has no time zone.")
    check_environment(environment)
    with store.read(actor) as session:
        # A clock that runs a little ahead is no question about the future.
        if at > session.execute(select(func.clock_timestamp())).scalar_one() + CLOCK_SKEW:
            raise Invalid(
                "bad-time",
                f"{at.isoformat(timespec='seconds')} is in the future, and nobody knows what will "
                "serve then.",
                "Ask about a moment up to now.",
            )
        rows = session.execute(
            select(Channel, Line, RouteGeneration, Stable.ref, Candidate.ref)
            .join(Line, Line.id == Channel.line_id)
            .join(RouteGeneration, RouteGeneration.channel_id == Channel.id)
            .outerjoin(Stable, Stable.id == RouteGeneration.stable_version_id)
            .outerjoin(Candidate, Candidate.id == RouteGeneration.candidate_version_id)
            .where(
                seen(actor, Line.team),
                Channel.environment == environment,
                RouteGeneration.valid_from <= at,
                RouteGeneration.valid_to.is_(None) | (RouteGeneration.valid_to > at),
            )
            .order_by(Line.team, Line.name, Channel.name)
        ).all()
        reviews = _reviews(session, [row[2].id for row in rows], at)
        signed = _approvers(session, [row.id for row in reviews.values()], at)
        views = []
        for place, line, then, stable, candidate in rows:
            review = reviews.get(then.id)
            views.append(
                AsOfView(
                    adapter=line.ref,
                    channel=place.name,
                    environment=environment,
                    generation=then.generation,
                    version=stable,
                    candidate=candidate,
                    weight_bp=then.weight_bp,
                    since=then.valid_from,
                    review=review.number if review else None,
                    approved_by=signed[review.id] if review else [],
                    by_policy=then.stable_version_id == place.base_version_id,
                )
            )
        return views


def _approvers(session: Session, reviews: list[UUID], at: datetime) -> dict[UUID, list[str]]:
    rows = session.execute(
        text(
            "select review_id, account_id from vote where review_id = any(:reviews) "
            "and verdict = 'approve' and at <= :at order by at, id"
        ),
        {"reviews": reviews, "at": at},
    ).all()
    names_by_id = names(session, {row.account_id for row in rows})
    approvers: dict[UUID, list[str]] = {}
    for row in rows:
        approvers.setdefault(row.review_id, []).append(names_by_id[row.account_id])
    return approvers


def routing(store: Store, actor: Actor, environment: str) -> RoutingView:
    """All routes of an environment, as a gateway needs them.

    `etag` is the digest of the entries alone, so it changes only when a route does.
    """
    check_environment(environment)
    with store.read(actor) as session:
        rows = session.execute(
            select(Channel, Line, RouteGeneration)
            .join(Line, Line.id == Channel.line_id)
            .join(
                RouteGeneration,
                (RouteGeneration.channel_id == Channel.id) & RouteGeneration.valid_to.is_(None),
            )
            .where(seen(actor, Line.team), Channel.environment == environment)
            .order_by(Line.team, Line.name, Channel.name)
        ).all()
        ids = {
            version_id
            for place, _, now in rows
            for version_id in (
                now.stable_version_id,
                now.candidate_version_id,
                place.base_version_id,
            )
            if version_id is not None
        }
        arms = _arms(session, ids)
        prompts = _prompts(session, [place.id for place, _, _ in rows])
        allowed = _fallbacks(session).get(environment, False)
        urgent = _urgent(session, [place.id for place, _, _ in rows])
        issued_at = session.execute(select(func.clock_timestamp())).scalar_one()
    entries = []
    for place, line, now in rows:
        base, base_state = arms[place.base_version_id]
        # The base stands in for what serves, and is asked as that is.
        asked = {
            version_id: prompts.get((place.id, version_id))
            for version_id in (now.stable_version_id, now.candidate_version_id)
            if version_id is not None
        }
        instead = next(filter(None, asked.values()), None)
        served: dict[UUID | None, ArmView] = {
            version_id: replace(arms[version_id][0], prompt=prompt or instead)
            for version_id, prompt in asked.items()
        }
        entries.append(
            RoutingEntry(
                model=line.ref,
                channel=place.name,
                generation=now.generation,
                stable=served.get(now.stable_version_id),
                candidate=served.get(now.candidate_version_id),
                weight_bp=now.weight_bp,
                salt=now.salt,
                base=replace(base, prompt=instead),
                fallback_to_base=allowed and usable(base_state),
                killed=now.killed,
                urgent=urgent.get(place.id, 0),
            )
        )
    etag = canonical.digest([asdict(entry) for entry in entries])
    return RoutingView(environment, etag, issued_at, entries)


def _urgent(session: Session, channels: list[UUID]) -> dict[UUID, int]:
    """The newest generation of each channel that withdrew a version.

    Gateways must follow it without waiting.
    """
    is_withdrawal = RouteGeneration.kind.in_(("rollback", "recall")) | RouteGeneration.killed
    rows = session.execute(
        select(RouteGeneration.channel_id, func.max(RouteGeneration.generation).label("newest"))
        .where(RouteGeneration.channel_id.in_(channels), is_withdrawal)
        .group_by(RouteGeneration.channel_id)
    )
    return {row.channel_id: row.newest for row in rows}


def _prompts(session: Session, channels: list[UUID]) -> dict[tuple[UUID, UUID], PromptForm]:
    """How each version of each channel was measured for the approval that its last rollout had.

    That is the suite of the review's evidence, which is frozen. A rollback returns to it as well.
    """
    rollouts = (
        select(
            Rollout.channel_id,
            Rollout.version_id,
            Review.evidence["suite"]["ref"].astext.label("suite"),
        )
        .ext(distinct_on(Rollout.channel_id, Rollout.version_id))
        .join(Review, Review.id == Rollout.review_id)
        .where(Rollout.channel_id.in_(channels))
        .order_by(Rollout.channel_id, Rollout.version_id, Rollout.started_at.desc())
        .subquery()
    )
    rows = session.execute(
        select(rollouts.c.channel_id, rollouts.c.version_id, EvalSuiteVersion.decoding)
        .join(Node, Node.ref == func.concat("suite:", rollouts.c.suite))
        .join(EvalSuiteVersion, EvalSuiteVersion.id == Node.id)
    )
    return {
        (channel, version): PromptForm(decoding["template"], decoding.get("system"))
        for channel, version, decoding in rows
    }


def _arms(session: Session, ids: set[UUID]) -> dict[UUID, tuple[ArmView, str]]:
    """Versions as arms, with their states."""
    files = files_of(session, list(ids))
    rows = session.execute(
        select(Version, Line.kind, Node.ref)
        .join(Line, Line.id == Version.line_id)
        .join(Node, Node.id == Version.id)
        .where(Version.id.in_(ids))
    )
    return {
        version.id: (
            ArmView(
                ref=ref,
                kind=kind,
                digest=version.manifest_digest,
                tensor_root=version.tensor_root or "",
                files=files.get(version.id, []),
            ),
            version.state,
        )
        for version, kind, ref in rows
    }
