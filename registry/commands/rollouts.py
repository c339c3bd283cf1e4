"""Deliver: start a canary, promote it, roll back. Each appends one route generation under the
channel's lock.
"""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from registry.db import accounts, policies, reviews, rollouts, tombstones, versions
from registry.db.accounts import SigningKey
from registry.db.reviews import Review
from registry.db.rollouts import Channel, Rollout, RouteGeneration
from registry.db.store import Store, Tx
from registry.db.versions import Line, Node, Version
from registry.errors import Refused, Unverified
from registry.proof import keys
from registry.rules import rollouts as rules
from registry.rules.actions import Action
from registry.rules.actors import Actor
from registry.rules.refs import Ref, check_channel, check_environment, parse_line, parse_ref
from registry.rules.rollouts import State
from registry.views.rollouts import RouteView


def start(
    store: Store,
    actor: Actor,
    ref: str,
    environment: str,
    channel: str | None,
    share_bp: int,
    reason: str,
) -> RouteView:
    """Give an approved version a share of a channel's traffic; the rest stays where it is, at first
    with the base.

    Raises Refused (not approved, base not allowed), Conflict (another rollout is active), Invalid
    (share, names).
    """
    rules.check_share(share_bp)
    with store.write(actor, Action.ROLLOUT_START) as tx:
        line, version, node = _subject(tx, parse_ref(ref))
        tx.within(line.team)
        place = _place(tx, line, version, check_environment(environment), channel)
        review = _approved(tx, version, node, environment)
        present = rollouts.open_generation(tx.session, place.id)
        stable = present.stable_version_id if present else place.base_version_id
        if stable == version.id:
            raise Refused(
                "serves-already",
                f"{node.ref} serves all of this channel already.",
                subject=node.ref,
            )
        rollout = _begin(tx, place, version, review, stable)
        rollout.weight_bp = share_bp
        tx.session.flush()
        generation = _route(
            tx,
            place,
            present,
            "canary",
            reason or f"canary of {node.ref}",
            rollout,
            stable=stable,
            candidate=version.id,
            weight_bp=share_bp,
            salt=secrets.token_hex(8),
        )
        return _done(tx, line, place, generation, rollout)


def promote(
    store: Store, actor: Actor, name: str, environment: str, channel: str | None, reason: str
) -> RouteView:
    """Give the active canary all traffic; without one, put back the version the last rollback took
    off.

    Raises Refused when there is neither, or when approval, signatures or version no longer hold.
    """
    ref = parse_ref(name)
    with store.write(actor, Action.ROLLOUT_PROMOTE) as tx:
        line = (
            versions.by_ref(tx.session, ref, teams=tx.actor.teams())[1]
            if ref.team is None
            else versions.line(tx.session, ref)
        )
        tx.within(line.team)
        place = _existing(tx, line, check_environment(environment), channel)
        present = rollouts.open_generation(tx.session, place.id)
        rollout = rollouts.active_rollout(tx.session, place.id)
        version = _to_promote(tx, place, line, ref, rollout)
        node = tx.get(Node, version.id)
        review = _approved(tx, version, node, environment)
        if rollout is None:
            rollout = _begin(
                tx, place, version, review, present.stable_version_id if present else None
            )
        rules.advance(State(rollout.state), rules.Event.PROMOTE)
        rollout.state = State.PROMOTING.value
        tx.session.flush()
        _end(tx, rollout, State.SUCCEEDED)
        generation = _route(
            tx,
            place,
            present,
            "promote",
            reason or f"promotion of {node.ref}",
            rollout,
            stable=version.id,
        )
        return _done(tx, line, place, generation, rollout)


def roll_back(
    store: Store, actor: Actor, name: str, environment: str, channel: str | None, reason: str
) -> RouteView:
    """Take traffic off the candidate, or off the stable version, at once: to the last good stable,
    else to the base.

    It never asks the candidate, the telemetry or the object store. Raises Refused
    `nothing-to-roll-back` when the base serves already, `no-rollback-target` when nothing may
    serve.
    """
    said = rules.check_reason(reason)
    with store.write(actor, Action.CHANNEL_ROLL_BACK) as tx:
        line = versions.line(tx.session, parse_line(name))
        tx.within(line.team)
        place = _existing(tx, line, check_environment(environment), channel)
        present = rollouts.open_generation(tx.session, place.id)
        assert present is not None
        rollout = rollouts.active_rollout(tx.session, place.id)
        if rollout is None and present.stable_version_id == place.base_version_id:
            raise Refused(
                "nothing-to-roll-back",
                f"{line.ref} in {environment} serves its base model already.",
                subject=line.ref,
            )
        target = _target(tx, place, present, leaving_stable=rollout is None)
        if rollout is not None:
            _end(tx, rollout, State.ROLLED_BACK)
        generation = _route(tx, place, present, "rollback", said, rollout, stable=target)
        return _done(tx, line, place, generation, rollout)


