"""Training runs and eval runs: the lists, and one run with its progress, result or error."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from fastapi import APIRouter
from fastapi.responses import Response

from registry.db.training_runs import ENDED, STATES
from registry.errors import Invalid, NotFound
from registry.queries import evals, training_runs
from registry.rules import trackers
from registry.views.training_runs import TrainingRunView
from registry.web.charts import Curve, curve
from registry.web.pages import Page, render
from registry.web.shelves import path_of
from registry.web.visits import Here, Visit

router = APIRouter(route_class=Page, include_in_schema=False)


@router.get("/runs")
def list_page(here: Here, state: str = "") -> Response:
    """The newest training runs and eval runs of the teams that this person sees."""
    chosen = state if state in STATES else None
    return render(
        here,
        "runs.html",
        training=training_runs.training_runs(here.store, here.actor, state=chosen),
        measuring=evals.eval_runs(here.store, here.actor, state=chosen),
        states=STATES,
        chosen=chosen or "",
    )


@router.get("/runs/training/{run_id}")
def training_page(here: Here, run_id: UUID) -> Response:
    """One training run."""
    return render(here, "training_run.html", **_training(here, run_id))


@router.get("/runs/training/{run_id}/progress")
def training_progress(here: Here, run_id: UUID) -> Response:
    """The part of a training run's page that changes while it runs, for the page's own script."""
    shown = _training(here, run_id)
    answer = render(here, "_training_progress.html", **shown)
    if not shown["live"]:
        answer.headers["x-ended"] = "1"
    return answer


@router.get("/runs/eval/{run_id}")
def eval_page(here: Here, run_id: UUID) -> Response:
    """One eval run."""
    run = evals.eval_run(here.store, here.actor, run_id)
    return render(here, "eval_run.html", run=run, subject_path=path_of(here, run.subject))


def _training(here: Visit, run_id: UUID) -> dict[str, Any]:
    run = training_runs.training_run(here.store, here.actor, run_id)
    public, client = here.request.app.state.settings.mlflow_url, here.request.client
    return {
        "run": run,
        "curve": _curve(run),
        "live": run.state not in ENDED,
        "mlflow": trackers.run_page(run.mlflow_url, public, client.host if client else None),
        "team": run.adapter.partition("/")[0],
        "output_paths": {ref: _path(here, ref) for ref in run.outputs},
        "base_path": _path(here, run.base),
    }


def _path(here: Visit, ref: str) -> str:
    """The page of a version, or '' where this person sees none."""
    try:
        return path_of(here, ref)
    except (Invalid, NotFound):
        return ""


def _curve(run: TrainingRunView) -> Curve | None:
    """The loss so far, with at least two points."""
    points = [(step, loss) for step, loss in run.curve]
    return curve(points) if len(points) > 1 else None
