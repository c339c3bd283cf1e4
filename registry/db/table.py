"""The declarative root of all tables, their column types, and which of them are governed."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID, uuid4

from sqlalchemy import DateTime, MetaData, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, mapped_column
from sqlalchemy.types import UserDefinedType

# Constraint names are part of the contract: integrity errors are told apart by them
# (db/refusals.py).
NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}

Id = Annotated[UUID, mapped_column(primary_key=True, default=uuid4)]
Moment = Annotated[datetime, mapped_column(DateTime(timezone=True))]


class Table(DeclarativeBase):
    """Root of the mapping; `governed` tables change only beside an audit event that names the
    row.
    """

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {  # noqa: RUF012 - as SQLAlchemy declares it
        str: Text,
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB,
        list[Any]: JSONB,
    }
    governed = True


class Xid8(UserDefinedType[int]):
    """PostgreSQL's 64-bit transaction id; it never wraps, so a row can say for good which
    transaction wrote it.
    """

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "xid8"


def one_of(column: str, *values: str) -> str:
    """SQL of a CHECK that a text column holds one of the values."""
    listed = ", ".join(f"'{value}'" for value in values)
    return f"{column} in ({listed})"


def hex_digest(column: str) -> str:
    """SQL of a CHECK that a text column is `sha256:` and 64 lower-case hex digits."""
    return f"{column} ~ '^sha256:[0-9a-f]{{64}}$'"
