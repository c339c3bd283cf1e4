"""Recall a thing and all that derives from it: every route and rollout that names any of it ends,
in one transaction.
"""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID, uuid4

from registry.db import accounts, datasets, lineage, policies, reviews, rollouts, subjects, versions
from registry.db.datasets import DatasetVersion
from registry.db.rollouts import Channel, Recall, RouteGeneration
from registry.db.store import Store, Tx
from registry.db.versions import Line, Node, Version
from registry.errors import Refused
from registry.rules import rollouts as rules
from registry.rules.actions import Action
from registry.rules.actors import Actor
from registry.rules.rollouts import State
from registry.views.rollouts import RecallView, RouteView


def recall(store: Store, actor: Actor, ref: str, reason: str) -> RecallView:
    """Declare a version or data set version, and all that derives from it, unfit everywhere, for
    good.

    Channels go to their last good stable version, else to the base, else they answer 503; nothing
    keeps serving it. Approvals of what fell are void. Raises NotFound, Refused `already-recalled`,
    Invalid without a reason.
    """
    said = rules.check_reason(reason)
    with store.write(actor, Action.RECALL) as tx:
        node = subjects.by_ref(tx.session, ref, teams=tx.actor.teams(), gone=True).node
        tx.within(node.team)
        fallen = lineage.descendants(tx.session, node.id)
        # Lock order: channels first, then versions by id. A canary that committed between the two
        # is found by asking again: from here on must_be_servable waits for the version rows locked,
        # and then refuses.
        rollouts.naming(tx.session, fallen, lock=True)
        recalled = _fell(tx, fallen)
        # Just so a version that was being registered on a parent locked here: no further one can
        # be, so this ends.
        while more := sorted({*lineage.descendants(tx.session, node.id)} - {*fallen}):
            fallen += more
            recalled += _fell(tx, more)
        for review in reviews.approved_of(tx.session, [one.id for one in recalled]):
            review.state = "voided"
        places = rollouts.naming(tx.session, fallen, lock=True)
        if node.id not in {one.id for one in recalled}:
            raise Refused(
                "already-recalled",
                f"{ref} has been recalled already.",
                subject=ref,
            )
        tx.add(
            Recall(
                id=uuid4(),
                node_id=node.id,
                reason_commitment=accounts.seal(tx.session, "reason", said),
                ordered_by=actor.account,
                at=tx.now,
            )
        )
        routes = [_leave(tx, place, {one.id for one in recalled}, said) for place in places]
        names = sorted(tx.get(Node, one.id).ref for one in recalled)
        tx.audit(node.ref, recalled=names, channels=len(routes))
        return RecallView(node.ref.removeprefix("dataset:"), said, names, routes)


def _fell(tx: Tx, ids: list[UUID]) -> list[Version | DatasetVersion]:
    """Mark every version and data set version of these nodes recalled, locking them in id order."""
    found: list[Version | DatasetVersion] = []
    for one in sorted(ids):
        row = versions.find(tx.session, one, lock=True) or datasets.find(tx.session, one, lock=True)
        if row is not None and row.state != "recalled":
            row.state = "recalled"
            found.append(row)
    tx.session.flush()
    return found


def _leave(tx: Tx, place: Channel, recalled: set[UUID], reason: str) -> RouteView:
    """Move one channel off what was recalled."""
    present = rollouts.open_generation(tx.session, place.id)
    assert present is not None
    rollout = rollouts.active_rollout(tx.session, place.id)
    if rollout is not None:
        rollout.state, rollout.weight_bp, rollout.ended_at = State.ROLLED_BACK.value, 0, tx.moment()
        tx.session.flush()
    stands = present.stable_version_id is not None and present.stable_version_id not in recalled
    stable = present.stable_version_id if stands else _fall_back(tx, place, present)
    at = max(tx.moment(), present.valid_from + timedelta(microseconds=1))
    generation = rollouts.append(
        tx.session,
        place,
        present,
        kind="recall",
        stable=stable,
        candidate=None,
        weight_bp=0,
        salt="",
        killed=stable is None,
        rollout_id=rollout.id if rollout else None,
        actor_id=tx.actor.account,
        reason=accounts.seal(tx.session, "reason", reason),
        at=at,
    )
    return _view(tx, place, generation)


def _fall_back(tx: Tx, place: Channel, present: RouteGeneration) -> UUID | None:
    """The last good stable, the base, or nothing: then the channel answers 503 rather than serve
    what is unfit.
    """
    base = tx.get(Version, place.base_version_id)
    stood = rollouts.stables(tx.session, place)
    allowed = bool(policies.current(tx.session, place.environment).rules["fallback_to_base"])
    leaving = next(
        (one.stable.ref for one in stood if one.version_id == present.stable_version_id), None
    )
    try:
        target = rules.rollback_target(
            [one.stable for one in stood if not one.is_base],
            base_root=base.base_root or "",
            base_usable=base.state in ("registered", "deprecated"),
            fallback_allowed=allowed,
            leaving=leaving,
        )
    except Refused:
        return None
    if target.stable is None:
        return base.id
    return next(one.version_id for one in stood if one.stable.ref == target.stable.ref)


def _view(tx: Tx, place: Channel, generation: RouteGeneration) -> RouteView:
    line = tx.get(Line, place.line_id)
    stable = (
        tx.get(Node, generation.stable_version_id).ref if generation.stable_version_id else None
    )
    return RouteView(
        f"{line.ref}@{place.name}", place.environment, generation.generation, stable, None, 0
    )
