"""Data sets: the list, and one version with what was stated about it and who uses it."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response

from registry.queries import datasets, findings, lineage
from registry.views.datasets import DatasetVersionView
from registry.web.grounds import statements
from registry.web.lineage import edges
from registry.web.pages import Page, render
from registry.web.visits import Here, Visit

router = APIRouter(route_class=Page, include_in_schema=False)


@router.get("/datasets")
def list_page(here: Here, q: str = "") -> Response:
    """Every data set version that this person sees, by name, newest first."""
    listed = [
        each for each in datasets.datasets(here.store, here.actor) if q.strip().lower() in each.ref
    ]
    return render(
        here,
        "datasets.html",
        datasets=listed,
        q=q,
    )


@router.get("/datasets/{team}/{name}/v/{number}")
def version_page(here: Here, team: str, name: str, number: int) -> Response:
    """One numbered version."""
    return _page(here, datasets.dataset(here.store, here.actor, f"{team}/{name}@v{number}"))


@router.get("/datasets/{team}/{name}")
def line_page(here: Here, team: str, name: str, draft: str = "") -> Response:
    """The newest numbered version of a data set, or the draft of that code."""
    ref = f"{team}/{name}@draft-{draft}" if draft else f"{team}/{name}"
    return _page(here, datasets.dataset(here.store, here.actor, ref))


def _page(here: Visit, data: DatasetVersionView) -> Response:
    line = data.ref.partition("@")[0]
    of_line = [
        each
        for each in datasets.datasets(here.store, here.actor)
        if each.ref.startswith(f"{line}@") and each.id != data.id
    ]
    draft = data.number is None
    return render(
        here,
        "dataset.html",
        data=data,
        line=line,
        team=line.partition("/")[0],
        statements=statements(data.meta),
        of_line=of_line,
        missing=findings.of_dataset(data) if draft else [],
        edges=[] if draft else edges(lineage.trace(here.store, here.actor, f"dataset:{data.ref}")),
    )
