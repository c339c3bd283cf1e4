"""The declarative base of all tables, with their column types and constraint names."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID, uuid4

from sqlalchemy import DateTime, MetaData, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, mapped_column
from sqlalchemy.types import UserDefinedType

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}
"""The names of constraints. db/refusals.py tells integrity errors apart by them."""

Id = Annotated[UUID, mapped_column(primary_key=True, default=uuid4)]
Moment = Annotated[datetime, mapped_column(DateTime(timezone=True))]


class Table(DeclarativeBase):
    """The base class of all tables.

    A `governed` table changes only together with an audit event that names the row.
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
    """PostgreSQL's 64-bit transaction id.

    It never wraps, so a row can state for good which transaction wrote it.
    """

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "xid8"


def one_of(column: str, *values: str) -> str:
    """SQL of a CHECK that a text column has one of the values."""
    listed = ", ".join(f"'{value}'" for value in values)
    return f"{column} in ({listed})"


def hex_digest(column: str) -> str:
    """SQL of a CHECK that a text column is `sha256:` and 64 lower-case hex digits."""
    return f"{column} ~ '^sha256:[0-9a-f]{{64}}$'"
