"""Place and lift legal holds.

Until a hold is lifted, nothing that it covers is deleted, nor anything that this derives from.
"""

from __future__ import annotations

from uuid import uuid4

from registry.db import accounts, retention, subjects, tombstones
from registry.db.datasets import Dataset
from registry.db.retention import LegalHold
from registry.db.store import Store, Tx
from registry.db.versions import Line, Node
from registry.rules import retention as rules
from registry.rules.actions import Action
from registry.rules.actors import Actor
from registry.rules.refs import parse_ref
from registry.rules.rollouts import check_reason
from registry.views.retention import HoldView


def place(store: Store, actor: Actor, over: str, case: str, reason: str) -> HoldView:
    """Place a hold over one version or data set version or, by a bare name, over all of its line.

    A deleted version may be held too: its bytes then stay, if no collection took them yet. Raises
    NotFound, Invalid.
    """
    case, text = rules.check_case(case), check_reason(reason)
    with store.write(actor, Action.HOLD_PLACE) as tx:
        tombstones.one_at_a_time(tx.session)
        hold, team, covered = _hold_over(tx, over)
        tx.within(team)
        assert actor.account is not None
        hold.placed_by, hold.placed_at = actor.account, tx.now
        hold.case_commitment = accounts.seal(tx.session, "case", case)
        hold.reason_commitment = accounts.seal(tx.session, "reason", text)
        tx.add(hold)
        tx.audit(
            f"hold:{hold.number}",
            over=covered,
            case=hold.case_commitment,
            reason=hold.reason_commitment,
        )
        return HoldView(hold.number, covered, case, text, actor.name, hold.placed_at)


def _hold_over(tx: Tx, over: str) -> tuple[LegalHold, str, str]:
    """A hold over what the reference names, with its team and its own reference."""
    ref = parse_ref(over.removeprefix(subjects.PREFIX))
    if ref.team is not None and str(ref) == ref.line:
        line = subjects.line_by_name(tx.session, over)
        is_line = isinstance(line, Line)
        hold = LegalHold(
            id=uuid4(),
            line_id=line.id if is_line else None,
            dataset_id=None if is_line else line.id,
        )
        return hold, line.team, ref.line if is_line else f"{subjects.PREFIX}{ref.line}"
    subject = subjects.by_ref(tx.session, over, gone=True)
    return LegalHold(id=uuid4(), node_id=subject.node.id), subject.line.team, subject.node.ref


def lift(store: Store, actor: Actor, number: int, reason: str) -> HoldView:
    """Lift a hold; a reviewer must do it, and not the one who placed it.

    Raises Refused `four-eyes` or `already-lifted`, NotFound.
    """
    text = check_reason(reason)
    with store.write(actor, Action.HOLD_LIFT) as tx:
        hold = retention.hold_by_number(tx.session, number, lock=True)
        covered, team = _covered(tx, hold)
        tx.within(team)
        rules.check_lift(number, hold.placed_by, actor.account, lifted=hold.lifted_at is not None)
        hold.lift_reason_commitment = accounts.seal(tx.session, "reason", text)
        hold.lifted_by, hold.lifted_at = actor.account, tx.now
        tx.session.flush()
        tx.audit(f"hold:{number}", over=covered, reason=hold.lift_reason_commitment)
        texts = accounts.personal_texts(tx.session, {hold.case_commitment, hold.reason_commitment})
        names = accounts.names(tx.session, {hold.placed_by})
        return HoldView(
            number,
            covered,
            texts.get(hold.case_commitment),
            texts.get(hold.reason_commitment),
            names[hold.placed_by],
            hold.placed_at,
            actor.name,
            hold.lifted_at,
            text,
        )


def _covered(tx: Tx, hold: LegalHold) -> tuple[str, str]:
    """The reference and the team of what a hold covers."""
    if hold.node_id is not None:
        node = tx.get(Node, hold.node_id)
        return node.ref, node.team
    if hold.line_id is not None:
        line = tx.get(Line, hold.line_id)
        return line.ref, line.team
    dataset = tx.get(Dataset, hold.dataset_id)
    return f"{subjects.PREFIX}{dataset.team}/{dataset.name}", dataset.team
