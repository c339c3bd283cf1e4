"""The queue of reviews, one review with its evidence, and the decision that a person signs."""

from __future__ import annotations

import json
import shlex
from typing import Annotated, Any

from fastapi import APIRouter, Form
from fastapi.responses import Response

from registry.api.problems import STATUSES
from registry.commands import reviews as commands
from registry.errors import Invalid, NotFound, RegistryError
from registry.queries import accounts, policies, retention, reviews, standings, versions
from registry.queries.pages import PageRequest
from registry.rules.actions import Action
from registry.rules.reviews import check_reason
from registry.views.reviews import ReviewView
from registry.web.gates import footing, measures, passed
from registry.web.grounds import grounds
from registry.web.pages import Page, needs, render, sent
from registry.web.shelves import version_path
from registry.web.visits import Here, Posted, Visit

router = APIRouter(route_class=Page, include_in_schema=False)

TABS = {"waiting": "Waiting for you", "open": "Open", "decided": "Decided", "all": "All"}
OUTCOMES = {
    "approve": ("Approve", "It may serve here once enough people have approved it."),
    "request_changes": (
        "Request changes",
        "Ends this review. The submitter can submit it again.",
    ),
    "reject": ("Reject", "Ends this review. This version may not serve here."),
}
CLOSED = {
    "changes_requested": "A reviewer has asked for changes, so this review takes no more votes.",
    "approved": "This review is approved and takes no more votes.",
    "rejected": "This review is rejected and takes no more votes.",
    "withdrawn": "The submitter has withdrawn this review.",
    "voided": "What this review rests on no longer stands, so it takes no more votes.",
    "expired": "The approval of this review has expired.",
}
"""State of a review -> why nobody votes in it any more."""
FIELDS = ("verdict", "reason", "signature")
CLI_VERB = {"approve": "approve", "request_changes": "request-changes", "reject": "reject"}


@router.get("/reviews")
def queue(here: Here, state: str = "", cursor: str = "") -> Response:
    """The queue. Its filter and page are in the address, so that Back restores them."""
    own = "open" if needs(here, Action.REVIEW_VOTE, None) else "waiting"
    chosen = state if state in TABS else own
    asked = None if chosen == "all" else chosen
    page = reviews.reviews(here.store, here.actor, PageRequest(cursor or None), state=asked)
    rows = [(review, passed(review.verdict), measures(review.verdict)) for review in page.items]
    numbers = [review.number for review in page.items]
    return render(
        here,
        "reviews.html",
        rows=rows,
        next=page.next,
        tabs=TABS,
        chosen=chosen,
        cursor=cursor,
        changes=standings.changes(here.store, here.actor, numbers),
    )


def command_line(number: int, verdict: str, reason: str) -> str:
    """The command that signs the same decision in a terminal, with the reason quoted."""
    verb = CLI_VERB.get(verdict, "approve")
    quoted = shlex.quote(reason or "Why, in one sentence")
    return f"countersign review {verb} {number} --reason {quoted}"


def bars(here: Visit, review: ReviewView, name: str) -> str:
    """Why this person cannot decide on this review, or ''.

    The command decides again. This only keeps people from writing a reason in vain. Having worked
    on the version comes first, because no further role would change it.
    """
    for sentence in review.excluded:
        who, _, why = sentence.partition(": ")
        if who == name:
            return f"You {why}, so you cannot decide on it."
    if any(vote.account_id == here.actor.account for vote in review.votes):
        return "You have voted. A vote never changes."
    if review.version_state == "recalled":
        return f"{review.version} is recalled, so nobody votes on it."
    if review.state != "open":
        return CLOSED.get(review.state, f"This review is {review.state}.")
    return needs(here, Action.REVIEW_VOTE, None)


def bars_approval(outcome: str) -> str:
    """Why nobody can approve this version, or ''. The command refuses it too."""
    if outcome == "pass":
        return ""
    state = "failed" if outcome == "fail" else "is inconclusive"
    return (
        f"Nobody can: its gate {state}. Ask an engineer to supply what the gate "
        "lacks and to submit it again."
    )


def _show(here: Visit, number: int, status: int = 200, **typed: Any) -> Response:
    review = reviews.review(here.store, here.actor, number)
    version = versions.version(here.store, here.actor, review.version, gone=True)
    me = accounts.me(here.store, here.actor)
    barred = bars(here, review, me.name)
    draft = None if barred else reviews.draft(here.store, here.actor, number).decision
    shown: dict[str, Any] = {
        "review": review,
        "version": version,
        "measures": measures(review.verdict),
        "passed": passed(review.verdict),
        "version_page": version_path(version.kind, version.ref),
        "footing": footing(review.evidence),
        "standings": standings.standings(here.store, here.actor, number),
        "grounds": grounds(here, review.evidence),
        "policy": policies.policy(here.store, here.actor, review.policy),
        "stone": retention.tombstone(here.store, here.actor, version.id),
        "outcomes": OUTCOMES,
        "barred": barred,
        "draft": json.dumps(draft) if draft else "",
        "me": me,
        "bars_approval": bars_approval(review.verdict.outcome),
        "key_ids": " ".join(key.id for key in me.keys if key.revoked_at is None),
        "verdict": "",
        "reason": "",
        "problems": dict.fromkeys(FIELDS, ""),
        "error": None,
        "cli": command_line(number, _first_verdict(review.verdict.outcome), ""),
    }
    return render(here, "review.html", status, **(shown | typed))


def _first_verdict(outcome: str) -> str:
    """The verdict of the command that the page suggests: never one that the gate forbids."""
    return "approve" if outcome == "pass" else "request_changes"


@router.get("/reviews/{number}")
def review(here: Here, number: int) -> Response:
    """One review: the note, the evidence, and beside it the decision."""
    return _show(here, number)


def _decision(text: str) -> dict[str, Any]:
    try:
        decision = json.loads(text)
    except ValueError:
        decision = None
    if not isinstance(decision, dict):
        raise Invalid("bad-decision", "The signed decision did not arrive whole.")
    return decision


@router.post("/reviews/{number}/decision")
def decide(
    here: Posted,
    number: int,
    verdict: Annotated[str, Form()] = "",
    reason: Annotated[str, Form()] = "",
    decision: Annotated[str, Form()] = "",
    salt: Annotated[str, Form()] = "",
    key: Annotated[str, Form()] = "",
    signature: Annotated[str, Form()] = "",
) -> Response:
    """Record the decision that this browser signed.

    Without a signature nothing is recorded: the page then shows the command that signs the same
    words in a terminal.
    """
    # Forms send CR LF, but the browser signed the text that the person saw, with LF.
    reason = reason.replace("\r\n", "\n")
    typed: dict[str, Any] = {
        "verdict": verdict,
        "reason": reason,
        "cli": command_line(number, verdict, reason),
    }
    problems = dict.fromkeys(FIELDS, "")
    if verdict not in OUTCOMES:
        problems["verdict"] = "Choose an outcome."
    try:
        check_reason(reason)
    except Invalid as error:
        problems["reason"] = error.fix
    if not any(problems.values()) and not signature:
        problems["signature"] = (
            "This decision is not signed yet, because the browser could not sign it."
        )
    if any(problems.values()):
        return _show(here, number, 422, problems=problems, **typed)
    try:
        commands.vote(
            here.store,
            here.actor,
            number,
            commands.SignedVote(_decision(decision), reason, salt, key, signature),
        )
    except NotFound:
        raise
    except RegistryError as error:
        return _show(here, number, STATUSES[error.family], error=error, **typed)
    return sent(f"/reviews/{number}", "signed")
