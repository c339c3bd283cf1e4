"""Delete versions and discard drafts: a tombstone stays, the bytes go by a later collection."""

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
    """Delete a registered version or data set version that nothing holds, keeps or needs; its
    approvals are void.

    Raises Refused `held`, `kept`, `needed`, `is-draft` or `already-deleted`, NotFound, Invalid
    without a reason.
    """
    said = check_reason(reason)
    with store.write(actor, Action.VERSION_DELETE) as tx:
        tombstones.one_at_a_time(tx.session)
        subject = _locked(tx, ref)
        # By the entry's own time, which is before the wait for the locks: whoever reads the log
        # judges by no other.
        rules.check_delete(subjects.standing(tx.session, subject), tx.now)
        return _close(tx, subject, "deleted", said)


def discard(store: Store, actor: Actor, ref: str, reason: str) -> TombstoneView:
    """Discard a draft; its maker's act, or for a trainer's draft any engineer's of its team.

    Raises Refused `not-draft`, `not-yours`, `held` or `already-deleted`, NotFound, Invalid without
    a reason.
    """
    said = check_reason(reason)
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
        return _close(tx, subject, "discarded", said)


def expire_drafts(store: Store) -> int:
    """Discard drafts whose time is over by the class their line is under; how many went."""
    with store.read(SYSTEM) as session:
        over = retention.overdue_drafts(session)
    return sum(_expire(store, node_id) for node_id in over)


def _expire(store: Store, node_id: UUID) -> bool:
    """Let one draft expire, unless somebody was faster: then nothing happened and nothing is
    logged.
    """
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
    found = subjects.by_ref(tx.session, ref, gone=True)
    tx.within(found.line.team)
    if isinstance(found.row, Version):
        # Lock order: channels first. Whoever starts a canary of it holds one and then the version
        # FOR SHARE.
        rollouts.naming(tx.session, [found.row.id], lock=True)
    return subjects.by_id(tx.session, found.node.id, lock=True)


def _close(tx: Tx, subject: Subject, how: str, reason: str) -> TombstoneView:
    """Set the tombstone and say so; approvals of what goes are void."""
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
    for review in reviews.approved_of(tx.session, [row.id]):
        review.state = "voided"
    # What was recalled stays recalled: that says more.
    if row.state != "recalled":
        row.state = "deleted"
    tx.session.flush()
    tx.audit(subject.node.ref, how=how, was=stone.was, reason=stone.reason_commitment)
    return TombstoneView(subject.ref, how, stone.was, stone.at, tx.actor.name, reason)
