"""Reviews and votes over REST."""

from __future__ import annotations

from fastapi import APIRouter

from registry.api.door import Caller, RestRoute, TheBlobs, TheStore
from registry.api.rest.forms import Cursor, Limit, Number, ReviewState
from registry.api.rest.schemas import NewReview, NewVote, Reason
from registry.commands import reviews as commands
from registry.queries import reviews as queries
from registry.queries.pages import PageRequest
from registry.views.reviews import DecisionDraft, ReviewPage, ReviewView, SubmittedView

router = APIRouter(route_class=RestRoute, tags=["reviews"])


@router.post("/reviews", status_code=201)
def submit(store: TheStore, blobs: TheBlobs, caller: Caller, body: NewReview) -> SubmittedView:
    """Submit a version for review in an environment."""
    return commands.submit(
        store,
        blobs,
        caller,
        commands.Submission(body.ref, body.environment, body.use_case, body.note),
    )


@router.get("/reviews")
def reviews(
    store: TheStore,
    caller: Caller,
    state: ReviewState | None = None,
    cursor: Cursor | None = None,
    limit: Limit = 50,
) -> ReviewPage:
    """Reviews, newest first; state is waiting, open, decided or a state's own name."""
    return queries.reviews(store, caller, PageRequest(cursor, limit), state=state)


@router.get("/reviews/{number}")
def review(store: TheStore, caller: Caller, number: Number) -> ReviewView:
    """One review with its evidence, verdict and votes."""
    return queries.review(store, caller, number)


@router.get("/reviews/{number}/decision")
def draft(store: TheStore, caller: Caller, number: Number) -> DecisionDraft:
    """The decision for the caller to sign, without its verdict and reason."""
    return queries.draft(store, caller, number)


@router.post("/reviews/{number}/votes", status_code=201)
def vote(store: TheStore, caller: Caller, number: Number, body: NewVote) -> ReviewView:
    """Cast a signed vote."""
    commands.vote(
        store,
        caller,
        number,
        commands.SignedVote(body.decision, body.reason, body.salt, body.key, body.signature),
    )
    return queries.review(store, caller, number)


@router.post("/reviews/{number}/withdraw")
def withdraw(store: TheStore, caller: Caller, number: Number, body: Reason) -> ReviewView:
    """Withdraw an open review."""
    commands.withdraw(store, caller, number, body.reason)
    return queries.review(store, caller, number)
