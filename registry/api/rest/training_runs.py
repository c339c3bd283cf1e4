"""Training runs over REST."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter

from registry.api.door import Caller, RestRoute, TheBlobs, TheStore
from registry.api.rest.forms import Line, RunState
from registry.api.rest.schemas import NewTrainingRun
from registry.commands import training_runs as commands
from registry.queries import training_runs as queries
from registry.views.training_runs import TrainingRunView

router = APIRouter(route_class=RestRoute, tags=["training runs"])


@router.post("/training-runs", status_code=201)
def queue(
    store: TheStore, blobs: TheBlobs, caller: Caller, body: NewTrainingRun
) -> TrainingRunView:
    """Queue a training run for the next free trainer."""
    run = commands.queue(
        store,
        blobs,
        caller,
        commands.TrainingRequest(
            body.adapter, body.base, body.dataset, body.recipe, body.domain, body.meta or {}
        ),
    )
    return queries.training_run(store, caller, run)


@router.get("/training-runs")
def training_runs(
    store: TheStore, caller: Caller, adapter: Line | None = None, state: RunState | None = None
) -> list[TrainingRunView]:
    """Training runs, newest first."""
    return queries.training_runs(store, caller, adapter, state)


@router.get("/training-runs/{run}")
def training_run(store: TheStore, caller: Caller, run: UUID) -> TrainingRunView:
    """One training run."""
    return queries.training_run(store, caller, run)


@router.post("/training-runs/{run}/cancel")
def cancel(store: TheStore, caller: Caller, run: UUID) -> TrainingRunView:
    """Cancel a training run."""
    commands.cancel(store, caller, run)
    return queries.training_run(store, caller, run)
