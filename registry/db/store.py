"""The store: it alone opens transactions, and it refuses to commit an unaudited change.

Every command takes locks in this order: channel, line, version and data set version (by id), use
case, review, run, suite version. The end of an eval run locks its run and suite version before the
reviews that it voids; a review is opened under the suite version's lock and waits for neither.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NoReturn, TypeVar
from uuid import UUID, uuid4

from sqlalchemy import Engine, create_engine, event, func, insert, inspect, select, text
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import ORMExecuteState, Session

from registry import log
from registry.db.audit import Event, EventRow
from registry.db.refusals import named
from registry.db.sight import Sighted
from registry.db.table import Table
from registry.documents import canonical
from registry.errors import (
    BundleRejected,
    Fault,
    Forbidden,
    NotFound,
    Refused,
    RegistryError,
    Unavailable,
    Unverified,
)
from registry.rules.actions import Action
from registry.rules.actors import Actor, require

Row = TypeVar("Row", bound=Table)

RECORDED = (Refused, Forbidden, BundleRejected, Unverified)
"""Errors that go into the log: a rule, a gate or a role refused an act.

Wrong input and NotFound leave no entry.
"""

PROCRASTINATE_SCHEMA = "procrastinate"
APP_OPTIONS = (
    f"-c search_path=public,{PROCRASTINATE_SCHEMA} "
    "-c statement_timeout=60000 -c lock_timeout=15000 "
    "-c idle_in_transaction_session_timeout=120000 -c TimeZone=UTC"
)


def open_engine(url: str, role: str, *, size: int = 12) -> Engine:
    """An engine whose connections act as one role: countersign_app, _sequencer or _reader."""
    return create_engine(
        url,
        pool_size=size,
        max_overflow=4,
        pool_pre_ping=True,
        pool_timeout=10,
        connect_args={
            "options": f"-c role={role} {APP_OPTIONS}",
            "connect_timeout": 5,
            "application_name": role,
        },
    )


def utc(moment: datetime) -> str:
    """ISO 8601 in UTC with microseconds and Z: the only form of times in the log."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def plain(value: Any) -> Any:
    """A column's value in the form of the log's JSON."""
    match value:
        case datetime():
            return utc(value)
        case UUID():
            return str(value)
        case bytes():
            return base64.b64encode(value).decode()
        case _:
            return value


def image(row: Table) -> dict[str, Any]:
    """A row in the form of the log.

    It has every column, so that the governed tables can be rebuilt from the log.
    """
    return {column.key: plain(getattr(row, column.key)) for column in inspect(type(row)).columns}


class Tx:
    """One open transaction of a command: it gets, adds, locks, audits and defers."""

    def __init__(
        self, session: Sighted, actor: Actor, action: Action, team: str | None, now: datetime
    ) -> None:
        self.session = session
        self.actor = actor
        self.action = action
        self.team = team
        self.now = now
        self.subject: str | None = None
        self.facts: dict[str, Any] = {}
        self.changed = True
        self.touched: dict[tuple[str, str], Table | None] = {}

    def within(self, team: str) -> None:
        """Set the team that this act belongs to, once it is known.

        Raises NotFound for a team that the actor does not see, Forbidden for a missing role.
        """
        if not self.actor.sees(team):
            raise NotFound("unknown", "There is no such thing.")
        self.team = team
        require(self.actor, self.action, team, self.now)

    def get(self, table: type[Row], key: Any, *, lock: bool = False) -> Row:
        """A row by its key, locked if asked, or NotFound."""
        row = self.session.get(table, key, with_for_update=lock or None)
        if row is None:
            raise NotFound(
                "unknown",
                f"There is no {table.__tablename__.replace('_', ' ')} {key}.",
                "Check the name.",
            )
        return row

    def add(self, row: Row) -> Row:
        """Insert a row at once, so that PostgreSQL's refusals arise where they belong."""
        self.session.add(row)
        self.session.flush()
        return row

    def lock(self, row: Row) -> Row:
        """Re-read a row under FOR UPDATE."""
        self.session.refresh(row, with_for_update=True)
        return row

    def audit(self, subject: str, /, **facts: Any) -> None:
        """Set the subject and the facts of the log entry; the store adds the images of the rows."""
        self.subject = subject
        self.facts = facts

    def unchanged(self, subject: str, /) -> None:
        """State that the result exists already: nothing was written, so the log gets no entry."""
        self.subject = subject
        self.changed = False

    def defer(self, job: str, *, at: datetime | None = None, **arguments: Any) -> None:
        """Queue a background job by name; it exists if and only if this transaction commits."""
        # Importing procrastinate takes 150 ms, and most processes never defer a job.
        from registry.db.outbox import defer

        defer(self.session, job, at, arguments)

    def moment(self) -> datetime:
        """The time now, after any wait for a lock; the transaction's own now() is older."""
        now: datetime = self.session.execute(select(func.clock_timestamp())).scalar_one()
        return now


