"""Rebuild the governed tables from the log, and compare them with the tables themselves."""

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

# The last image of every row. Events count in the order of the log; those without a number yet
# follow by place. PostgreSQL sorts (on disk if necessary), so that this process holds one row at a
# time.
FOLD = text(
    """
    select distinct on (table_name, row_key) table_name, row_key, image
    from (
        select (r ->> 'table') collate "C" as table_name, (r ->> 'key') collate "C" as row_key,
               r -> 'row' as image, l.seq, e.place
        from event e left join leaf l on l.event_id = e.id
        cross join lateral json_array_elements(convert_from(e.entry, 'UTF8')::json -> 'rows') r
    ) written
    order by table_name, row_key, seq desc nulls first, place desc
    """
)


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """The result of the comparison: how many events, how many rows by table, and the problems.

    Each row that differs from the log is a problem.
    """

    events: int
    rows: dict[str, int]
    problems: list[str]


def rebuild(session: Session) -> Rebuilt:
    """Fold every event into row images, and compare them with every governed table both ways."""
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
    for (name, key), image, present in _side_by_side(_logged(session), _present(session, tables)):
        if present is not None:
            rows[name] += 1
        if detail := _difference(image, present):
            problems.add(f"{name} {key}: {detail}")
    return Rebuilt(events, rows, problems.listed())


Key = tuple[str, str]
Image = dict[str, Any]


def _logged(session: Session) -> Iterator[tuple[Key, Image | None]]:
    """The rows by the log, in the order of table and key; a deleted row has no image."""
    for row in session.execute(FOLD, execution_options=STREAM):
        yield (row.table_name, row.row_key), row.image


def _present(session: Session, tables: dict[str, type[Table]]) -> Iterator[tuple[Key, Image]]:
    """The rows of the tables, as images like those of the log and in the same order."""
    for name, table in sorted(tables.items()):
        columns = list(inspect(table).columns)
        statement = select(*columns).order_by(cast(inspect(table).columns["id"], Text).collate("C"))
        for row in session.execute(statement, execution_options=STREAM):
            image = {column.key: plain(value) for column, value in zip(columns, row, strict=True)}
            yield (name, str(image["id"])), image


def _side_by_side(
    logged: Iterator[tuple[Key, Image | None]], present: Iterator[tuple[Key, Image]]
) -> Iterator[tuple[Key, Image | None, Image | None]]:
    """(key, image in the log, image of the table) by key; None where one of them has no row."""
    entry, row = next(logged, None), next(present, None)
    while entry is not None or row is not None:
        if row is None or (entry is not None and entry[0] < row[0]):
            assert entry is not None
            yield *entry, None
            entry = next(logged, None)
        elif entry is None or row[0] < entry[0]:
            yield row[0], None, row[1]
            row = next(present, None)
        else:
            yield *entry, row[1]
            entry, row = next(logged, None), next(present, None)


def _difference(image: Image | None, present: Image | None) -> str:
    """What differs, in words; empty if nothing does, also for a deleted row that is not there."""
    if present is None:
        return "" if image is None else "the log has it, the table does not"
    if image is None:
        return "the table has it, the log does not"
    # A column that is newer than the image is null in both.
    names = [name for name in sorted({*image, *present}) if image.get(name) != present.get(name)]
    return "; ".join(
        f"{name}: log {image.get(name)!r:.80}, table {present.get(name)!r:.80}" for name in names
    )
