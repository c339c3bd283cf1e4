"""Reviews with their evidence, verdict and votes, and the decision that a person would sign."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Text, cast, false, select, true
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, array
from sqlalchemy.orm import Session

from registry.db import reviews as table
from registry.db.accounts import names, personal_texts
from registry.db.audit import Event
from registry.db.policies import PolicyVersion
from registry.db.reviews import BARS, STATES, Review, Vote
from registry.db.store import Store
from registry.db.use_cases import UseCase, UseCaseVersion
from registry.db.versions import Node, Version
from registry.errors import Forbidden, Invalid, NotFound
from registry.queries.pages import (
    FIRST_PAGE,
    PageRequest,
    check_limit,
    cursor_after,
    key_in,
    seen,
)
from registry.rules.actions import Action
from registry.rules.actors import PERMISSIONS, Actor
from registry.views.evals import RuleView, VerdictView
from registry.views.reviews import DecisionDraft, ReviewPage, ReviewView, VoteView

ERASED = "(erased)"


def reviews(
    store: Store, actor: Actor, page: PageRequest = FIRST_PAGE, *, state: str | None = None
) -> ReviewPage:
    """One page of reviews, newest first.

    `state` selects those in one state, `decided` ones, or those `waiting` for the actor's vote.
    """
    which = [_in_state(actor, state)]
    if page.cursor is not None:
        which.append(Review.number < key_in(page.cursor, int)[0])
    with store.read(actor) as session:
        rows = _rows(session, actor, *which, limit=check_limit(page.limit) + 1)
        views = _views(session, rows[: page.limit])
    has_next = len(rows) > page.limit
    return ReviewPage(views, cursor_after([views[-1].number]) if has_next else None)


def review(store: Store, actor: Actor, number: int) -> ReviewView:
    """The review of that number, or NotFound."""
    with store.read(actor) as session:
        return _views(session, [_row(session, actor, number)])[0]


def draft(store: Store, actor: Actor, number: int) -> DecisionDraft:
    """The decision as this person would sign it, without `verdict` and `reason_commitment`.

    It does not check whether the person may vote: the vote does, so that a refusal is recorded.
    Raises Forbidden `not-a-person` for services.
    """
    if actor.account is None or actor.is_service:
        raise Forbidden("not-a-person", f"{actor.name} is not a person, and only people decide.")
    with store.read(actor) as session:
        review, ref, _, _, policy = _row(session, actor, number)
        roles = policy.rules["quorum"]["roles"]
        teams = sorted(
            grant.team for grant in actor.grants if grant.role in roles and grant.team is not None
        )
        decision = table.decision(session, review, ref, actor.account, teams[0] if teams else None)
    return DecisionDraft(number, decision)


def _in_state(actor: Actor, state: str | None) -> ColumnElement[bool]:
    match state:
        case None:
            return true()
        case "decided":
            return Review.state != "open"
        case "waiting":
            return _waits_for(actor)
        case _ if state in STATES:
            return Review.state == state
    raise Invalid(
        "bad-state",
        f"A review is never '{state[:40]}'.",
        f"Use decided, waiting, {', '.join(STATES)}.",
    )


def _waits_for(actor: Actor) -> ColumnElement[bool]:
    """The review is open, and the actor may vote in it and has not voted."""
    roles = {grant.role for grant in actor.grants} & PERMISSIONS[Action.REVIEW_VOTE]
    if actor.account is None or not roles:
        return false()
    barred = select(BARS.c.review_id).where(BARS.c.account_id == actor.account)
    voted = select(Vote.review_id).where(Vote.account_id == actor.account)
    named: ColumnElement[bool] = cast(PolicyVersion.rules["quorum"]["roles"], JSONB).has_any(
        cast(array([role.value for role in sorted(roles)]), ARRAY(Text))
    )
    return (Review.state == "open") & Review.id.not_in(barred) & Review.id.not_in(voted) & named


Row = tuple[Review, str, UseCase, UseCaseVersion, PolicyVersion]


def _rows(session: Session, actor: Actor, *which: ColumnElement[bool], limit: int) -> list[Row]:
    rows = session.execute(
        select(Review, Node.ref, UseCase, UseCaseVersion, PolicyVersion)
        .join(Node, Node.id == Review.version_id)
        .join(UseCaseVersion, UseCaseVersion.id == Review.use_case_version_id)
        .join(UseCase, UseCase.id == UseCaseVersion.use_case_id)
        .join(PolicyVersion, PolicyVersion.id == Review.policy_version_id)
        .where(seen(actor, Node.team), *which)
        .order_by(Review.number.desc())
        .limit(limit)
    )
    return [(row[0], row[1], row[2], row[3], row[4]) for row in rows]


def _row(session: Session, actor: Actor, number: int) -> Row:
    rows = _rows(session, actor, Review.number == number, limit=1) if 0 < number < 2**31 else []
    if not rows:
        raise NotFound("review-unknown", f"There is no review {number}.")
    return rows[0]


def _views(session: Session, rows: list[Row]) -> list[ReviewView]:
    ids = [review.id for review, *_ in rows]
    votes: dict[UUID, list[Vote]] = {review_id: [] for review_id in ids}
    for vote in session.scalars(
        select(Vote).where(Vote.review_id.in_(ids)).order_by(Vote.at, Vote.id)
    ):
        votes[vote.review_id].append(vote)
    barred = table.excluded_of(session, ids)
    people: set[UUID | None] = {account for accounts in barred.values() for account in accounts}
    people |= {review.submitted_by for review, *_ in rows}
    people |= {vote.account_id for cast_ in votes.values() for vote in cast_}
    names_by_id = names(session, people)
    withdrawals = _withdrawals(
        session, [review.number for review, *_ in rows if review.state == "withdrawn"]
    )
    texts = personal_texts(
        session,
        {review.note_commitment for review, *_ in rows}
        | {vote.reason_commitment for cast_ in votes.values() for vote in cast_}
        | set(withdrawals.values()),
    )
    versions = select(Version.id, Version.state).where(
        Version.id.in_({review.version_id for review, *_ in rows})
    )
    states = {row.id: row.state for row in session.execute(versions)}
    return [
        ReviewView(
            number=review.number,
            version=ref,
            version_id=review.version_id,
            environment=review.environment,
            use_case=use_case.ref,
            purpose=pinned.purpose,
            risk_tier=pinned.risk_tier,
            use_case_version=pinned.number,
            suite=review.evidence["suite"]["ref"],
            policy=policy.ref,
            policy_digest=policy.digest,
            state=review.state,
            note=texts.get(review.note_commitment, ERASED),
            submitted_by=names_by_id[review.submitted_by],
            opened_at=review.opened_at,
            decided_at=review.decided_at,
            expires_at=review.expires_at,
            withdrawn_because=texts.get(withdrawals[review.number], ERASED)
            if review.number in withdrawals
            else None,
            version_state=states[review.version_id],
            evidence=review.evidence,
            evidence_root=review.evidence_root,
            verdict=_verdict(review.verdict, policy),
            votes=[_vote(vote, names_by_id, texts) for vote in votes[review.id]],
            approvals_needed=policy.rules["quorum"]["approvals"],
            approvals=sum(vote.verdict == "approve" for vote in votes[review.id]),
            excluded=sorted(
                f"{names_by_id[account]}: {why}"
                for account, why in barred.get(review.id, {}).items()
            ),
        )
        for review, ref, use_case, pinned, policy in rows
    ]


def _withdrawals(session: Session, numbers: list[int]) -> dict[int, str]:
    """The commitment of the reason why each of these reviews was withdrawn, from its log entry."""
    subjects = {f"review:{number}": number for number in numbers}
    entries = session.execute(
        select(Event.subject, Event.entry).where(
            Event.subject.in_(subjects),
            Event.action == Action.REVIEW_WITHDRAW,
            Event.outcome == "done",
        )
    ).all()
    return {
        subjects[row.subject]: str(json.loads(row.entry)["facts"].get("reason")) for row in entries
    }


def _verdict(verdict: dict[str, Any], policy: PolicyVersion) -> VerdictView:
    rules = [
        RuleView(rule["rule"], rule["outcome"], rule["detail"], rule["numbers"])
        for rule in verdict["rules"]
    ]
    return VerdictView(verdict["outcome"], policy.ref, policy.digest, rules)


def _vote(vote: Vote, names_by_id: dict[UUID | None, str], texts: dict[str, str]) -> VoteView:
    return VoteView(
        account=names_by_id[vote.account_id],
        account_id=vote.account_id,
        team=vote.team,
        verdict=vote.verdict,
        reason=texts.get(vote.reason_commitment, ERASED),
        at=vote.at,
        key=vote.key_id,
        decision_digest=vote.decision_digest,
        signature=vote.signature,
    )
