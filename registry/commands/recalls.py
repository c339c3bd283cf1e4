"""Recall a thing and all that derives from it: every route and rollout that names any of it ends,
in one transaction.
"""

from __future__ import annotations

from uuid import UUID, uuid4

from registry.db import accounts, channels, datasets, lineage, reviews, rollouts, subjects, versions
from registry.db.datasets import DatasetVersion
from registry.db.rollouts import Channel, Recall, Route
from registry.db.store import Store, Tx
from registry.db.versions import Line, Node, Version
from registry.errors import Refused
from registry.rules.actions import Action
from registry.rules.actors import Actor
from registry.rules.rollouts import State, check_reason
from registry.views.rollouts import RecallView, RouteView


def recall(store: Store, actor: Actor, ref: str, reason: str) -> RecallView:
    """Declare a version or data set version, and all that derives from it, unfit everywhere, for
    good.

    Channels go to their last good stable version, else to the base, else they answer 503; nothing
    keeps serving it. Approvals of what fell are void. Raises NotFound, Refused `already-recalled`,
    Invalid without a reason.
    """
    said = check_reason(reason)
    with store.write(actor, Action.RECALL) as tx:
        node = subjects.by_ref(tx.session, ref, gone=True).node
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
        routes = [_leave(tx, place, said) for place in places]
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


def _leave(tx: Tx, place: Channel, reason: str) -> RouteView:
    """Move one channel off what was recalled; where nothing may serve, it answers 503 rather than
    serve what is unfit.
    """
    stable = channels.situation(tx.session, place.id).refuge()
    rollout = rollouts.active_rollout(tx.session, place.id)
    if rollout is not None:
        rollout.end(State.ROLLED_BACK, tx.moment())
    sealed = accounts.seal(tx.session, "reason", reason)
    route = Route("recall", stable, rollout.id if rollout else None, tx.actor.account, sealed)
    generation = rollouts.append(tx.session, place, route, tx.moment())
    return RouteView(
        f"{tx.get(Line, place.line_id).ref}@{place.name}",
        place.environment,
        generation.generation,
        tx.get(Node, stable).ref if stable else None,
        None,
        0,
    )