def _subject(tx: Tx, ref: Ref) -> tuple[Line, Version, Node]:
    version, line, node = versions.by_ref(tx.session, ref, teams=tx.actor.teams())
    if line.kind == "base":
        raise Refused(
            "unfit-subject",
            f"{node.ref} is a base model; only adapters and checkpoints are rolled out.",
            "Name an approved adapter version.",
            subject=node.ref,
        )
    return line, version, node


def _place(tx: Tx, line: Line, version: Version, environment: str, name: str | None) -> Channel:
    """The channel, locked; made at its first canary, for the use case its version was approved
    for.
    """
    called = check_channel(name or environment)
    found = rollouts.find_channel(tx.session, line.id, environment, called, lock=True)
    if found is not None:
        _same_base(tx, found, version)
        return found
    review = reviews.live(tx.session, version.id, environment)
    if review is None or version.base_version_id is None:
        raise _unapproved(str(tx.get(Node, version.id).ref), environment)
    return tx.add(
        Channel(
            id=uuid4(),
            line_id=line.id,
            environment=environment,
            name=called,
            use_case_id=review.use_case_id,
            base_version_id=version.base_version_id,
            created_at=tx.now,
        )
    )


def _same_base(tx: Tx, place: Channel, version: Version) -> None:
    """A channel keeps its base: gateways load every arm on it, and an adapter on another base talks
    nonsense.
    """
    base = tx.get(Version, place.base_version_id)
    if version.base_version_id is not None and version.base_root != base.base_root:
        raise Refused(
            "another-base",
            f"{tx.get(Node, version.id).ref} was trained on another base than "
            f"{tx.get(Node, base.id).ref}, on which this channel serves.",
            subject=tx.get(Node, version.id).ref,
        )


def _existing(tx: Tx, line: Line, environment: str, name: str | None) -> Channel:
    return rollouts.channel(tx.session, line.id, environment, name or environment, lock=True)


def _unapproved(ref: str, environment: str) -> Refused:
    return Refused(
        "not-approved",
        f"{ref} holds no approval in force for {environment}.",
        f"Submit it (countersign submit {ref} --env {environment}) and have it approved.",
        subject=ref,
    )


def _approved(tx: Tx, version: Version, node: Node, environment: str) -> Review:
    """The approval in force, its votes verified again: a signature nobody checks at the door
    protects nobody.
    """
    held, _, _ = versions.by_id(tx.session, version.id, share=True)
    if held.state == "recalled":
        raise Refused(
            "recalled",
            f"{node.ref} is recalled and may serve nowhere.",
            subject=node.ref,
        )
    if held.state == "deleted":
        raise tombstones.refusal(tx.session, held.id, node.ref)
    review = reviews.live(tx.session, version.id, environment, share=True)
    if review is None or review.state != "approved":
        raise _unapproved(node.ref, environment)
    if review.expires_at is None or review.expires_at <= tx.now:
        raise Refused(
            "approval-expired",
            f"The approval of {node.ref} for {environment} has expired.",
            subject=node.ref,
        )
    for vote in reviews.votes_of(tx.session, review.id):
        key = tx.get(SigningKey, vote.key_id)
        if not keys.verify_document(key.public_key, vote.decision, "decision", vote.signature):
            raise Unverified(
                "bad-signature",
                f"A vote of review {review.number} does not verify any more.",
                "Stop, and run countersign audit verify and countersign doctor.",
                subject=node.ref,
            )
        if vote.decision.get("evidence_root") != review.evidence_root:
            raise Unverified(
                "evidence-changed",
                f"A vote of review {review.number} was about other evidence.",
                subject=node.ref,
            )
    return review


def _begin(
    tx: Tx, place: Channel, version: Version, review: Review, target: UUID | None
) -> Rollout:
    rollout = tx.add(
        Rollout(
            id=uuid4(),
            channel_id=place.id,
            version_id=version.id,
            review_id=review.id,
            state=State.PENDING.value,
            weight_bp=0,
            rollback_target_id=target,
            started_by=tx.actor.account,
            started_at=tx.now,
        )
    )
    rollout.state = rules.advance(State.PENDING, rules.Event.START).value
    tx.session.flush()
    return rollout


