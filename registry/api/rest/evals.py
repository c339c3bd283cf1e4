"""Eval suites, eval runs and gates over REST."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter

from registry.api.door import Caller, RestRoute, TheBlobs, TheStore
from registry.api.rest.forms import Environment, Line, Ref
from registry.api.rest.schemas import NewEvalRun, NewSuite
from registry.commands import evals as commands
from registry.queries import evals as queries
from registry.queries import gates
from registry.views.evals import EvalRunView, SuiteView, VerdictView

router = APIRouter(route_class=RestRoute, tags=["evals"])


@router.post("/eval-suites", status_code=201)
def freeze(store: TheStore, blobs: TheBlobs, caller: Caller, body: NewSuite) -> SuiteView:
    """Freeze a data set's split as an eval suite version."""
    suite = commands.freeze(
        store,
        blobs,
        caller,
        commands.SuiteRequest(
            body.name, body.dataset, body.split, body.metric, body.decoding or {}
        ),
    )
    return next(each for each in queries.suites(store, caller) if each.id == suite)


@router.get("/eval-suites")
def suites(store: TheStore, caller: Caller) -> list[SuiteView]:
    """Every eval suite version that the caller may see."""
    return queries.suites(store, caller)


@router.post("/eval-runs", status_code=201)
def queue(store: TheStore, blobs: TheBlobs, caller: Caller, body: NewEvalRun) -> EvalRunView:
    """Queue an eval run of a suite on a version, for the next free trainer."""
    run = commands.queue(store, blobs, caller, body.subject, body.suite)
    return queries.eval_run(store, caller, run)


@router.get("/eval-runs")
def eval_runs(store: TheStore, caller: Caller, subject: Ref | None = None) -> list[EvalRunView]:
    """Eval runs, newest first."""
    return queries.eval_runs(store, caller, subject)


@router.get("/eval-runs/{run}")
def eval_run(store: TheStore, caller: Caller, run: UUID) -> EvalRunView:
    """One eval run with its metrics."""
    return queries.eval_run(store, caller, run)


@router.get("/gates", responses={409: {}})
def gate(
    store: TheStore,
    blobs: TheBlobs,
    caller: Caller,
    ref: Ref,
    environment: Environment,
    use_case: Line,
) -> VerdictView:
    """What the gate would say now; nothing is stored."""
    return gates.check(store, blobs, caller, gates.Proposal(ref, environment, use_case))
