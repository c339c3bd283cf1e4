"""Work for trainers: lease, heartbeat, finish.

A GPU host needs only a URL, a token and a key of its own.
"""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from fastapi import APIRouter, Request, Response

from registry.api.door import Caller, RestRoute, TheBlobs, TheStore
from registry.api.rest.schemas import Beat, Failed, Finished, GivenBack, Worker
from registry.commands import evals, training_runs
from registry.commands import work as commands
from registry.queries import work as queries
from registry.rules.trackers import handed_out
from registry.views.training_runs import WorkView

router = APIRouter(route_class=RestRoute, tags=["work"])


@router.post(
    "/work/lease", response_model=WorkView, responses={204: {"description": "No work is waiting."}}
)
def lease(store: TheStore, caller: Caller, body: Worker, request: Request) -> WorkView | Response:
    """Lease the oldest waiting work; a worker that started again first gets its own back."""
    settings = request.app.state.settings
    worker = commands.Worker(body.worker, body.identity)
    taken = commands.lease(store, caller, worker, settings.lease_seconds)
    if taken is None:
        return Response(status_code=204)
    mlflow = handed_out(settings.mlflow_url, request.client.host if request.client else None)
    return replace(queries.work(store, caller, taken[0]), mlflow_url=mlflow)


@router.post("/work/{run}/beat")
def beat(
    store: TheStore, caller: Caller, run: UUID, body: Beat, request: Request
) -> dict[str, bool]:
    """Prolong the lease; `cancelled` is true when somebody has cancelled the work."""
    seconds = request.app.state.settings.lease_seconds
    return {
        "cancelled": commands.beat(
            store, caller, run, commands.Heartbeat(body.attempt, body.progress, seconds)
        )
    }


@router.post("/work/{run}/requeue", status_code=204)
def requeue(store: TheStore, caller: Caller, run: UUID, body: GivenBack) -> None:
    """Return work to the queue, for another worker to continue."""
    commands.requeue(store, caller, run, body.attempt, body.reason)


@router.post("/work/{run}/fail", status_code=204)
def fail(store: TheStore, caller: Caller, run: UUID, body: Failed) -> None:
    """Report that the work failed and cannot succeed."""
    commands.fail(store, caller, run, body.attempt, body.error)


@router.post("/work/{run}/finish", status_code=204)
def finish(store: TheStore, blobs: TheBlobs, caller: Caller, run: UUID, body: Finished) -> None:
    """Finish work with a signed report."""
    if queries.is_training(store, caller, run):
        training_runs.finish(
            store,
            caller,
            run,
            training_runs.SignedReport(body.attempt, body.report, body.key, body.signature),
        )
    else:
        evals.finish(
            store,
            blobs,
            caller,
            run,
            evals.SignedReport(body.attempt, body.report, body.key, body.signature),
        )
