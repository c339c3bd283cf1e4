"""Lineage, as an answer."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True, slots=True)
class NodeView:
    """One thing in the graph."""

    id: UUID
    kind: str
    ref: str
    state: str
    depth: int


@dataclass(frozen=True, slots=True)
class EdgeView:
    """The child derives from the parent; the grade is claimed, observed or verified."""

    child: UUID
    parent: UUID
    relation: str
    grade: str


@dataclass(frozen=True, slots=True)
class LineageView:
    """A thing with its ancestors (depth < 0) and descendants (depth > 0)."""

    focus: UUID
    nodes: list[NodeView]
    edges: list[EdgeView]
