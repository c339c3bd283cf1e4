"""Submit a version for review, vote on it, withdraw it, and let its approval expire."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from registry.blobs.store import Blobs
from registry.db import accounts, evidence, policies, reviews, use_cases, versions
from registry.db.accounts import Account, SigningKey
from registry.db.reviews import Review, Vote
from registry.db.store import Store, Tx
from registry.documents import canonical
from registry.errors import Conflict, Forbidden, Invalid, Refused, Unverified
from registry.proof import keys
from registry.rules import gates
from registry.rules import policies as policy_rules
from registry.rules import reviews as rules
from registry.rules.actions import Action
from registry.rules.actors import SYSTEM, Actor
from registry.rules.refs import check_environment
from registry.rules.versions import usable
from registry.views.reviews import SubmittedView


@dataclass(frozen=True, slots=True)
class Submission:
    """A version offered for an environment and a use case, with a note to its reviewers."""

    ref: str
    environment: str
    use_case: str
    note: str


@dataclass(frozen=True, slots=True)
class SignedVote:
    """A decision with its reason, signed by the key of that id; `salt` is 16 bytes in hex."""

    decision: dict[str, Any]
    reason: str
    salt: str
    key: str
    signature: str


def submit(store: Store, blobs: Blobs, actor: Actor, submission: Submission) -> SubmittedView:
    """Open a review: gather the evidence, run the gate on it, and freeze both.

    The review opens even when the gate fails, so that everybody sees why. Raises Refused when the
    version is not registered, Conflict when it is under review or approved already.
    """
    ref, note = submission.ref, submission.note.strip()
    environment = check_environment(submission.environment)
    if not note:
        raise Invalid("note-missing", "Say why this version should serve.")
    with store.read(actor) as session:
        version, line, node = versions.by_ref(session, ref)
        team = line.team
    store.check(actor, Action.REVIEW_SUBMIT, team)
    with store.read(actor) as session:
        case = use_cases.newest(session, use_cases.by_name(session, submission.use_case))
        version, line, node = versions.by_ref(session, ref)
        policy = policies.current(session, environment)
        gathered = evidence.gather(session, blobs, version, policy, case)
    verdict = gates.judge(policy.rules, gathered)
    with store.write(actor, Action.REVIEW_SUBMIT, team) as tx:
        tx.within(team)
        locked, _, _ = versions.by_id(tx.session, version.id, share=True)
        if line.kind == "base" or not usable(locked.state):
            raise Refused(
                "unfit-subject",
                f"{node.ref} is {'a base model' if line.kind == 'base' else locked.state}; "
                "only registered adapters and checkpoints are reviewed.",
                subject=node.ref,
            )
        assert actor.account is not None
        # At the insert PostgreSQL locks the node and the suite version against runs that end
        # meanwhile, and checks that the evidence still names every eval run that counts.
        review = tx.add(
            Review(
                id=uuid4(),
                version_id=version.id,
                environment=environment,
                use_case_version_id=case.id,
                policy_version_id=policy.id,
                evidence=gathered,
                evidence_root=canonical.digest(gathered),
                verdict=as_document(verdict),
                note_commitment=accounts.seal(tx.session, "note", note),
                submitted_by=actor.account,
                state="open",
                opened_at=tx.now,
            )
        )
        tx.audit(
            f"review:{review.number}",
            version=node.ref,
            environment=environment,
            policy=policy.ref,
            evidence_root=review.evidence_root,
            verdict=verdict.outcome,
            reason=review.note_commitment,
        )
        return SubmittedView(review.number, review.evidence_root, verdict.outcome)


def as_document(verdict: gates.Verdict) -> dict[str, Any]:
    """The verdict as it is stored and shown."""
    return {
        "outcome": verdict.outcome,
        "rules": [
            {
                "rule": result.rule,
                "outcome": result.outcome,
                "detail": result.detail,
                "numbers": result.numbers,
            }
            for result in verdict.rules
        ],
    }


def vote(store: Store, actor: Actor, number: int, signed: SignedVote) -> str:
    """Cast a signed vote, approve if it completes the quorum, and return the review's new state.

    Raises Refused (own version, gate, closed review), Unverified (signature), Forbidden (not a
    reviewer), Invalid (verdict, reason, salt).
    """
    decision = signed.decision
    verdict = rules.check_verdict(str(decision.get("verdict", "")))
    text = rules.check_reason(signed.reason)
    try:
        salted = bytes.fromhex(signed.salt)
    except ValueError:
        salted = b""
    if len(salted) != 16:
        raise Invalid("bad-salt", "The salt of the reason must be 16 bytes in hex.")
    _refuse_makers(store, actor, number)
    with store.write(actor, Action.REVIEW_VOTE) as tx:
        # The version is locked before its review, as everywhere: a recall locks them in that
        # order too.
        version, line, node = versions.by_id(
            tx.session, reviews.by_number(tx.session, number).version_id, share=True
        )
        review = reviews.by_number(tx.session, number, lock=True)
        tx.within(line.team)
        if version.state == "recalled":
            raise Refused(
                "recalled",
                f"{node.ref} is recalled and may serve nowhere, so nobody votes on it.",
                "Submit another version.",
                subject=f"review:{number}",
            )
        if review.state != "open":
            raise Refused(
                "review-closed",
                f"Review {number} is {rules.in_words(review.state)}.",
                subject=f"review:{number}",
            )
        ballots = [
            rules.Ballot(vote.account_id, vote.team, vote.verdict)
            for vote in reviews.votes_of(tx.session, review.id)
        ]
        assert actor.account is not None
        rules.check_voter(
            actor.account, actor.name, reviews.excluded(tx.session, review), ballots, number
        )
        policy = policy_rules.parse(policies.by_id(tx.session, review.policy_version_id).rules)
        expected = reviews.decision(
            tx.session, review, node.ref, actor.account, _team(actor, policy.quorum.roles)
        )
        rules.check_decision(
            decision,
            {**expected, "verdict": verdict, "reason_commitment": rules.commitment(salted, text)},
            number,
        )
        if verdict == "approve" and review.verdict["outcome"] != "pass":
            raise Refused(
                "gate-not-passed",
                f"The gate of review {number} is {review.verdict['outcome']}, so nobody can "
                "approve it.",
                subject=f"review:{number}",
            )
        _verify(tx, actor.account, signed, number)
        sealed = accounts.seal(tx.session, "reason", text, salted)
        tx.add(
            Vote(
                id=uuid4(),
                review_id=review.id,
                account_id=actor.account,
                team=expected["team"],
                verdict=verdict,
                reason_commitment=sealed,
                decision=decision,
                decision_digest=canonical.digest(decision),
                signature=signed.signature,
                key_id=signed.key,
                at=tx.now,
            )
        )
        ballots.append(rules.Ballot(actor.account, expected["team"], verdict))
        state = rules.outcome(policy.quorum, ballots)
        if state != "open":
            if state == "approved":
                review.expires_at = tx.now + timedelta(days=policy.approval_days)
            review.decided_at = tx.now
            review.state = state
        tx.audit(f"review:{number}", version=node.ref, verdict=verdict, state=state, reason=sealed)
        return state


def _refuse_makers(store: Store, actor: Actor, number: int) -> None:
    """Refuse those who made the version before the role is checked.

    They learn the real reason, which no other role would change.
    """
    with store.read(actor) as session:
        review = reviews.by_number(session, number)
        team = versions.by_id(session, review.version_id)[1].team
        excluded = reviews.excluded(session, review)
    if actor.account is not None:
        with store.judging(actor, Action.REVIEW_VOTE, team):
            rules.check_voter(actor.account, actor.name, excluded, [], number)


def _team(actor: Actor, roles: tuple[str, ...]) -> str | None:
    """The team for which this person votes: that of the grant which lets them vote."""
    for grant in sorted(actor.grants, key=lambda grant: (grant.team is None, grant.team or "")):
        if grant.role.value in roles:
            return grant.team
    raise Forbidden(
        "role-missing",
        f"{actor.name} holds no role that may decide here.",
        f"The policy asks for {' or '.join(roles)}.",
    )


def _verify(tx: Tx, account: UUID, signed: SignedVote, number: int) -> None:
    if tx.get(Account, account).kind != "person":
        raise Refused(
            "service-vote",
            "Only people vote, and this is a service account.",
            subject=f"review:{number}",
        )
    signer = tx.session.get(SigningKey, signed.key)
    if signer is None or signer.account_id != account or signer.revoked_at is not None:
        raise Unverified(
            "key-unknown",
            f"The key {signed.key[:16]} is not an enrolled key of yours.",
            subject=f"review:{number}",
        )
    if not keys.verify_document(signer.public_key, signed.decision, "decision", signed.signature):
        raise Unverified(
            "bad-signature",
            "The signature is not over this decision by that key.",
            "Sign the decision exactly as you fetched it, with your enrolled key.",
            subject=f"review:{number}",
        )


def withdraw(store: Store, actor: Actor, number: int, reason: str) -> None:
    """Withdraw an open review; its votes stay in the log."""
    with store.write(actor, Action.REVIEW_WITHDRAW) as tx:
        review = reviews.by_number(tx.session, number, lock=True)
        _, line, node = versions.by_id(tx.session, review.version_id)
        tx.within(line.team)
        if review.state != "open":
            raise Refused(
                "review-closed",
                f"Review {number} is {rules.in_words(review.state)}.",
                "Only an open review can be withdrawn.",
                subject=f"review:{number}",
            )
        review.decided_at = tx.now
        review.state = "withdrawn"
        tx.audit(
            f"review:{number}", version=node.ref, reason=accounts.seal(tx.session, "reason", reason)
        )


def expire(store: Store) -> int:
    """Let the approvals whose time is over expire, and return how many.

    That blocks canaries and promotions, and never changes a route.
    """
    with store.read(SYSTEM) as session:
        overdue = reviews.overdue(session)
    return sum(_expire(store, number) for number in overdue)


def _expire(store: Store, number: int) -> bool:
    """Let one approval expire, unless its review changed meanwhile: then nothing is logged."""
    with suppress(Conflict), store.write(SYSTEM, Action.REVIEW_EXPIRE) as tx:
        review = reviews.by_number(tx.session, number, lock=True)
        if review.state != "approved":
            raise Conflict("nothing-to-expire", f"Review {number} is {review.state} by now.")
        tx.team = versions.by_id(tx.session, review.version_id)[1].team
        tx.audit(f"review:{number}", expired_at=review.expires_at)
        review.state = "expired"
        return True
    return False
