"""Recall a version and all that derives from it.

Every route and rollout that names any of it ends, in the same transaction.
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
from registry.rules.reviews import check_reason
from registry.rules.rollouts import State
from registry.views.rollouts import RecallView, RouteView


def recall(store: Store, actor: Actor, ref: str, reason: str) -> RecallView:
    """Declare a version or data set version, and all that derives from it, unfit for good.

    Nothing keeps serving it: its channels go to their last good stable version, else to the base,
    else they answer 503. Its open reviews and approvals become void. Raises NotFound, Refused
    `already-recalled`, Invalid without a reason of ten characters.
    """
    with store.write(actor, Action.RECALL) as tx:
        node = subjects.by_ref(tx.session, ref, gone=True).node
        tx.within(node.team)
        text = check_reason(reason, "A recall")
        affected = lineage.descendants(tx.session, node.id)
        # Lock order: channels first, then versions by id. A canary may commit between the two, so
        # the channels are read again below. From here on must_be_servable waits for the locked
        # version rows, and then refuses.
        rollouts.naming(tx.session, affected, lock=True)
        recalled = _mark_recalled(tx, affected)
        # A version may have been registered on a parent that was locked here. No further one can
        # be, so this loop ends.
        while late := sorted({*lineage.descendants(tx.session, node.id)} - {*affected}):
            affected += late
            recalled += _mark_recalled(tx, late)
        ids = [row.id for row in recalled]
        reviews.void(tx.session, ids, tx.now)
        served = rollouts.naming(tx.session, affected, lock=True)
        if node.id not in ids:
            raise Refused(
                "already-recalled",
                f"{ref} has been recalled already.",
                subject=ref,
            )
        tx.add(
            Recall(
                id=uuid4(),
                node_id=node.id,
                reason_commitment=accounts.seal(tx.session, "reason", text),
                ordered_by=actor.account,
                at=tx.now,
            )
        )
        routes = [_leave(tx, channel, text) for channel in served]
        names = sorted(tx.get(Node, recalled_id).ref for recalled_id in ids)
        tx.audit(node.ref, recalled=names, channels=len(routes))
        return RecallView(node.ref.removeprefix("dataset:"), text, names, routes)


def _mark_recalled(tx: Tx, ids: list[UUID]) -> list[Version | DatasetVersion]:
    """Recall the versions and data set versions among these nodes, locking them in id order.

    Returns those that were not recalled before.
    """
    marked: list[Version | DatasetVersion] = []
    for id in sorted(ids):
        row = versions.find(tx.session, id, lock=True) or datasets.find(tx.session, id, lock=True)
        if row is not None and row.state != "recalled":
            row.state = "recalled"
            marked.append(row)
    tx.session.flush()
    return marked


def _leave(tx: Tx, channel: Channel, reason: str) -> RouteView:
    """Move one channel off what was recalled.

    Where nothing may serve, the channel answers 503 rather than serve what is unfit.
    """
    stable = channels.situation(tx.session, channel.id).refuge()
    rollout = rollouts.active_rollout(tx.session, channel.id)
    if rollout is not None:
        rollout.end(State.ROLLED_BACK, tx.moment())
    sealed = accounts.seal(tx.session, "reason", reason)
    route = Route("recall", stable, rollout.id if rollout else None, tx.actor.account, sealed)
    generation = rollouts.append(tx.session, channel, route, tx.moment())
    return RouteView(
        f"{tx.get(Line, channel.line_id).ref}@{channel.name}",
        channel.environment,
        generation.generation,
        tx.get(Node, stable).ref if stable else None,
        None,
        0,
    )
