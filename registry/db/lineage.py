"""Lineage edges, and the walks over them."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKeyConstraint,
    Index,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, Session, mapped_column

from registry.db.table import Id, Moment, Table, one_of
from registry.rules.versions import GRADES

RELATIONS = (
    "tuned_on",
    "adapts",
    "continues",
    "merged_from",
    "quantised_from",
    "derived_from",
    "evaluated_on",
)


class LineageEdge(Table):
    """A child derives from a parent.

    The composite keys make the stored seqs the nodes' own, and the CHECK makes parents older, so
    no cycle is possible.
    """

    __tablename__ = "lineage_edge"
    id: Mapped[Id]
    child_id: Mapped[UUID]
    child_seq: Mapped[int] = mapped_column(BigInteger)
    parent_id: Mapped[UUID]
    parent_seq: Mapped[int] = mapped_column(BigInteger)
    relation: Mapped[str]
    grade: Mapped[str]
    created_at: Mapped[Moment]
    __table_args__ = (
        ForeignKeyConstraint(["child_id", "child_seq"], ["node.id", "node.seq"]),
        ForeignKeyConstraint(["parent_id", "parent_seq"], ["node.id", "node.seq"]),
        UniqueConstraint("child_id", "parent_id", "relation"),
        CheckConstraint("parent_seq < child_seq", name="parent_older"),
        CheckConstraint(one_of("relation", *RELATIONS), name="relation"),
        CheckConstraint(one_of("grade", *GRADES), name="grade"),
        Index("ix_lineage_edge_parent_id", "parent_id"),
    )


def descendants(session: Session, node_id: UUID) -> list[UUID]:
    """The node and every node that derives from it, in one recursive walk; the node comes first.

    A draft has no edges yet, but its row names its base.
    """
    rows = session.execute(
        text(
            """
            with recursive walk(id) as (
                select cast(:start as uuid)
                union
                select n.id from walk w cross join lateral (
                    select e.child_id as id from lineage_edge e where e.parent_id = w.id
                    union all
                    select v.id from version v where v.base_version_id = w.id
                ) n
            )
            select id from walk
            """
        ),
        {"start": node_id},
    )
    return [row.id for row in rows]


def parents(session: Session, node_id: UUID, relation: str) -> dict[UUID, str]:
    """The direct parents by one relation, oldest first, each with the grade of its edge."""
    rows = session.execute(
        text(
            "select parent_id, grade from lineage_edge "
            "where child_id = :child and relation = :relation order by parent_seq"
        ),
        {"child": node_id, "relation": relation},
    )
    return {row.parent_id: row.grade for row in rows}
