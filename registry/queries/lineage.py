"""What a thing derives from, and what derives from it."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from uuid import UUID

from sqlalchemy import select, text

from registry.db import datasets, evals, versions
from registry.db.sight import Sighted
from registry.db.store import Store
from registry.db.versions import Node
from registry.errors import NotFound
from registry.queries.pages import plain_ref, storable
from registry.rules.actors import Actor
from registry.rules.refs import parse_ref
from registry.views.lineage import EdgeView, LineageView, NodeView

PREFIXES = ("dataset:", "suite:", "eval-run:")
MAX_DEPTH = 20
"""How many edges a walk follows each way; to go further, ask again from the last node shown."""

# The walk goes only up from ancestors and only down from descendants, so that siblings stay out.
# UNION drops what a diamond reaches twice at one depth, so the walk is bounded by nodes times
# depth, however many paths there are.
WALK = text(
    """
    with recursive walk(id, depth) as (
        select cast(:focus as uuid), 0
        union
        select step.id, step.depth from walk w cross join lateral (
            select e.parent_id, w.depth - 1 from lineage_edge e
            where e.child_id = w.id and w.depth between 1 - :furthest and 0
            union all
            select e.child_id, w.depth + 1 from lineage_edge e
            where e.parent_id = w.id and w.depth between 0 and :furthest - 1
        ) step(id, depth)
    ), nearest as (
        select distinct on (id) id, depth from walk order by id, abs(depth)
    )
    select n.id, n.kind, n.ref, n.team, w.depth,
           coalesce(v.state, d.state, e.state, 'registered') as state
    from nearest w join node n on n.id = w.id
    left join version v on v.id = n.id
    left join dataset_version d on d.id = n.id
    left join eval_run e on e.id = n.id
    order by w.depth, n.seq
    """
)


def trace(store: Store, actor: Actor, ref: str) -> LineageView:
    """The ancestors and descendants of a version, data set, suite or eval run, and their edges.

    Nodes of teams that the caller does not see are left out with their edges; the walk itself
    passes through them.
    """
    with store.read(actor) as session:
        focus = _focus(session, ref)
        rows = session.execute(WALK, {"focus": focus, "furthest": MAX_DEPTH})
        nodes = [
            NodeView(row.id, row.kind, plain_ref(row.ref), row.state, row.depth)
            for row in rows
            if actor.sees(row.team)
        ]
        edges = session.execute(
            text(
                "select child_id, parent_id, relation, grade from lineage_edge "
                "where child_id = any(:nodes) and parent_id = any(:nodes) "
                "order by child_seq, parent_seq, relation"
            ),
            {"nodes": [node.id for node in nodes]},
        )
        return LineageView(focus, nodes, [EdgeView(*edge) for edge in edges])


def _focus(session: Sighted, ref: str) -> UUID:
    """A node by its own reference, or a version, data set version or suite by any reference."""
    if ref.startswith(PREFIXES):
        node_id = session.scalars(
            select(Node.id).where(Node.ref == storable(ref), session.seen(Node.team))
        ).one_or_none()
        if node_id is None:
            raise NotFound("node-unknown", f"There is no '{ref}'.")
        return node_id
    parsed = parse_ref(ref)
    try:
        return versions.by_ref(session, parsed, gone=True)[0].id
    except NotFound as unknown:
        for find in (partial(datasets.by_ref, gone=True), evals.suite_version):
            with suppress(NotFound):
                return find(session, parsed)[1].id
        raise unknown
