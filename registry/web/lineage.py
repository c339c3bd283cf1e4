"""A version's lineage as the rows of a table."""

from __future__ import annotations

from dataclasses import dataclass

from registry.rules.versions import GONE
from registry.views.lineage import LineageView, NodeView
from registry.web.shelves import BY_KIND, ref_path, version_path


@dataclass(frozen=True, slots=True)
class Node:
    """One end of an edge.

    `path` is its page, or None where it has none or is the page's own subject. `gone` is its state
    if it is recalled or deleted, else empty.
    """

    ref: str
    kind: str
    path: str | None
    gone: str


@dataclass(frozen=True, slots=True)
class Edge:
    """One edge as a row: `child` derives from `parent` by `relation`; `grade` says how sure it is.

    `depth` is the distance from the page's subject, negative for its ancestors.
    """

    depth: int
    child: Node
    relation: str
    parent: Node
    grade: str


def edges(graph: LineageView) -> list[Edge]:
    """The graph as a table: the furthest ancestors first, then what derives from the subject."""
    nodes = {node.id: node for node in graph.nodes}
    rows = [
        Edge(
            min(nodes[edge.parent].depth, nodes[edge.child].depth),
            _node(nodes[edge.child], graph),
            edge.relation.replace("_", " "),
            _node(nodes[edge.parent], graph),
            edge.grade,
        )
        for edge in graph.edges
        if edge.child in nodes and edge.parent in nodes
    ]
    return sorted(rows, key=lambda row: (row.depth, row.child.ref, row.parent.ref))


def _path(node: NodeView) -> str | None:
    if node.kind in BY_KIND:
        return version_path(node.kind, node.ref)
    if node.kind == "eval_run":
        return f"/runs/eval/{node.ref}"
    shelf = {"dataset": "datasets", "suite": "suites", "eval_suite": "suites"}.get(node.kind)
    return ref_path(shelf, node.ref) if shelf else None


def _node(node: NodeView, graph: LineageView) -> Node:
    return Node(
        node.ref,
        "data set" if node.kind == "dataset" else node.kind.replace("_", " "),
        None if node.id == graph.focus else _path(node),
        node.state if node.state in GONE else "",
    )
