"""Search over REST."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request

from registry.api.door import Caller, RestRoute, TheStore
from registry.api.rest.forms import Cursor, Filter, Limit, Name, Ref
from registry.queries import search as queries
from registry.rules import searches
from registry.views.search import VersionPage

router = APIRouter(route_class=RestRoute, tags=["versions"])
KNOWN = searches.FILTERS | {"cursor", "limit", "facets"}


@router.get("/versions")
def search(
    store: TheStore,
    caller: Caller,
    request: Request,
    q: Filter.Words | None = None,
    name: Filter.Text | None = None,
    kind: Filter.Kind | None = None,
    team: Name | None = None,
    tag: Annotated[list[Filter.Tag], Query()] = [],  # noqa: B006 - copied
    base: Ref | None = None,
    dataset: Ref | None = None,
    licence: Filter.Text | None = None,
    domain: Filter.Text | None = None,
    method: Filter.Text | None = None,
    variant: Filter.Text | None = None,
    risk: Filter.Text | None = None,
    by: Filter.Text | None = None,
    since: Filter.Moment | None = None,
    until: Filter.Moment | None = None,
    metric: Annotated[list[Filter.Bound], Query()] = [],  # noqa: B006 - copied
    state: Filter.State | None = None,
    digest: Filter.Digest | None = None,
    deleted: bool = False,
    sort: Filter.Sort = "created",
    cursor: Cursor | None = None,
    limit: Limit = 50,
    facets: bool = False,
) -> VersionPage:
    """Versions that meet every filter, a page at a time.

    `tag` and `metric` may be given more than once. A page may be short, or even empty, and still
    have a `next`: one request looks through a bounded number of versions.
    """
    searches.check_names((name for name, _ in request.query_params.multi_items()), KNOWN)
    filters = searches.parse(
        searches.Filters(
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
    )
    page = queries.SearchPageRequest(cursor, limit)
    return queries.search(store, caller, filters, page, facets=facets)
