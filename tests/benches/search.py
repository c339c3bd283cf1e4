"""Search pages among 1,000, 10,000 and 100,000 versions: median and 95th percentile by filter, and
what growth costs.

Each size is a catalogue of its own, and each figure is taken of the three in turn, so that what
else the machine does falls on all alike. REST is the whole request over a loopback socket: the
door, the query and the JSON.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import text

from registry.app import create_app
from registry.commands import accounts, tokens
from registry.db import migrate
from registry.db.store import Store
from registry.queries import search as queries
from registry.rules import searches
from registry.rules.actors import SYSTEM
from registry.settings import load
from tests.benches.catalogue import SORTS, pairs, seed
from tests.benches.rows import looked_at
from tests.database import open_databases
from tests.gateway.served import Served

BOUND = 50.0  # milliseconds a page
# Rows and 8 kB pages that one page with its facets looks at, among however many versions: what its
# steps may look at.
MOST_ROWS, MOST_PAGES = 60_000, 40_000
PAGES = 20
FILTERS: dict[str, dict[str, Any]] = {
    "everything": {},
    "everything, by name": {"sort": "name"},
    "everything, by metric": {"sort": "metric:accuracy"},
    "word, common": {"q": "claims"},
    "word, inside": {"q": "medcl"},
    "word, 2 letters": {"q": "me"},
    "word, none": {"q": "absent"},
    "name": {"name": "claims-llama-7"},
    "name, none": {"name": "t1/absent"},
    "kind": {"kind": "checkpoint"},
    "kind, by name": {"kind": "base", "sort": "name"},
    "team, largest": {"team": "t19"},
    "team, by name": {"team": "t19", "sort": "name"},
    "team, old and large": {"team": "archive"},
    "team, none": {"team": "absent"},
    "tag key": {"tag": ["topic"]},
    "tag": {"tag": ["topic:5"]},
    "tag, seldom": {"tag": ["customer:c77"]},
    "tag, none": {"tag": ["absent"]},
    "licence": {"licence": "mit"},
    "domain": {"domain": "health"},
    "base, first": {"base": "FIRST"},
    "data set": {"dataset": "t0/rows-0"},
    "metric, most": {"metric": ["accuracy>=0.1"]},
    "metric, few": {"metric": ["accuracy>=0.999"]},
    "metric, seldom": {"metric": ["exact_match>=0"]},
    "metric, none": {"metric": ["accuracy>2"]},
    "state, 2 %": {"state": "recalled"},
    "state, by name": {"state": "recalled", "sort": "name"},
    "state, most": {"state": "registered"},
    "digest": {"digest": "00000a"},
    "method": {"method": "prefix"},
    "variant": {"variant": "dora"},
    "since": {"since": "2020-01-01"},
    "until, old": {"until": "OLD"},
    "tag and state": {"tag": ["topic:5"], "state": "recalled"},
    "old team and licence": {"team": "archive", "licence": "mit"},
    "old team and metric": {"team": "archive", "metric": ["accuracy>=0.5"]},
    "never together": {"kind": "base", "method": "lora"},
    "word and team": {"q": "claims", "team": "t5"},
    "word and metric": {"q": "fraud", "metric": ["accuracy>=0.9"]},
    "team and state, by metric": {
        "team": "archive",
        "state": "registered",
        "sort": "metric:accuracy",
    },
}
DEEP: dict[str, dict[str, Any]] = {
    "deep page": {},
    "deep page, by name": {"sort": "name"},
    "deep page of a kind": {"kind": "adapter"},
}


def asked(store: Store, filters: dict[str, Any]) -> dict[str, Any]:
    """The filters, with the name of the first base of this catalogue and a moment of its first
    quarter put in.
    """
    with store.read(SYSTEM) as session:
        first = session.scalar(text("select line from version_search order by seq limit 1"))
        old = session.scalar(
            text(
                "select created_at from version_search order by seq offset "
                "(select count(*) / 4 from version_search) limit 1"
            )
        )
    return {
        name: first if value == "FIRST" else old.isoformat() if value == "OLD" else value
        for name, value in filters.items()
    }


def answered(door: httpx.Client, filters: dict[str, Any]) -> None:
    door.get("/versions", params=filters).raise_for_status()


def timed(work: Callable[[], object], into: list[float]) -> None:
    began = time.perf_counter()
    work()
    into.append((time.perf_counter() - began) * 1000)


def row(name: str, took: list[list[float]]) -> bool:
    """Print one line of the table; did the largest keep the bound?"""
    medians = [statistics.median(one) for one in took]
    p95 = statistics.quantiles(took[-1], n=20)[18]
    print(
        f"search: {name:<40}"
        + "".join(f"{one:>8.1f}" for one in medians)
        + f" ms   p95 {p95:>6.1f} ms   "
        f"ratio {medians[-1] / medians[0]:>5.2f}"
        + ("" if medians[-1] <= BOUND else "   ABOVE 50 ms")
    )
    return medians[-1] <= BOUND


def counted(stores: list[Store], sizes: list[int]) -> None:
    """Print the most that any filter or any two, in any order, look at: counted in the plans, so
    the same on any machine.
    """
    most = [(0, 0) for _ in stores]
    searched = [filters | {"sort": sort} for filters in pairs() for sort in SORTS[:3]]
    for filters in searched:
        filters |= {"base": "FIRST"} if "base" in filters else {}
        for at, store in enumerate(stores):
            rows, pages = looked_at(
                store, searches.parse(searches.Filters(**asked(store, filters))), facets=True
            )
            most[at] = (max(most[at][0], rows), max(most[at][1], pages))
    for size, (rows, pages) in zip(sizes, most, strict=True):
        kept = rows <= MOST_ROWS and pages <= MOST_PAGES
        print(
            f"search: {len(searched)} filters, pairs and orders at {size:,}: at most {rows:,} "
            f"rows and {pages:,} pages looked at "
            f"(bound {MOST_ROWS:,} and {MOST_PAGES:,}){'' if kept else '   ABOVE'}"
        )


def run() -> None:
    """Print every filter's page at each size; COUNTERSIGN_BENCH_VERSIONS names the sizes,
    COUNTERSIGN_BENCH_PAGES the pages.
    """
    sizes = [
        int(one)
        for one in os.environ.get("COUNTERSIGN_BENCH_VERSIONS", "1000 10000 100000").split()
    ]
    pages = int(os.environ.get("COUNTERSIGN_BENCH_PAGES", str(PAGES)))
    kept = []
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cs")))
        databases = stack.enter_context(open_databases(home))
        stores, doors = [], []
        for count in sizes:
            url = databases.create(f"search_{count}")
            migrate.upgrade(url)
            began = time.perf_counter()
            seed(url, count)
            print(f"search: {count:,} versions seeded in {time.perf_counter() - began:.1f} s")
            settings = load(home=home / str(count), database_url=url)
            app = create_app(settings)
            stores.append(app.state.store)
            accounts.create(app.state.store, SYSTEM, "bench", ["auditor"], None)
            token = tokens.create(
                app.state.store, SYSTEM, tokens.TokenRequest("bench", ["auditor"], None, 1)
            ).token
            served = Served(app)
            stack.callback(app.state.store.engine.dispose)
            stack.callback(served.stop)
            doors.append(
                stack.enter_context(
                    httpx.Client(
                        base_url=f"{served.url}/api/v1",
                        headers={"Authorization": f"Bearer {token}"},
                    )
                )
            )
        print(
            f"search: {'bound 50 ms at the largest':<40}" + "".join(f"{size:>8,}" for size in sizes)
        )
        for name, filters in FILTERS.items():
            each = [asked(store, filters) for store in stores]
            wanted = [searches.parse(searches.Filters(**one)) for one in each]
            for facets in (False, True):
                queried: list[list[float]] = [[] for _ in sizes]
                over_rest: list[list[float]] = [[] for _ in sizes]
                for _ in range(pages):
                    for size, store in enumerate(stores):
                        timed(
                            partial(queries.search, store, SYSTEM, wanted[size], facets=facets),
                            queried[size],
                        )
                        timed(
                            partial(answered, doors[size], {**each[size], "facets": facets}),
                            over_rest[size],
                        )
                kept += [
                    row(name + (", facets" if facets else ""), queried),
                    row(name + (", facets" if facets else "") + ", REST", over_rest),
                ]
        for name, filters in DEEP.items():
            took: list[list[float]] = [[] for _ in sizes]
            for store, size, into in zip(stores, sizes, took, strict=True):
                wanted_one, cursor = searches.parse(searches.Filters(**filters)), None
                for _ in range(size * 3 // 5 // 200):
                    cursor = queries.search(
                        store, SYSTEM, wanted_one, queries.SearchPageRequest(cursor, 200)
                    ).next
                for _ in range(pages):
                    timed(
                        partial(
                            queries.search,
                            store,
                            SYSTEM,
                            wanted_one,
                            queries.SearchPageRequest(cursor),
                        ),
                        into,
                    )
            kept.append(row(name, took))
        counted(stores, sizes)
    print(f"search: {sum(kept)} of {len(kept)} figures within {BOUND:.0f} ms")
