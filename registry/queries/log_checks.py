"""Recompute the whole log from its entries, in pages, so that a long log needs no more memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session

from registry.db.accounts import SigningKey
from registry.db.audit import Event, EventPending, Leaf, TreeHead
from registry.db.reviews import Review, Vote
from registry.db.store import Store, plain
from registry.documents import canonical
from registry.errors import Invalid, Unverified
from registry.proof import keys, merkle, notes
from registry.queries.problems import Problems
from registry.rules.actors import Actor
from registry.views.audit import LogCheckView

CHUNK_ROWS = 1000


def check(store: Store, actor: Actor, log_key: str) -> LogCheckView:
    """Recompute every leaf, root, signed tree head and vote signature.

    No column of the database is trusted. `log_key` is the trusted verifier key line; Invalid if it
    is not one. Each disagreement is a problem in words.
    """
    notes.parse_verifier_key(log_key)
    problems = Problems()
    with store.read(actor) as session:
        size, root, heads = _log(session, log_key, problems)
        votes = _votes(session, problems)
        events = session.execute(select(func.count()).select_from(Event)).scalar_one()
        unlogged = session.execute(
            select(func.count())
            .select_from(Event)
            .where(
                ~exists().where(Leaf.event_id == Event.id),
                ~exists().where(EventPending.event_id == Event.id),
            )
        ).scalar_one()
    if unlogged:
        problems.add(f"{unlogged} events are neither in the log nor in its queue")
    return LogCheckView(
        ok=not problems.count,
        events=events,
        size=size,
        root=f"sha256:{root.hex()}",
        heads=heads,
        votes=votes,
        problems=problems.listed(),
    )


def _log(session: Session, log_key: str, problems: Problems) -> tuple[int, bytes, int]:
    """Grow the tree leaf by leaf, and compare it with each head as its size is reached.

    Returns (size, root, number of heads compared).
    """
    frontier = merkle.Frontier()
    heads = _heads(session)
    head = next(heads, None)
    compared = 0
    for leaf, event in _leaves(session):
        if leaf.seq != frontier.size:
            problems.add(f"leaf {frontier.size} is missing")
            break
        frontier.append(merkle.leaf_hash(event.entry))
        if leaf.hash != merkle.leaf_hash(event.entry):
            problems.add(f"leaf {leaf.seq} is not the hash of event {event.id}")
        for column in _differing(event):
            problems.add(f"event {event.id}: its column {column} differs from its entry")
        while head is not None and head.size <= frontier.size:
            _compare(head, frontier, log_key, problems)
            head, compared = next(heads, None), compared + 1
    while head is not None:
        problems.add(
            f"the tree head of {head.size} entries covers more than the {frontier.size} in the log"
        )
        head, compared = next(heads, None), compared + 1
    return frontier.size, frontier.root(), compared


def _leaves(session: Session) -> Iterator[tuple[Leaf, Event]]:
    after = -1
    statement = (
        select(Leaf, Event)
        .join(Event, Event.id == Leaf.event_id)
        .order_by(Leaf.seq)
        .limit(CHUNK_ROWS)
    )
    while rows := session.execute(statement.where(Leaf.seq > after)).all():
        yield from ((row[0], row[1]) for row in rows)
        after = rows[-1][0].seq
        session.expunge_all()


def _heads(session: Session) -> Iterator[TreeHead]:
    after = -1
    statement = select(TreeHead).order_by(TreeHead.size).limit(CHUNK_ROWS)
    while rows := session.scalars(statement.where(TreeHead.size > after)).all():
        yield from rows
        after = rows[-1].size


def _compare(head: TreeHead, frontier: merkle.Frontier, log_key: str, problems: Problems) -> None:
    root = frontier.root() if head.size == frontier.size else merkle.EMPTY
    if head.root != f"sha256:{root.hex()}":
        problems.add(f"the tree head of {head.size} entries has another root than they have")
    if head.note is None:  # a later head was signed instead, or will be
        return
    try:
        signed = notes.open_tree_head(head.note, log_key)
    except (Unverified, Invalid) as error:
        problems.add(f"the tree head of {head.size} entries: {error.detail}")
        return
    if signed != (head.size, root):
        problems.add(f"the signature for {head.size} entries is over another size or root")


def _differing(event: Event) -> list[str]:
    """The columns for searching that differ from the entry."""
    entry = json.loads(event.entry)
    columns = {
        "id": event.id,
        "at": event.at,
        "actor": event.actor_id,
        "action": event.action,
        "subject": event.subject,
        "team": event.team,
        "outcome": event.outcome,
    }
    return [name for name, value in columns.items() if plain(value) != entry.get(name)]


def _votes(session: Session, problems: Problems) -> int:
    count = 0
    after: UUID | None = None
    statement = (
        select(Vote, Review, SigningKey)
        .join(Review, Review.id == Vote.review_id)
        .join(SigningKey, SigningKey.id == Vote.key_id)
        .order_by(Vote.id)
        .limit(CHUNK_ROWS)
    )
    while rows := session.execute(
        statement if after is None else statement.where(Vote.id > after)
    ).all():
        for vote, review, key in rows:
            for problem in _vote(vote, review, key):
                problems.add(f"vote {vote.id} in review {review.number}: {problem}")
        count += len(rows)
        after = rows[-1][0].id
        session.expunge_all()
    return count


def _vote(vote: Vote, review: Review, key: SigningKey) -> list[str]:
    """The problems of one vote: with its signature, its digest, its key or its subject."""
    problems = []
    if canonical.digest(vote.decision) != vote.decision_digest:
        problems.append("the digest is not of the decision")
    if not keys.verify_document(key.public_key, vote.decision, "decision", vote.signature):
        problems.append("the signature is not over the decision")
    enrolled: dict[str, Any] = {"account": str(key.account_id), "public_key": key.public_key}
    if not keys.verify_document(key.public_key, enrolled, "enrol", key.proof):
        problems.append(f"key {key.id} was enrolled without proof")
    if (
        key.account_id != vote.account_id
        or key.enrolled_at > vote.at
        or (key.revoked_at and key.revoked_at <= vote.at)
    ):
        problems.append(f"key {key.id} was not the voter's at that moment")
    expected = {
        "review": review.number,
        "version_id": str(review.version_id),
        "environment": review.environment,
        "evidence_root": review.evidence_root,
        "account": str(vote.account_id),
        "team": vote.team,
        "verdict": vote.verdict,
        "reason_commitment": vote.reason_commitment,
    }
    problems += [
        f"the signed decision has another {name}"
        for name in expected
        if vote.decision.get(name) != expected[name]
    ]
    return problems
