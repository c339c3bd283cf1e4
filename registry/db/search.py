"""The tables that search reads.

Triggers derive their rows from the governed tables. Nobody writes them by hand, and they can always
be rebuilt.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, Identity, Index, Text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from registry.db.table import Table


class VersionSearch(Table):
    """One version as exact terms (`kind:adapter`, `tag:topic:claims`, `g:lai`); derived, so not
    governed.

    It is a copy of the view `search_row`, kept up to date by triggers. `seq` is the order of
    registration, `facets` the terms worth counting.
    """

    __tablename__ = "version_search"
    governed = False
    id: Mapped[UUID] = mapped_column(ForeignKey("version.id", ondelete="CASCADE"), primary_key=True)
    created_at: Mapped[datetime]
    team: Mapped[str]
    line: Mapped[str] = mapped_column(Text(collation="C"))
    number: Mapped[int]
    seq: Mapped[int | None] = mapped_column(BigInteger)
    deleted: Mapped[bool]
    words: Mapped[str | None]
    facets: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    terms: Mapped[list[str]] = mapped_column(ARRAY(Text))
    __table_args__ = (
        Index("ix_version_search_created", "created_at", "id"),
        Index("ix_version_search_seq", "seq"),
        Index("ix_version_search_line", "line", "number", "id"),
        # No pending list: a search right after a write would have to scan it.
        Index(
            "ix_version_search_terms",
            "terms",
            postgresql_using="gin",
            postgresql_with={"fastupdate": "off"},
        ),
    )


class VersionMetric(Table):
    """One metric of a version's newest succeeded eval run; derived, so not governed."""

    __tablename__ = "version_metric"
    governed = False
    version_id: Mapped[UUID] = mapped_column(
        ForeignKey("version.id", ondelete="CASCADE"), primary_key=True
    )
    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[float]
    __table_args__ = (Index("ix_version_metric_name", "name", "value", "version_id"),)


class SearchEra(Table):
    """A term that occurs, or once occurred, on a version of an era; derived, so not governed.

    An era is 4,096 consecutive values of `seq`. A row may exist twice, because transactions that
    write the same one at the same time do not wait for each other.
    """

    __tablename__ = "search_era"
    governed = False
    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    term: Mapped[str] = mapped_column(Text(collation="C"))
    era: Mapped[int] = mapped_column(BigInteger)
    __table_args__ = (Index("ix_search_era_term", "term", "era"),)