class Store:
    """Opens transactions.

    `write` is for commands, `read` for queries, `upkeep` for bookkeeping that decides nothing.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @contextmanager
    def read(self, actor: Actor) -> Iterator[Sighted]:
        """A read-only snapshot, in which loaders return only what the actor may see.

        PostgreSQL refuses writes in it.
        """
        with self._named(), Sighted(self.engine, actor) as session, session.begin():
            session.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
            yield session

    def ping(self) -> None:
        """Raise Unavailable unless the database answers."""
        with self._named(), self.engine.connect() as connection:
            connection.execute(text("select 1"))

    def check(self, actor: Actor, action: Action, team: str | None) -> None:
        """Check the role as `write` does, before costly work on bytes; a refusal is recorded."""
        with self._named(), Session(self.engine) as session:
            now = session.execute(select(func.clock_timestamp())).scalar_one()
        with self.judging(actor, action, team):
            require(actor, action, team, now)

    @contextmanager
    def judging(self, actor: Actor, action: Action, team: str | None) -> Iterator[None]:
        """Judge outside of a transaction, for costly work on bytes; a refusal is recorded."""
        try:
            yield
        except RECORDED as refusal:
            self.refuse(actor, action, team, refusal)

    @contextmanager
    def write(self, actor: Actor, action: Action, team: str | None = None) -> Iterator[Tx]:
        """One transaction with one audit entry.

        It checks the role, refuses to commit without `audit`, and records refusals. Raises
        Forbidden or Unauthenticated (role, fresh sign-in), Conflict or Refused (PostgreSQL
        refuses), Unavailable (no database), Fault (`audit` was forgotten).
        """
        started = time.perf_counter()
        subject = ""
        outcome = "fault"
        tx: Tx | None = None
        try:
            with self._named(), Sighted(self.engine, actor) as session, session.begin():
                now = session.execute(select(func.clock_timestamp())).scalar_one()
                require(actor, action, team, now)
                tx = Tx(session, actor, action, team, now)
                event.listen(session, "after_flush", lambda flushed, _: _watch(flushed, tx))
                event.listen(session, "do_orm_execute", _read_anew)
                yield tx
                session.flush()
                if tx.subject is None or (tx.touched and not tx.changed):
                    raise Fault(
                        "unaudited-write",
                        f"{action.value} changed the registry without an audit entry.",
                    )
                subject = tx.subject
                if tx.changed:
                    entry = _Entry(action, subject, tx.team, "done", tx.facts, tx.touched)
                    _record(session, actor, now, entry)
                # Run deferred triggers now, so that they raise ordinary errors and not at COMMIT.
                session.execute(text("SET CONSTRAINTS ALL IMMEDIATE"))
            outcome = "done"
        except RECORDED as refusal:
            outcome = refusal.kind
            self.refuse(actor, action, team if tx is None else tx.team, refusal)
        except RegistryError as error:
            outcome = error.kind
            raise
        finally:
            elapsed = (time.perf_counter() - started) * 1000
            log.log_command(
                log.Command(action.value, actor.name, subject, outcome, elapsed, actor.request_id)
            )

    @contextmanager
    def upkeep(self, reason: str) -> Iterator[Session]:
        """Bookkeeping that decides nothing: leases, last use, sessions, leaves.

        PostgreSQL's grants and triggers keep it from changing governed tables.
        """
        with (
            self._named(),
            Session(self.engine, expire_on_commit=False, info={"upkeep": reason}) as session,
            session.begin(),
        ):
            yield session

    def refuse(
        self, actor: Actor, action: Action, team: str | None, refusal: RegistryError
    ) -> NoReturn:
        """Record a refusal as its own event, in its own transaction, and raise it."""
        facts = {"kind": refusal.kind, "family": refusal.family}
        with (
            self._named(),
            Session(self.engine, expire_on_commit=False) as session,
            session.begin(),
        ):
            now = session.execute(select(func.clock_timestamp())).scalar_one()
            subject = str(refusal.facts.get("subject", ""))
            _record(session, actor, now, _Entry(action, subject, team, "refused", facts))
        raise refusal

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise named(error) from error
        except PoolTimeout as error:
            raise Unavailable(
                "database-busy",
                "Every connection to the database is in use.",
            ) from error


def _read_anew(state: ORMExecuteState) -> None:
    """Refresh rows when they are locked: what was read before the wait may be out of date."""
    if getattr(state.statement, "_for_update_arg", None) is not None:
        state.update_execution_options(populate_existing=True)


def _watch(session: Session, tx: Tx) -> None:
    """Note the governed rows that a flush has written or deleted."""
    written: list[Any] = [*session.new, *(row for row in session.dirty if session.is_modified(row))]
    for row in written:
        if row.governed:
            tx.touched[(row.__tablename__, str(row.id))] = row
    for row in session.deleted:
        if row.governed:
            tx.touched[(row.__tablename__, str(row.id))] = None


@dataclass(frozen=True, slots=True)
class _Entry:
    """What one act did: `touched` holds the rows it wrote, by table and key; None: deleted."""

    action: Action
    subject: str
    team: str | None
    outcome: str
    facts: dict[str, Any]
    touched: dict[tuple[str, str], Table | None] = field(default_factory=dict)


def _record(session: Session, actor: Actor, now: datetime, entry: _Entry) -> None:
    """Write the event and the rows it names, in the transaction that it describes.

    A trigger puts the event into the outbox.
    """
    event_id = uuid4()
    rows = [
        {
            "table": table,
            "key": key,
            "op": "put" if row is not None else "delete",
            "row": None if row is None else image(row),
        }
        for (table, key), row in sorted(entry.touched.items(), key=lambda item: item[0])
    ]
    encoded = canonical.encode(
        {
            "v": 1,
            "id": str(event_id),
            "at": utc(now),
            "actor": plain(actor.account),
            "via": actor.via,
            "action": entry.action.value,
            "subject": entry.subject,
            "team": entry.team,
            "outcome": entry.outcome,
            "request": actor.request_id,
            "facts": {key: plain(value) for key, value in entry.facts.items()},
            "rows": rows,
        }
    )
    session.execute(
        insert(Event).values(
            id=event_id,
            at=now,
            actor_id=actor.account,
            action=entry.action.value,
            subject=entry.subject,
            team=entry.team,
            outcome=entry.outcome,
            entry=encoded,
        )
    )
    if entry.touched:
        session.execute(
            upsert(EventRow).on_conflict_do_nothing(),
            [
                {"table_name": table, "row_key": key, "event_id": event_id}
                for table, key in sorted(entry.touched)
            ],
        )
