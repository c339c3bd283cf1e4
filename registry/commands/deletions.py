"""Delete versions and discard drafts. A tombstone stays; a later collection takes the bytes."""

from __future__ import annotations

from contextlib import suppress
from uuid import UUID

from registry.db import accounts, retention, reviews, rollouts, subjects, tombstones
from registry.db.accounts import Account
from registry.db.store import Store, Tx
from registry.db.subjects import Subject
from registry.db.tombstones import Tombstone
from registry.db.versions import Version
from registry.errors import Conflict, Refused
from registry.rules import retention as rules
from registry.rules.actions import Action
from registry.rules.actors import SYSTEM, Actor
from registry.rules.rollouts import check_reason
from registry.views.retention import TombstoneView


def delete(store: Store, actor: Actor, ref: str, reason: str) -> TombstoneView:
    """Delete a version or data set version that nothing holds, keeps or needs; void its approvals.

    Raises Refused `held`, `kept`, `needed`, `is-draft` or `already-deleted`, NotFound, Invalid
    without a reason.
    """
    text = check_reason(reason)
    with store.write(actor, Action.VERSION_DELETE) as tx:
        tombstones.one_at_a_time(tx.session)
        subject = _locked(tx, ref)
        # By the time of the log entry, which is before the wait for the locks: readers of the log
        # can judge the deletion only by that time.
        rules.check_delete(subjects.standing(tx.session, subject), tx.now)
        return _close(tx, subject, "deleted", text)


def discard(store: Store, actor: Actor, ref: str, reason: str) -> TombstoneView:
    """Discard a draft: its maker may, and for a trainer's draft any engineer of its team.

    Raises Refused `not-draft`, `not-yours`, `held` or `already-deleted`, NotFound, Invalid without
    a reason.
    """
    text = check_reason(reason)
    with store.write(actor, Action.DRAFT_DISCARD) as tx:
        tombstones.one_at_a_time(tx.session)
        subject = _locked(tx, ref)
        maker = subject.row.created_by
        service = maker is not None and tx.get(Account, maker).kind == "service"
        rules.check_discard(
            subjects.standing(tx.session, subject),
            maker=maker,
            maker_is_service=service,
            actor=actor.account,
        )
        return _close(tx, subject, "discarded", text)


def expire_drafts(store: Store) -> int:
    """Discard the drafts that outlived the draft days of their class; return how many."""
    with store.read(SYSTEM) as session:
        overdue = retention.overdue_drafts(session)
    return sum(_expire(store, node_id) for node_id in overdue)


def _expire(store: Store, node_id: UUID) -> bool:
    """Discard one draft, unless another transaction changed it first: then nothing is logged."""
    with suppress(Conflict), store.write(SYSTEM, Action.DRAFT_EXPIRE) as tx:
        tombstones.one_at_a_time(tx.session)
        subject = subjects.by_id(tx.session, node_id, lock=True)
        if subject.row.state != "draft" or not retention.overdue_drafts(tx.session, node_id):
            raise Conflict(
                "not-overdue", f"{subject.ref} is {subject.row.state}, and not overdue by now."
            )
        tx.team = subject.line.team
        _close(tx, subject, "expired", "its time as a draft was over")
        return True
    return False


def _locked(tx: Tx, ref: str) -> Subject:
    named = subjects.by_ref(tx.session, ref, gone=True)
    tx.within(named.line.team)
    if isinstance(named.row, Version):
        # Lock order: channels first. The start of a canary locks a channel, then the version FOR
        # SHARE.
        rollouts.naming(tx.session, [named.row.id], lock=True)
    return subjects.by_id(tx.session, named.node.id, lock=True)


def _close(tx: Tx, subject: Subject, how: str, reason: str) -> TombstoneView:
    """Set the tombstone, void the approvals, and write the log entry."""
    row = subject.row
    if row.state == "deleted":
        raise Refused(
            "already-deleted",
            f"{subject.ref} was deleted already.",
            subject=subject.ref,
        )
    stone = tx.add(
        Tombstone(
            id=row.id,
            how=how,
            was=row.state,
            deleted_by=tx.actor.account,
            at=tx.now,
            reason_commitment=accounts.seal(tx.session, "reason", reason),
        )
    )
    reviews.void(tx.session, [row.id], tx.now)
    # A recalled version keeps that state: it says more than "deleted".
    if row.state != "recalled":
        row.state = "deleted"
    tx.session.flush()
    tx.audit(subject.node.ref, how=how, was=stone.was, reason=stone.reason_commitment)
    return TombstoneView(subject.ref, how, stone.was, stone.at, tx.actor.name, reason)
