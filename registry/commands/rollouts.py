"""Start a canary, promote it, or roll back.

Each command appends one route generation under the lock of its channel. `rules/channels` decides
what is possible on a channel, from what is read once the rows are locked.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from uuid import UUID, uuid4

from registry.db import accounts, channels, reviews, rollouts, tombstones, versions
from registry.db.accounts import SigningKey
from registry.db.reviews import Review
from registry.db.rollouts import Channel, Rollout, Route
from registry.db.store import Store, Tx
from registry.db.use_cases import UseCaseVersion
from registry.db.versions import Line, Node
from registry.errors import Unverified
from registry.proof import keys
from registry.rules.actions import Action
from registry.rules.actors import Actor
from registry.rules.channels import check_canary, to_promote
from registry.rules.refs import Ref, check_channel, check_environment, parse_line, parse_ref
from registry.rules.rollouts import State, check_reason, check_share
from registry.views.rollouts import RouteView


@dataclass(frozen=True, slots=True)
class Canary:
    """A version to try on a channel, with its share of the traffic in basis points.

    Without a name the channel is the environment's default.
    """

    ref: str
    environment: str
    channel: str | None
    share_bp: int
    reason: str


@dataclass(frozen=True, slots=True)
class Place:
    """A channel as people name it: by its line, its environment and its name.

    Without a name it is the environment's default. `name` may name a version of the line.
    """

    name: str
    environment: str
    channel: str | None


def start(store: Store, actor: Actor, canary: Canary) -> RouteView:
    """Give an approved version a share of a channel's traffic.

    The rest of the traffic stays where it is: on a new channel, with the base. Raises as
    `check_canary` does, Unverified for a vote that does not verify, Invalid (share, names).
    """
    check_share(canary.share_bp)
    with store.write(actor, Action.ROLLOUT_START) as tx:
        version, line, node = versions.by_ref(tx.session, parse_ref(canary.ref))
        tx.within(line.team)
        environment = check_environment(canary.environment)
        name = check_channel(canary.channel or environment)
        channel = rollouts.find_channel(tx.session, line.id, environment, name, lock=True)
        live = _lock(tx, version.id, environment)
        now = (
            channels.situation(tx.session, channel.id, version.id)
            if channel
            else channels.unopened(tx.session, line, environment, name, version.id)
        )
        check_canary(now.channel, node.ref)
        review = _verified(tx, live, node.ref)
        if channel is None:
            channel = _opened(tx, line, review, version.base_version_id, name)
        present = rollouts.open_generation(tx.session, channel.id)
        stable = present.stable_version_id if present else channel.base_version_id
        rollout = _begin(tx, channel, review, stable)
        rollout.weight_bp = canary.share_bp
        route = Route(
            "canary",
            stable,
            rollout.id,
            tx.actor.account,
            accounts.seal(tx.session, "reason", canary.reason or f"canary of {node.ref}"),
            candidate=version.id,
            weight_bp=canary.share_bp,
            salt=secrets.token_hex(8),
        )
        return _done(tx, line, channel, route, rollout)


def promote(store: Store, actor: Actor, place: Place, reason: str) -> RouteView:
    """Give the active canary all traffic.

    Without a canary, put back the version that the last rollback took off, or the named version if
    it succeeded on this channel before. Raises as `to_promote` does, Unverified for a vote that
    does not verify.
    """
    ref = parse_ref(place.name)
    with store.write(actor, Action.ROLLOUT_PROMOTE) as tx:
        line = (
            versions.by_ref(tx.session, ref)[1]
            if ref.team is None
            else versions.line(tx.session, ref)
        )
        tx.within(line.team)
        channel = _existing(tx, line, place)
        named = _named(tx, ref)
        now = channels.situation(tx.session, channel.id)
        version_id = now.ids[to_promote(now.channel, named)]
        live = _lock(tx, version_id, channel.environment)
        # Once more, now that the rows are locked: a recall may have committed in between.
        now = channels.situation(tx.session, channel.id)
        subject = to_promote(now.channel, named)
        review = _verified(tx, live, subject)
        rollout = rollouts.active_rollout(tx.session, channel.id)
        if rollout is None:
            present = rollouts.open_generation(tx.session, channel.id)
            rollout = _begin(tx, channel, review, present.stable_version_id if present else None)
        rollout.state = State.PROMOTING
        tx.session.flush()
        rollout.end(State.SUCCEEDED, tx.moment())
        sealed = accounts.seal(tx.session, "reason", reason or f"promotion of {subject}")
        route = Route("promote", version_id, rollout.id, tx.actor.account, sealed)
        return _done(tx, line, channel, route, rollout)


def roll_back(store: Store, actor: Actor, place: Place, reason: str) -> RouteView:
    """Take all traffic off the candidate or, without one, off the stable version.

    It goes to the last good stable version, else to the base. A rollback depends neither on the
    candidate nor on telemetry or the object store. Raises as `rollback_target` does.
    """
    text = check_reason(reason)
    with store.write(actor, Action.CHANNEL_ROLL_BACK) as tx:
        line = versions.line(tx.session, parse_line(place.name))
        tx.within(line.team)
        channel = _existing(tx, line, place)
        versions.by_id(tx.session, channel.base_version_id, share=True)
        target = channels.situation(tx.session, channel.id).target()
        rollout = rollouts.active_rollout(tx.session, channel.id)
        if rollout is not None:
            rollout.end(State.ROLLED_BACK, tx.moment())
        sealed = accounts.seal(tx.session, "reason", text)
        route = Route("rollback", target, rollout.id if rollout else None, tx.actor.account, sealed)
        return _done(tx, line, channel, route, rollout)


def _existing(tx: Tx, line: Line, place: Place) -> Channel:
    environment = check_environment(place.environment)
    return rollouts.channel(
        tx.session, line.id, environment, place.channel or environment, lock=True
    )


def _named(tx: Tx, ref: Ref) -> str | None:
    """The full reference of a version named by number or digest; None for a line or channel."""
    if not (ref.number or ref.digest):
        return None
    return versions.by_ref(tx.session, ref)[2].ref


def _lock(tx: Tx, version_id: UUID, environment: str) -> Review | None:
    """Lock a version and its live review against a recall until the commit; return the review.

    Raises NotFound `deleted`.
    """
    version, _, node = versions.by_id(tx.session, version_id, share=True)
    if version.state == "deleted":
        raise tombstones.refusal(tx.session, version.id, node.ref)
    return reviews.live(tx.session, version.id, environment, share=True)


def _verified(tx: Tx, review: Review | None, ref: str) -> Review:
    """The approval that the rule relied on, after verifying its votes again.

    A signature protects only if it is checked where it counts: before traffic moves.
    """
    assert review is not None
    for vote in reviews.votes_of(tx.session, review.id):
        key = tx.get(SigningKey, vote.key_id)
        if not keys.verify_document(key.public_key, vote.decision, "decision", vote.signature):
            raise Unverified(
                "bad-signature",
                f"A vote of review {review.number} does not verify any more.",
                "Do not deliver this version; run countersign audit verify and countersign doctor.",
                subject=ref,
            )
        if vote.decision.get("evidence_root") != review.evidence_root:
            raise Unverified(
                "evidence-changed",
                f"A vote of review {review.number} was about other evidence.",
                subject=ref,
            )
    return review


def _opened(tx: Tx, line: Line, review: Review, base: UUID | None, name: str) -> Channel:
    """Open a channel at its first canary, for the use case its version was approved for."""
    return tx.add(
        Channel(
            id=uuid4(),
            line_id=line.id,
            environment=review.environment,
            name=name,
            use_case_id=tx.get(UseCaseVersion, review.use_case_version_id).use_case_id,
            base_version_id=base,
            created_at=tx.now,
        )
    )


def _begin(tx: Tx, channel: Channel, review: Review, target: UUID | None) -> Rollout:
    """Begin a rollout of the approved version, as a canary that has no share yet."""
    rollout = tx.add(
        Rollout(
            id=uuid4(),
            channel_id=channel.id,
            version_id=review.version_id,
            review_id=review.id,
            state=State.PENDING,
            weight_bp=0,
            rollback_target_id=target,
            started_by=tx.actor.account,
            started_at=tx.now,
        )
    )
    rollout.state = State.CANARY
    tx.session.flush()
    return rollout


def _done(tx: Tx, line: Line, channel: Channel, route: Route, rollout: Rollout | None) -> RouteView:
    generation = rollouts.append(tx.session, channel, route, tx.moment())
    refs = {
        version: tx.get(Node, version).ref for version in (route.stable, route.candidate) if version
    }
    view = RouteView(
        channel=f"{line.ref}@{channel.name}",
        environment=channel.environment,
        generation=generation.generation,
        stable=refs[route.stable] if route.stable else None,
        candidate=refs[route.candidate] if route.candidate else None,
        weight_bp=route.weight_bp,
        rollout=rollout.id if rollout else None,
        rollout_state=rollout.state if rollout else None,
    )
    tx.audit(
        f"channel:{line.ref}/{channel.environment}/{channel.name}",
        generation=view.generation,
        stable=view.stable,
        candidate=view.candidate,
        weight_bp=view.weight_bp,
        reason=route.reason,
    )
    return view