def _end(tx: Tx, rollout: Rollout, state: State) -> None:
    rollout.state, rollout.weight_bp, rollout.ended_at = state.value, 0, tx.moment()
    tx.session.flush()


def _to_promote(tx: Tx, place: Channel, line: Line, ref: Ref, rollout: Rollout | None) -> Version:
    """The canary's version; without one, the version the last step took off by a rollback, or one
    named that stood.

    Never simply the version before: who presses twice must not put an older one back.
    """
    wanted = (
        versions.by_ref(tx.session, ref, teams=tx.actor.teams())[0].id
        if ref.number or ref.digest
        else None
    )
    if rollout is not None:
        if wanted not in (None, rollout.version_id):
            raise Refused(
                "another-canary",
                f"The active canary of {line.ref} is not {ref}.",
                subject=line.ref,
            )
        return tx.get(Version, rollout.version_id)
    present = rollouts.open_generation(tx.session, place.id)
    wanted = wanted or (rollouts.taken_off(tx.session, present) if present else None)
    chosen = [
        one
        for one in rollouts.stables(tx.session, place)
        if not one.is_base
        and one.stable.succeeded
        and one.version_id == wanted
        and one.version_id != (present.stable_version_id if present else None)
    ]
    if not chosen:
        raise Refused(
            "canary-first",
            f"{line.ref} has no active canary to promote.",
            subject=line.ref,
        )
    return tx.get(Version, chosen[0].version_id)


def _target(tx: Tx, place: Channel, present: RouteGeneration, *, leaving_stable: bool) -> UUID:
    """Where a rollback goes, by the pure rule: the stable that stands, an earlier one, or the
    base.
    """
    base, _, _ = versions.by_id(tx.session, place.base_version_id, share=True)
    if not leaving_stable and present.stable_version_id is not None:
        # Taking off a candidate leaves the stable where it is; only a recall could have ended that,
        # and it did not.
        return present.stable_version_id
    stood = rollouts.stables(tx.session, place)
    leaving = next(
        (one.stable.ref for one in stood if one.version_id == present.stable_version_id), None
    )
    rules_now = policies.current(tx.session, place.environment).rules
    target = rules.rollback_target(
        [one.stable for one in stood if not one.is_base],
        base_root=base.base_root or "",
        base_usable=base.state in ("registered", "deprecated"),
        fallback_allowed=bool(rules_now["fallback_to_base"]),
        leaving=leaving,
    )
    if target.stable is None:
        return base.id
    return next(one.version_id for one in stood if one.stable.ref == target.stable.ref)


def _route(
    tx: Tx,
    place: Channel,
    present: RouteGeneration | None,
    kind: str,
    reason: str,
    rollout: Rollout | None,
    *,
    stable: UUID | None,
    candidate: UUID | None = None,
    weight_bp: int = 0,
    salt: str = "",
) -> RouteGeneration:
    """Close the present generation and open the next at one instant, so that as-of queries have no
    gap.
    """
    return rollouts.append(
        tx.session,
        place,
        present,
        kind=kind,
        stable=stable,
        candidate=candidate,
        weight_bp=weight_bp,
        salt=salt,
        killed=False,
        rollout_id=rollout.id if rollout else None,
        actor_id=tx.actor.account,
        reason=accounts.seal(tx.session, "reason", reason),
        at=_after(tx.moment(), present),
    )


def _after(moment: datetime, present: RouteGeneration | None) -> datetime:
    """Time moves forward on a channel even where a machine's clock was set back."""
    return max(moment, present.valid_from + timedelta(microseconds=1)) if present else moment


def _done(
    tx: Tx, line: Line, place: Channel, generation: RouteGeneration, rollout: Rollout | None
) -> RouteView:
    ids = [one for one in (generation.stable_version_id, generation.candidate_version_id) if one]
    refs = {one: tx.get(Node, one).ref for one in ids}
    view = RouteView(
        channel=f"{line.ref}@{place.name}",
        environment=place.environment,
        generation=generation.generation,
        stable=refs.get(generation.stable_version_id) if generation.stable_version_id else None,
        candidate=refs.get(generation.candidate_version_id)
        if generation.candidate_version_id
        else None,
        weight_bp=generation.weight_bp,
        rollout=rollout.id if rollout else None,
        rollout_state=rollout.state if rollout else None,
    )
    tx.audit(
        f"channel:{line.ref}/{place.environment}/{place.name}",
        generation=generation.generation,
        stable=view.stable,
        candidate=view.candidate,
        weight_bp=view.weight_bp,
    )
    return view
