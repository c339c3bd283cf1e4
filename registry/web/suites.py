"""Eval suites: the list, and one version with how it decodes, who pins it and its runs."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response

from registry.errors import NotFound
from registry.queries import evals, use_cases
from registry.web.pages import Page, render
from registry.web.visits import Here

router = APIRouter(route_class=Page, include_in_schema=False)


@router.get("/suites")
def list_page(here: Here, q: str = "") -> Response:
    """Every suite version that this person sees, by name, newest first."""
    part = q.strip().lower()
    listed = [each for each in evals.suites(here.store, here.actor) if part in each.ref]
    return render(here, "suites.html", suites=listed, q=q)


@router.get("/suites/{team}/{name}")
def line_page(here: Here, team: str, name: str) -> Response:
    """The newest version of a suite."""
    return _page(here, f"{team}/{name}", None)


@router.get("/suites/{team}/{name}/v/{number}")
def version_page(here: Here, team: str, name: str, number: int) -> Response:
    """One version of a suite."""
    return _page(here, f"{team}/{name}", number)


def _page(here: Here, line: str, number: int | None) -> Response:
    of_line = [
        each for each in evals.suites(here.store, here.actor) if each.ref.startswith(f"{line}@")
    ]
    suite = next((each for each in of_line if number in (None, each.number)), None)
    if suite is None:
        version = "" if number is None else f"@v{number}"
        raise NotFound("suite-unknown", f"There is no eval suite {line}{version}.")
    cases = [case for case in use_cases.use_cases(here.store, here.actor) if line in case.suite]
    return render(
        here,
        "suite.html",
        suite=suite,
        line=line,
        of_line=[each for each in of_line if each.id != suite.id],
        cases=[case for case in cases if case.suite.partition("@")[0] == line],
        runs=evals.eval_runs(here.store, here.actor, suite=suite.ref),
    )
