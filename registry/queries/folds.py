"""The governed tables as a fold of the log: what the events say each row must be, against what it
is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Text, cast, func, inspect, select, text
from sqlalchemy.orm import Session

from registry.db.audit import Event
from registry.db.store import plain
from registry.db.table import Table
from registry.queries.problems import Problems

STREAM = {"stream_results": True, "yield_per": 500}

# The last image of every row: events in the order of the log, after them those still waiting, by
# place. PostgreSQL sorts (on disk if it must), so that memory here holds one row at a time.
FOLD = text(
    """
    select distinct on (table_name, row_key) table_name, row_key, image
    from (
        select (one ->> 'table') collate "C" as table_name, (one ->> 'key') collate "C" as row_key,
               one -> 'row' as image, l.seq, e.place
        from event e left join leaf l on l.event_id = e.id
        cross join lateral json_array_elements(convert_from(e.entry, 'UTF8')::json -> 'rows') one
    ) written
    order by table_name, row_key, seq desc nulls first, place desc
    """
)


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """The comparison: events folded, rows compared by table, and each row that is not what the log
    says.
    """

    events: int
    rows: dict[str, int]
    problems: list[str]


def rebuild(session: Session) -> Rebuilt:
    """Fold every event into row images and compare them with every governed table, both ways."""
    session.execute(text("set local statement_timeout = 0"))
    session.execute(text("set local idle_in_transaction_session_timeout = 0"))
    events = session.execute(select(func.count()).select_from(Event)).scalar_one()
    tables = {
        mapper.class_.__tablename__: mapper.class_
        for mapper in Table.registry.mappers
        if mapper.class_.governed
    }
    rows = dict.fromkeys(sorted(tables), 0)
    problems = Problems()
    for (name, key), image, present in _side_by_side(_said(session), _present(session, tables)):
        if present is not None:
            rows[name] += 1
        if detail := _difference(image, present):
            problems.add(f"{name} {key}: {detail}")
    return Rebuilt(events, rows, problems.told())


Key = tuple[str, str]
Image = dict[str, Any]


def _said(session: Session) -> Iterator[tuple[Key, Image | None]]:
    """The rows as the log leaves them, by table and key; null is the image of what it deleted."""
    for row in session.execute(FOLD, execution_options=STREAM):
        yield (row.table_name, row.row_key), row.image


def _present(session: Session, tables: dict[str, type[Table]]) -> Iterator[tuple[Key, Image]]:
    """The rows as they stand, imaged as the log does it, by table and key in the same order."""
    for name, table in sorted(tables.items()):
        columns = list(inspect(table).columns)
        statement = select(*columns).order_by(cast(inspect(table).columns["id"], Text).collate("C"))
        for row in session.execute(statement, execution_options=STREAM):
            image = {column.key: plain(value) for column, value in zip(columns, row, strict=True)}
            yield (name, str(image["id"])), image


def _side_by_side(
    said: Iterator[tuple[Key, Image | None]], present: Iterator[tuple[Key, Image]]
) -> Iterator[tuple[Key, Image | None, Image | None]]:
    """(key, image of the log, row of the table) of two lists in key order; None where one of them
    has nothing.
    """
    left, right = next(said, None), next(present, None)
    while left is not None or right is not None:
        if right is None or (left is not None and left[0] < right[0]):
            assert left is not None
            yield *left, None
            left = next(said, None)
        elif left is None or right[0] < left[0]:
            yield right[0], None, right[1]
            right = next(present, None)
        else:
            yield *left, right[1]
            left, right = next(said, None), next(present, None)


def _difference(image: Image | None, present: Image | None) -> str:
    """What differs, in words; nothing when a row that the log deleted is gone."""
    if present is None:
        return "" if image is None else "the log says it is there, the table lacks it"
    if image is None:
        return "the table holds it, the log does not"
    # A column younger than the image is null in both.
    names = [name for name in sorted({*image, *present}) if image.get(name) != present.get(name)]
    return "; ".join(
        f"{name}: log {image.get(name)!r:.80}, table {present.get(name)!r:.80}" for name in names
    )
