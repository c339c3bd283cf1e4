"""The whole log computed again from its entries, in pages, so that its length costs time and not
memory.
"""

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

CHUNK = 1000


def check(store: Store, actor: Actor, log_key: str) -> LogCheckView:
    """Recompute every leaf, root, signed tree head and vote signature from the database; trust none
    of its columns.

    `log_key` is the trusted verifier key line; Invalid when it is none. What disagrees is a problem
    in words.
    """
    notes.parse_verifier_key(log_key)
    problems = Problems()
    with store.read(actor) as session:
        size, root, heads = _log(session, log_key, problems)
        votes = _votes(session, problems)
        events = session.execute(select(func.count()).select_from(Event)).scalar_one()
        astray = session.execute(
            select(func.count())
            .select_from(Event)
            .where(
                ~exists().where(Leaf.event_id == Event.id),
                ~exists().where(EventPending.event_id == Event.id),
            )
        ).scalar_one()
    if astray:
        problems.add(f"{astray} events stand neither in the log nor in its queue")
    return LogCheckView(
        ok=not problems.count,
        events=events,
        size=size,
        root=f"sha256:{root.hex()}",
        heads=heads,
        votes=votes,
        problems=problems.told(),
    )


def _log(session: Session, log_key: str, problems: Problems) -> tuple[int, bytes, int]:
    """Grow the tree leaf by leaf and compare it with each head on the way: (size, root, heads
    compared).
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
            f"the tree head of {head.size} entries speaks of more than the {frontier.size} that "
            "are here"
        )
        head, compared = next(heads, None), compared + 1
    return frontier.size, frontier.root(), compared


def _leaves(session: Session) -> Iterator[tuple[Leaf, Event]]:
    after = -1
    statement = (
        select(Leaf, Event).join(Event, Event.id == Leaf.event_id).order_by(Leaf.seq).limit(CHUNK)
    )
    while rows := session.execute(statement.where(Leaf.seq > after)).all():
        yield from ((row[0], row[1]) for row in rows)
        after = rows[-1][0].seq
        session.expunge_all()


def _heads(session: Session) -> Iterator[TreeHead]:
    after = -1
    statement = select(TreeHead).order_by(TreeHead.size).limit(CHUNK)
    while rows := session.scalars(statement.where(TreeHead.size > after)).all():
        yield from rows
        after = rows[-1].size


def _compare(head: TreeHead, frontier: merkle.Frontier, log_key: str, problems: Problems) -> None:
    root = frontier.root() if head.size == frontier.size else merkle.EMPTY
    if head.root != f"sha256:{root.hex()}":
        problems.add(f"the tree head of {head.size} entries names another root than they have")
    if head.note is None:  # numbered, and overtaken or not yet reached by the signature
        return
    try:
        signed = notes.open_tree_head(head.note, log_key)
    except (Unverified, Invalid) as error:
        problems.add(f"the tree head of {head.size} entries: {error.detail}")
        return
    if signed != (head.size, root):
        problems.add(f"what was signed for {head.size} entries names another size or root")


def _differing(event: Event) -> list[str]:
    """The searched columns that do not say what the entry says."""
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
        .limit(CHUNK)
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
    """What does not hold of one vote: its signature, its digest, its key, its subject."""
    found = []
    if canonical.digest(vote.decision) != vote.decision_digest:
        found.append("the digest is not of the decision")
    if not keys.verify_document(key.public_key, vote.decision, "decision", vote.signature):
        found.append("the signature is not over the decision")
    enrolled: dict[str, Any] = {"account": str(key.account_id), "public_key": key.public_key}
    if not keys.verify_document(key.public_key, enrolled, "enrol", key.proof):
        found.append(f"key {key.id} was enrolled without proof")
    if (
        key.account_id != vote.account_id
        or key.enrolled_at > vote.at
        or (key.revoked_at and key.revoked_at <= vote.at)
    ):
        found.append(f"key {key.id} was not the voter's at that moment")
    said = {
        "review": review.number,
        "version_id": str(review.version_id),
        "environment": review.environment,
        "evidence_root": review.evidence_root,
        "account": str(vote.account_id),
        "team": vote.team,
        "verdict": vote.verdict,
        "reason_commitment": vote.reason_commitment,
    }
    found += [
        f"the decision signed says another {name}"
        for name in said
        if vote.decision.get(name) != said[name]
    ]
    return found
