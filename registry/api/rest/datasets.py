"""Data sets over REST."""

from __future__ import annotations

from fastapi import APIRouter, Response

from registry.api.door import Caller, RestRoute, TheBlobs, TheStore
from registry.api.rest.forms import Ref
from registry.api.rest.schemas import NewDataset
from registry.commands import datasets as commands
from registry.queries import datasets as queries
from registry.views.datasets import DatasetVersionView
from registry.views.versions import AddedView

router = APIRouter(route_class=RestRoute, tags=["data sets"])


@router.post("/datasets", status_code=201, responses={200: {"model": AddedView}})
def add(
    store: TheStore, blobs: TheBlobs, caller: Caller, body: NewDataset, response: Response
) -> AddedView:
    """Register a data set version from an uploaded JSON Lines file."""
    added = commands.register(
        store, blobs, caller, commands.Draft(body.name, body.file.sha256, body.file.size, body.meta)
    )
    response.status_code = 200 if added.status == "found" else 201
    return added


@router.get("/datasets")
def datasets(store: TheStore, caller: Caller) -> list[DatasetVersionView]:
    """Every data set version that the caller may see."""
    return queries.datasets(store, caller)


@router.get("/datasets/{ref:path}")
def dataset(store: TheStore, caller: Caller, ref: Ref) -> DatasetVersionView:
    """One data set version."""
    return queries.dataset(store, caller, ref)
