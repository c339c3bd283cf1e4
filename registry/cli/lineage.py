"""Lineage: where things come from."""

from __future__ import annotations

import click

from registry.cli.output import emit, json_option, state, table
from registry.cli.session import connect


@click.command()
@click.argument("ref", metavar="REF")
@json_option
def lineage(ref: str, as_json: bool) -> None:
    """Show where a thing comes from and what derives from it.

    \b
    Example:
      countersign lineage acme/claims@v3
    """
    with connect() as registry:
        graph = registry.lineage(ref)
    if as_json:
        emit(graph)
        return
    nodes = {node.id: node for node in graph.nodes}
    click.echo(f"{nodes[graph.focus].ref}  {state(nodes[graph.focus].state)}")
    edges = sorted(
        graph.edges,
        key=lambda edge: (nodes[edge.child].depth, nodes[edge.child].ref, edge.relation),
    )
    rows = [
        (
            nodes[edge.child].ref,
            edge.relation.replace("_", " "),
            nodes[edge.parent].ref,
            nodes[edge.parent].kind,
            state(nodes[edge.parent].state),
            edge.grade,
        )
        for edge in edges
    ]
    heads = ["Thing", "Relation", "Parent", "Kind", "State", "Grade"]
    table(heads, rows, "It derives from nothing, and nothing derives from it.")
