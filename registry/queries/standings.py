"""What serves now where a reviewed version would serve, and how the version compares with it.

A gate compares with the base. A reviewer replaces what serves, so these queries compare with that.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from sqlalchemy import Float, Integer, and_, column, select, text

from registry.db import evals
from registry.db.evals import EndedRuns, EvalSuiteVersion
from registry.db.reviews import Review
from registry.db.rollouts import Channel, RouteGeneration
from registry.db.store import Store
from registry.db.versions import Node, Version
from registry.queries.pages import seen
from registry.rules import evals as rules
from registry.rules.actors import Actor
from registry.views.standings import StandingView

# Of each review, the values of its version and of what its default channel serves, on the suite
# version that its evidence names and by that suite's metric; of several runs, the least favourable.
CHANGES = text(
    """
        select r.number, stable.ref as serves, g.stable_version_id = r.version_id as itself,
               own.value as subject, other.value as serving
        from review r
        join version v on v.id = r.version_id join node n on n.id = v.id
        join channel c on c.line_id = v.line_id and c.environment = r.environment
            and c.name = r.environment
        join route_generation g on g.channel_id = c.id and g.valid_to is null
        join node stable on stable.id = g.stable_version_id
        left join node named on named.ref = 'suite:' || (r.evidence -> 'suite' ->> 'ref')
        left join eval_suite_version s on s.id = named.id
            and s.digest = r.evidence -> 'suite' ->> 'digest'
        left join lateral (
            select min(m.value) as value from eval_run e
            join eval_metric m on m.eval_run_id = e.id
            where e.subject_id = r.version_id and e.suite_version_id = s.id
                and e.state = 'succeeded' and m.name = s.metric
        ) own on true
        left join lateral (
            select max(m.value) as value from eval_run e
            join eval_metric m on m.eval_run_id = e.id
            where e.subject_id = g.stable_version_id and e.suite_version_id = s.id
                and e.state = 'succeeded' and m.name = s.metric
        ) other on true
        where r.number = any(:numbers)
        """
).columns(
    column("number", Integer),
    column("serves"),
    column("itself"),
    column("subject", Float),
    column("serving", Float),
)


def changes(store: Store, actor: Actor, numbers: Collection[int]) -> dict[int, StandingView]:
    """For each review where something serves in its default channel, the plain difference.

    One statement for a whole page of reviews; `standings` adds the interval.
    """
    with store.read(actor) as session:
        visible = list(
            session.scalars(
                select(Review.number)
                .join(Node, Node.id == Review.version_id)
                .where(Review.number.in_(numbers), seen(actor, Node.team))
            )
        )
        results = session.execute(CHANGES, {"numbers": visible}).all()
    views = {}
    for row in results:
        measured = None not in (row.subject, row.serving)
        views[row.number] = StandingView(
            channel="",
            serves=row.serves,
            kind="itself" if row.itself else "version",
            serving=row.serving,
            subject=row.subject,
            gain=row.subject - row.serving if measured else None,
        )
    return views


def standings(store: Store, actor: Actor, number: int) -> list[StandingView]:
    """What each channel of the review's line and environment serves, with the paired difference.

    The default channel comes first, also where nothing serves in it. The difference is
    paired item by item over all successful eval runs, as a gate's is (`rules.evals.pair`).
    """
    with store.read(actor) as session:
        review = session.execute(
            select(Review, Version, Node)
            .join(Version, Version.id == Review.version_id)
            .join(Node, Node.id == Review.version_id)
            .where(Review.number == number, seen(actor, Node.team))
        ).one_or_none()
        if review is None:
            return []
        judged, version, subject = review
        pinned = judged.evidence.get("suite") or {}
        # Suites of two teams may be equal, so the digest alone does not name one.
        suite = session.scalars(
            select(EvalSuiteVersion)
            .join(Node, Node.id == EvalSuiteVersion.id)
            .where(
                Node.ref == f"suite:{pinned.get('ref')}",
                EvalSuiteVersion.digest == pinned.get("digest"),
            )
        ).one_or_none()
        served = session.execute(
            select(Channel, RouteGeneration.stable_version_id, Node)
            .join(
                RouteGeneration,
                and_(RouteGeneration.channel_id == Channel.id, RouteGeneration.valid_to.is_(None)),
            )
            .outerjoin(Node, Node.id == RouteGeneration.stable_version_id)
            .where(Channel.line_id == version.line_id, Channel.environment == judged.environment)
            .order_by(Channel.name != judged.environment, Channel.name)
        ).all()
        measured = None
        if suite is not None:
            compared = {version.id, *(stable for _, stable, _ in served)}
            runs = evals.ended_runs(session, compared, {suite.id})
            measured = _Measured(pinned["ref"], suite, runs)
        views = [_standing(channel, node, subject, measured) for channel, _, node in served]
    if not any(view.channel == judged.environment for view in views):
        views.insert(0, StandingView(judged.environment, None, "nothing"))
    return views


@dataclass(frozen=True, slots=True)
class _Measured:
    """The suite version that a review's evidence names, with the runs of all that is compared."""

    ref: str
    suite: EvalSuiteVersion
    runs: EndedRuns

    def outcomes(self, node: Node) -> list[str]:
        """The outcomes of the successful runs of one version."""
        return self.runs.outcomes(node.id, self.suite.id)


def _standing(
    channel: Channel, serving: Node | None, subject: Node, measured: _Measured | None
) -> StandingView:
    if serving is None:
        return StandingView(channel.name, None, "nothing")
    if serving.id == subject.id:
        return StandingView(channel.name, serving.ref, "itself", serving.kind)
    kind = "base" if serving.id == channel.base_version_id else "version"
    place = StandingView(channel.name, serving.ref, kind, serving.kind)
    if measured is None:
        return replace(place, why="No suite was evaluated.")
    place = replace(place, suite=measured.ref)
    missing = [node.ref for node in (subject, serving) if not measured.outcomes(node)]
    if missing:
        why = f"{' and '.join(missing)} {'were' if len(missing) > 1 else 'was'} not evaluated"
        return replace(place, why=f"{why} on {measured.ref}.")
    paired = rules.pair(
        measured.outcomes(subject), measured.outcomes(serving), measured.suite.items
    )
    gain, low, high = rules.difference(paired)
    return replace(
        place,
        serving=(paired.both + paired.only_base) / paired.n,
        subject=(paired.both + paired.only_adapter) / paired.n,
        n=paired.n,
        only_subject=paired.only_adapter,
        only_serving=paired.only_base,
        gain=gain,
        low=low,
        high=high,
    )
