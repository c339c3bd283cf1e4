"""The one clever object: the only opener of transactions, which refuses to commit a change nobody
audited.

Lock order, for every command: channel, then line, then version and data set version (by id), then
review, then runs.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from contextlib import contextmanager
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

# These say that a rule, a gate or a role said no to somebody: the log keeps them. Wrong input and
# not-found leave none.
RECORDED = (Refused, Forbidden, BundleRejected, Unverified)

PROCRASTINATE_SCHEMA = "procrastinate"
APP_OPTIONS = (
    f"-c search_path=public,{PROCRASTINATE_SCHEMA} -c statement_timeout=60000 -c "
    "lock_timeout=15000 "
    "-c idle_in_transaction_session_timeout=120000 -c TimeZone=UTC"
)


def open_engine(url: str, role: str, *, size: int = 12) -> Engine:
    """An engine whose every connection acts as one of the database roles (countersign_app,
    _sequencer, _reader).
    """
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
    """ISO 8601 in UTC with microseconds and Z: the one form times take in the log."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def plain(value: Any) -> Any:
    """A column's value as the log's JSON holds it."""
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
    """A row as the log holds it: every column, so that the governed tables are a fold of the
    log.
    """
    return {column.key: plain(getattr(row, column.key)) for column in inspect(type(row)).columns}


class Tx:
    """One open business transaction: gets, adds, locks, audits and defers; nothing else."""

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
        """Name the team this act belongs to, once it is known: unseen teams answer NotFound,
        missing roles Forbidden.
        """
        if not self.actor.sees(team):
            raise NotFound(
                "unknown",
                "There is no such thing.",
            )
        self.team = team
        require(self.actor, self.action, team, self.now)

    def get(self, table: type[Row], key: Any, *, lock: bool = False) -> Row:
        """A row by its key, locked if asked; NotFound if there is none."""
        found = self.session.get(table, key, with_for_update=lock or None)
        if found is None:
            raise NotFound(
                "unknown",
                f"There is no {table.__tablename__.replace('_', ' ')} {key}.",
                "Check the name.",
            )
        return found

    def add(self, row: Row) -> Row:
        """Insert a row now, so that the database's own refusals come where they belong."""
        self.session.add(row)
        self.session.flush()
        return row

    def lock(self, row: Row) -> Row:
        """Re-read a row under FOR UPDATE."""
        self.session.refresh(row, with_for_update=True)
        return row

    def audit(self, subject: str, /, **facts: Any) -> None:
        """Say what was done to whom; the rows' images are added by the store itself."""
        self.subject = subject
        self.facts = facts

    def unchanged(self, subject: str, /) -> None:
        """Say that what was asked for is there already: nothing was written, so the log gets no
        entry.
        """
        self.subject = subject
        self.changed = False

    def defer(self, job: str, *, at: datetime | None = None, **arguments: Any) -> None:
        """Queue a background job by name on this very connection: it exists if and only if this
        commits.
        """
        from registry.db.outbox import (
            defer,
        )  # procrastinate costs 150 ms to import; most processes never defer

        defer(self.session, job, at, arguments)

    def moment(self) -> datetime:
        """The wall clock now, after any lock was waited for (the transaction's own now() is
        older).
        """
        now: datetime = self.session.execute(select(func.clock_timestamp())).scalar_one()
        return now


