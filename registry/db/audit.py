"""The audit log.

An event is written in the transaction that it describes. The sequencer then adds its leaf and the
signed tree heads.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    LargeBinary,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from registry.db.table import Id, Moment, Table, Xid8, hex_digest, one_of


class Event(Table):
    """One entry of the log. Its canonical bytes are the leaf; the other columns serve searches.

    `place` is assigned at the end of the transaction, when it holds every row lock, so the places
    of the events on a row are in the order of its changes.
    """

    __tablename__ = "event"
    governed = False
    id: Mapped[Id]
    place: Mapped[int] = mapped_column(BigInteger, Identity(always=True), unique=True)
    txid: Mapped[int] = mapped_column(
        Xid8(), server_default=text("pg_current_xact_id()"), deferred=True
    )
    at: Mapped[Moment]
    actor_id: Mapped[UUID | None]
    action: Mapped[str]
    subject: Mapped[str]
    team: Mapped[str | None]
    outcome: Mapped[str]
    entry: Mapped[bytes] = mapped_column(LargeBinary)
    __table_args__ = (
        UniqueConstraint("id", "txid"),
        CheckConstraint(one_of("outcome", "done", "refused"), name="outcome"),
        Index("ix_event_subject", "subject", "place"),
        Index("ix_event_action", "action", "place"),
    )


class EventRow(Table):
    """The governed rows that an event's transaction wrote; a deferred trigger reads it at COMMIT.

    The application cannot write `txid` here or in `event`, and the foreign key over both columns
    makes them equal: no event of an earlier transaction covers a later change.
    """

    __tablename__ = "event_row"
    governed = False
    txid: Mapped[int] = mapped_column(
        Xid8(), server_default=text("pg_current_xact_id()"), primary_key=True
    )
    table_name: Mapped[str] = mapped_column(primary_key=True)
    row_key: Mapped[str] = mapped_column(primary_key=True)
    event_id: Mapped[UUID] = mapped_column(index=True)
    __table_args__ = (ForeignKeyConstraint(["event_id", "txid"], ["event.id", "event.txid"]),)


class EventPending(Table):
    """The outbox: events that the sequencer has not numbered yet.

    A trigger adds each event, so none can be left out. It is a queue, and not `place > last`,
    because places commit out of order.
    """

    __tablename__ = "event_pending"
    governed = False
    place: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    event_id: Mapped[UUID] = mapped_column(ForeignKey("event.id"))


class Leaf(Table):
    """An event's number in the log and its RFC 6962 leaf hash."""

    __tablename__ = "leaf"
    governed = False
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    event_id: Mapped[UUID] = mapped_column(ForeignKey("event.id"), unique=True)
    hash: Mapped[bytes] = mapped_column(LargeBinary)
    __table_args__ = (CheckConstraint("seq >= 0 and octet_length(hash) = 32", name="shape"),)


class TreeHead(Table):
    """The log's root at a size, the frontier to go on from, and (after COMMIT) the signed note."""

    __tablename__ = "tree_head"
    governed = False
    size: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    root: Mapped[str]
    frontier: Mapped[list[Any]] = mapped_column(ARRAY(LargeBinary))
    note: Mapped[str | None]
    made_at: Mapped[Moment]
    __table_args__ = (CheckConstraint(hex_digest("root"), name="root"),)
