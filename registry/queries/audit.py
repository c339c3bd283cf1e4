"""The audit log: entries, newest signed tree head, proofs, check, evidence pack, and rebuild."""

from __future__ import annotations

import base64
import json
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select, true

from registry.db.accounts import names, personal_texts
from registry.db.audit import Event, EventPending, Leaf, TreeHead
from registry.db.store import Store
from registry.queries.folds import rebuild as rebuild
from registry.queries.log_checks import check as check
from registry.queries.log_proofs import prove as prove
from registry.queries.packs import export as export
from registry.queries.pages import (
    FIRST_PAGE,
    PageRequest,
    check_limit,
    cursor_after,
    key_in,
    storable,
)
from registry.rules.actors import Actor, Matter, Role, may_read
from registry.views.audit import EventPage, EventView, TreeHeadView

SUBJECTS = ("", "dataset:", "suite:", "use-case:")
"""Beginnings of the subjects that people name without them."""


def events(
    store: Store,
    actor: Actor,
    page: PageRequest = FIRST_PAGE,
    *,
    action: str | None = None,
    subject: str | None = None,
) -> EventPage:
    """One page of the log, newest first, of one action or one subject if given.

    Auditors and administrators read all of it. Other people read what happened in the teams they
    see and what they did. A service reads only what it did itself, because holds and quotas are
    among the rest.
    """
    statement = (
        select(Event, Leaf.seq, Leaf.hash)
        .outerjoin(Leaf, Leaf.event_id == Event.id)
        .where(_readable(actor))
        .order_by(Event.place.desc())
        .limit(check_limit(page.limit) + 1)
    )
    if page.cursor is not None:
        statement = statement.where(Event.place < key_in(page.cursor, int)[0])
    if action is not None:
        statement = statement.where(Event.action == storable(action))
    if subject is not None:
        name = storable(subject)
        statement = statement.where(Event.subject.in_([f"{kind}{name}" for kind in SUBJECTS]))
    with store.read(actor) as session:
        results: list[Any] = list(session.execute(statement))
        rows = results[: page.limit]
        names_by_id = names(session, {row[0].actor_id for row in rows})
        entries = {event.id: json.loads(event.entry) for event, _, _ in rows}
        sealed = {
            id: commitment
            for id, entry in entries.items()
            if (commitment := _sealed_reason(actor, entry)) is not None
        }
        texts = personal_texts(session, set(sealed.values()))
        views = []
        for event, seq, leaf in rows:
            entry = entries[event.id]
            views.append(
                EventView(
                    id=event.id,
                    seq=seq,
                    leaf=None if leaf is None else f"sha256:{leaf.hex()}",
                    at=event.at,
                    actor=names_by_id[event.actor_id],
                    via=entry["via"],
                    action=event.action,
                    subject=event.subject,
                    team=event.team,
                    outcome=event.outcome,
                    facts=entry["facts"],
                    reason=texts.get(sealed[event.id], "(erased)") if event.id in sealed else None,
                )
            )
        has_next = len(results) > page.limit
        return EventPage(views, cursor_after([rows[-1][0].place]) if has_next else None)


def _sealed_reason(actor: Actor, entry: dict[str, Any]) -> str | None:
    """The commitment of the reason that an act was given, from the facts of its event.

    None where there is none, or where the reason is that of a legal hold and the actor may not read
    the case. The rows of the event are not searched: they also hold the reasons of earlier acts,
    such as that of the route that a promotion closes.
    """
    if entry["action"].startswith("hold:") and not may_read(actor, Matter.CASE):
        return None
    commitment: str | None = entry["facts"].get("reason")
    return commitment


def _readable(actor: Actor) -> ColumnElement[bool]:
    if actor.is_system or actor.holds(Role.ADMIN) or actor.holds(Role.AUDITOR):
        return true()
    if not may_read(actor, Matter.KEEPING):
        return Event.actor_id == actor.account
    teams = actor.teams()
    of_teams = Event.team.is_not(None) if teams is None else Event.team.in_(teams)
    return or_(of_teams, Event.actor_id == actor.account)


def tree_head(store: Store, actor: Actor, log_key: str = "") -> TreeHeadView | None:
    """The newest signed tree head, if there is one, and how many events have no number yet.

    `key` of the answer is `log_key`, the trusted one; without it, `name+hash` as the note itself
    states.
    """
    with store.read(actor) as session:
        head = session.scalars(
            select(TreeHead)
            .where(TreeHead.note.is_not(None))
            .order_by(TreeHead.size.desc())
            .limit(1)
        ).one_or_none()
        pending = session.execute(select(func.count()).select_from(EventPending)).scalar_one()
    if head is None or head.note is None:
        return None
    return TreeHeadView(head.size, head.root, head.note, log_key or _signer(head.note), pending)


def _signer(note: str) -> str:
    """`name+hash` of the key in the last signature line, `— name base64(hash, signature)`.

    The hash has four bytes.
    """
    _, name, encoded = note.rstrip("\n").rpartition("\n")[2].split(" ")
    return f"{name}+{base64.b64decode(encoded)[:4].hex()}"
