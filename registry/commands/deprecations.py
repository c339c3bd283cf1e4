"""Deprecate a version: nothing new starts with it, and what serves it goes on."""

from __future__ import annotations

from registry.db import accounts, subjects, tombstones
from registry.db.deprecations import Deprecation
from registry.db.store import Store
from registry.rules.actions import Action
from registry.rules.actors import Actor
from registry.rules.rollouts import check_reason
from registry.rules.versions import State, bars_deprecation
from registry.views.deprecations import DeprecationView


def deprecate(store: Store, actor: Actor, ref: str, reason: str) -> DeprecationView:
    """Mark a registered version or data set version as not to be newly used, for good.

    Only its own row is locked, since no route, rollout or approval changes. The start of a canary
    locks that row too: a canary that started before goes on, and one that comes later is refused.
    Raises Refused `already-deprecated`, `is-draft` or `recalled`, NotFound (`deleted` too), Invalid
    without a reason.
    """
    text = check_reason(reason)
    with store.write(actor, Action.DEPRECATE) as tx:
        named = subjects.by_ref(tx.session, ref)
        tx.within(named.line.team)
        subject = subjects.by_id(tx.session, named.node.id, lock=True)
        if subject.row.state == State.DELETED:
            raise tombstones.refusal(tx.session, subject.node.id, subject.ref)
        if bars := bars_deprecation(subject.row.state, subject.ref):
            raise bars
        deprecation = tx.add(
            Deprecation(
                id=subject.node.id,
                reason_commitment=accounts.seal(tx.session, "reason", text),
                deprecated_by=actor.account,
                at=tx.now,
            )
        )
        subject.row.state = State.DEPRECATED.value
        tx.audit(subject.node.ref, reason=deprecation.reason_commitment)
        return DeprecationView(subject.ref, deprecation.at, actor.name, text)
