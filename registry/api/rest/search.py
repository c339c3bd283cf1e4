"""Search over REST."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request

from registry.api.door import Caller, TheStore
from registry.queries import search as queries
from registry.rules import searches
from registry.views.search import VersionPage

router = APIRouter(tags=["versions"])
KNOWN = searches.FILTERS | {"cursor", "limit", "facets"}


@router.get("/versions")
def search(
    store: TheStore,
    caller: Caller,
    request: Request,
    q: str | None = None,
    name: str | None = None,
    kind: str | None = None,
    team: str | None = None,
    tag: Annotated[list[str], Query()] = [],  # noqa: B006 - copied
    base: str | None = None,
    dataset: str | None = None,
    licence: str | None = None,
    domain: str | None = None,
    method: str | None = None,
    variant: str | None = None,
    risk: str | None = None,
    by: str | None = None,
    since: str | None = None,
    until: str | None = None,
    metric: Annotated[list[str], Query()] = [],  # noqa: B006 - copied
    state: str | None = None,
    digest: str | None = None,
    deleted: bool = False,
    sort: str = "created",
    cursor: str | None = None,
    limit: int = 50,
    facets: bool = False,
) -> VersionPage:
    """Versions that meet every filter, a page at a time; `tag` and `metric` may be given more than
    once.

    A page may be short, even empty, and have a `next`: a search looks through so many versions at a
    time.
    """
    searches.check_names((name for name, _ in request.query_params.multi_items()), KNOWN)
    wanted = searches.parse(
        q=q,
        name=name,
        kind=kind,
        team=team,
        tag=tag,
        base=base,
        dataset=dataset,
        licence=licence,
        domain=domain,
        method=method,
        variant=variant,
        risk=risk,
        by=by,
        since=since,
        until=until,
        metric=metric,
        state=state,
        digest=digest,
        deleted=deleted,
        sort=sort,
    )
    return queries.search(store, caller, wanted, cursor, limit, facets)
