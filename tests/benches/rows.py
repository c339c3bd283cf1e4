"""What a search looks at, counted and not timed: rows and pages of every plan, the same on any
machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import event, text
from sqlalchemy.orm import Session

from registry.db.store import Store
from registry.queries import search as queries
from registry.rules.actors import SYSTEM
from registry.rules.searches import Search


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every node of a plan, the topmost first."""
    yield plan
    for one in plan.get("Plans", ()):
        yield from nodes(one)


def rows_of(plan: dict[str, Any], tables: tuple[str, ...] = ()) -> int:
    """Rows that a plan's scans looked at, hits or not: of these tables, or of every table and
    index.
    """
    counted = [
        one
        for one in nodes(plan)
        if (one.get("Relation Name") in tables if tables else "Scan" in one["Node Type"])
    ]
    looked = ("Actual Rows", "Rows Removed by Filter", "Rows Removed by Index Recheck")
    return sum(
        round(sum(one.get(what, 0) for what in looked) * one["Actual Loops"]) for one in counted
    )


def explained(session: Session, sql: str, params: dict[str, Any]) -> dict[str, Any]:
    """The plan of a statement as it ran."""
    [[found]] = session.execute(
        text(f"explain (analyze, format json, timing off) {sql}"), params
    ).scalars()
    plan: dict[str, Any] = found["Plan"]
    return plan


def looked_at(store: Store, wanted: Search, facets: bool = False) -> tuple[int, int]:
    """Rows and pages that all statements of one search looked at together."""
    asked: list[tuple[str, Any]] = []

    def note(*said: Any) -> None:
        asked.append((said[2], said[3]))

    event.listen(store.engine, "before_cursor_execute", note)
    queries.search(store, SYSTEM, wanted, facets=facets)
    event.remove(store.engine, "before_cursor_execute", note)
    rows = pages = 0
    with store.read(SYSTEM) as session:
        session.execute(text("select set_config('enable_seqscan', 'off', true)"))
        connection = session.connection()
        for sql, params in asked:
            if not sql.startswith(
                ("with", "select v.", "select case", "select (", "select version_id")
            ):
                continue  # settings of the transaction
            [[found]] = connection.exec_driver_sql(
                f"explain (analyze, buffers, format json) {sql}", params
            ).scalars()
            rows += rows_of(found["Plan"])
            pages += found["Plan"]["Shared Hit Blocks"] + found["Plan"]["Shared Read Blocks"]
    return rows, pages
