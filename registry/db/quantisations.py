"""The registered quantisations of a base, by their lineage."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import select

from registry.artifacts.bundles.bases import Quantisation
from registry.db.lineage import LineageEdge
from registry.db.sight import Sighted
from registry.db.versions import Line, Node, Version
from registry.rules.versions import USABLE


def of_base(session: Sighted, base: UUID) -> dict[str, Quantisation]:
    """The usable quantisations of a base that the actor sees, by their base roots.

    Of several with one root, the newest verified one counts.
    """
    statement = (
        select(Version.id, Version.number, Version.base_root, Node.ref, LineageEdge.grade)
        .join(LineageEdge, LineageEdge.child_id == Version.id)
        .join(Node, Node.id == Version.id)
        .join(Line, Line.id == Version.line_id)
        .where(
            LineageEdge.parent_id == base,
            LineageEdge.relation == "quantised_from",
            Version.base_root.is_not(None),
            Version.state.in_(USABLE),
            session.seen(Line.team),
        )
        .order_by(LineageEdge.grade == "verified", Node.seq)
    )
    return {
        row.base_root: Quantisation(row.id, row.ref, row.number or 0, row.grade == "verified")
        for row in session.execute(statement)
        if row.base_root is not None
    }


def original_of(session: Sighted, version: UUID) -> UUID | None:
    """What a version is a verified quantisation of, if the actor sees it."""
    return session.scalar(
        select(LineageEdge.parent_id)
        .join(Version, Version.id == LineageEdge.parent_id)
        .join(Line, Line.id == Version.line_id)
        .where(
            LineageEdge.child_id == version,
            LineageEdge.relation == "quantised_from",
            LineageEdge.grade == "verified",
            session.seen(Line.team),
        )
    )
