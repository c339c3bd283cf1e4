"""Search: a form with every filter, a chip to remove each one, and values to narrow by."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query
from fastapi.responses import Response

from registry.api.problems import STATUSES
from registry.errors import RegistryError
from registry.queries import search as queries
from registry.rules import searches
from registry.rules.versions import State
from registry.web.pages import Page, render
from registry.web.visits import Here

router = APIRouter(route_class=Page, include_in_schema=False)

LABELS = {
    "q": "Name",
    "kind": "Kind",
    "state": "State",
    "team": "Team",
    "base": "Base",
    "dataset": "Data set",
    "tag": "Tag",
    "licence": "Licence",
    "domain": "Domain",
    "method": "Method",
    "variant": "Variant",
    "risk": "Risk",
    "metric": "Metric",
    "by": "Added by",
    "since": "Since",
    "until": "Before",
    "digest": "Digest begins",
}
"""Filter -> its label, in the order of the chips. There may be several chips of tag and metric."""
FACETS = ("kind", "state", "team", "base", "domain", "licence", "method", "variant", "risk", "tag")
KNOWN = {*LABELS, "sort", "cursor"}
MAX_VALUES = 8
"""Values shown of each facet."""
Several = Annotated[list[str], Query()]


@router.get("/search")
def search(
    here: Here,
    q: str = "",
    kind: str = "",
    team: str = "",
    tag: Several = [],  # noqa: B006 - copied
    base: str = "",
    dataset: str = "",
    licence: str = "",
    domain: str = "",
    method: str = "",
    variant: str = "",
    risk: str = "",
    by: str = "",
    since: str = "",
    until: str = "",
    metric: Several = [],  # noqa: B006 - copied
    state: str = "",
    digest: str = "",
    sort: str = "created",
    cursor: str = "",
) -> Response:
    """The versions that meet every filter, and the values they have in common.

    An unusable filter is explained on the page.
    """
    plain = {
        "q": q,
        "kind": kind,
        "state": state,
        "team": team,
        "base": base,
        "dataset": dataset,
        "licence": licence,
        "domain": domain,
        "method": method,
        "variant": variant,
        "risk": risk,
        "by": by,
        "since": since,
        "until": until,
        "digest": digest,
    }
    plain = {name: value.strip() for name, value in plain.items()}
    several = {
        "tag": [*dict.fromkeys(filter(None, tag))],
        "metric": [*dict.fromkeys(filter(None, metric))],
    }
    page, error = None, None
    try:
        searches.check_names(
            (name for name, value in here.request.query_params.multi_items() if value), KNOWN
        )
        # Texts and lists, each under its own name.
        given: dict[str, Any] = {**plain, **several}
        filters = searches.parse(searches.Filters(**given, sort=sort))
        request = queries.SearchPageRequest(cursor or None)
        page = queries.search(here.store, here.actor, filters, request, facets=True)
    except RegistryError as failure:
        if failure.family not in ("invalid", "not-found"):
            raise
        error = failure

    def address(without: tuple[str, str] = ("", ""), **added: str) -> str:
        """This search with filters added or one removed, from its first page."""
        active = [*plain.items(), *((name, value) for name in several for value in several[name])]
        parameters = [
            (name, value)
            for name, value in active
            if value and (name, value) != without and (name in several or name not in added)
        ]
        parameters += added.items()
        if sort != "created" and "sort" not in added:
            parameters.append(("sort", sort))
        query = urlencode([*dict.fromkeys(parameters)])
        return f"/search?{query}" if query else "/search"

    chips = [
        (name, label, value)
        for name, label in LABELS.items()
        for value in (several[name] if name in several else [plain[name]])
        if value
    ]
    measured = filters.named_metrics() if page is not None else []
    return render(
        here,
        "search.html",
        200 if error is None else STATUSES[error.family],
        page=page,
        error=error,
        active=plain | several,
        sort=sort,
        cursor=cursor,
        address=address,
        chips=chips,
        labels=LABELS,
        facets=FACETS,
        kinds=searches.KINDS,
        states=tuple(State),
        max_values=MAX_VALUES,
        measured=measured,
    )