class Store:
    """Opens transactions: `write` for commands, `read` for queries, `upkeep` for bookkeeping that
    decides nothing.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @contextmanager
    def read(self, actor: Actor) -> Iterator[Sighted]:
        """A snapshot that PostgreSQL itself keeps read-only, in which loaders answer only what the
        actor may see.
        """
        with self._named(), Sighted(self.engine, actor) as session, session.begin():
            session.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
            yield session

    def ping(self) -> None:
        """Raise Unavailable unless the database answers."""
        with self._named(), self.engine.connect() as connection:
            connection.execute(text("select 1"))

    def check(self, actor: Actor, action: Action, team: str | None) -> None:
        """Refuse early what `write` would refuse for its role, before costly work on bytes; the
        refusal is recorded.
        """
        with self._named(), Session(self.engine) as session:
            now = session.execute(select(func.clock_timestamp())).scalar_one()
        with self.judging(actor, action, team):
            require(actor, action, team, now)

    @contextmanager
    def judging(self, actor: Actor, action: Action, team: str | None) -> Iterator[None]:
        """Judge outside of a transaction, for costly work on bytes; what refuses is recorded just
        as in `write`.
        """
        try:
            yield
        except RECORDED as refusal:
            self.refuse(actor, action, team, refusal)

    @contextmanager
    def write(self, actor: Actor, action: Action, team: str | None = None) -> Iterator[Tx]:
        """One transaction, one audit entry: checks the role, refuses to commit without `audit`,
        records refusals.

        Raises Forbidden or Unauthenticated (role, fresh sign-in), Conflict and Refused
        (PostgreSQL's own no), Unavailable (database away), Fault (`audit` was forgotten).
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
                    _record(
                        session,
                        actor,
                        action.value,
                        tx.subject,
                        tx.team,
                        "done",
                        tx.facts,
                        tx.touched,
                        now,
                    )
                # Deferred triggers speak now, as ordinary errors, and not out of COMMIT.
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
        """Bookkeeping that decides nothing (leases, last use, sessions, leaves); grants hold the
        list of its tables.
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
        """Record a refusal as an event of its own, in a transaction of its own, and raise it."""
        facts = {"kind": refusal.kind, "family": refusal.family}
        with (
            self._named(),
            Session(self.engine, expire_on_commit=False) as session,
            session.begin(),
        ):
            now = session.execute(select(func.clock_timestamp())).scalar_one()
            subject = str(refusal.facts.get("subject", ""))
            _record(session, actor, action.value, subject, team, "refused", facts, {}, now)
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
    """A row is read anew when it is locked: what was read before the wait for the lock may be true
    no longer.
    """
    if getattr(state.statement, "_for_update_arg", None) is not None:
        state.update_execution_options(populate_existing=True)


def _watch(session: Session, tx: Tx) -> None:
    written: list[Any] = [*session.new, *(row for row in session.dirty if session.is_modified(row))]
    for row in written:
        if row.governed:
            tx.touched[(row.__tablename__, str(row.id))] = row
    for gone in session.deleted:
        if gone.governed:
            tx.touched[(gone.__tablename__, str(gone.id))] = None


def _record(
    session: Session,
    actor: Actor,
    action: str,
    subject: str,
    team: str | None,
    outcome: str,
    facts: dict[str, Any],
    touched: dict[tuple[str, str], Table | None],
    now: datetime,
) -> None:
    """Write the event and which rows it names in the transaction it tells of; a trigger puts it
    into the outbox.
    """
    event_id = uuid4()
    rows = [
        {
            "table": table,
            "key": key,
            "op": "put" if row is not None else "delete",
            "row": None if row is None else image(row),
        }
        for (table, key), row in sorted(touched.items(), key=lambda item: item[0])
    ]
    entry = canonical.encode(
        {
            "v": 1,
            "id": str(event_id),
            "at": utc(now),
            "actor": plain(actor.account),
            "via": actor.via,
            "action": action,
            "subject": subject,
            "team": team,
            "outcome": outcome,
            "request": actor.request_id,
            "facts": {key: plain(value) for key, value in facts.items()},
            "rows": rows,
        }
    )
    session.execute(
        insert(Event).values(
            id=event_id,
            at=now,
            actor_id=actor.account,
            action=action,
            subject=subject,
            team=team,
            outcome=outcome,
            entry=entry,
        )
    )
    if touched:
        session.execute(
            upsert(EventRow).on_conflict_do_nothing(),
            [
                {"table_name": table, "row_key": key, "event_id": event_id}
                for table, key in sorted(touched)
            ],
        )
