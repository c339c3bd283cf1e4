"""What a version stands on, re-read under lock when it is entered: its base, its original, its
data.
"""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID, uuid4

from registry.db import datasets, training_runs, versions
from registry.db.intake import Draft, Parents, must_be_fit_original
from registry.db.lineage import LineageEdge
from registry.db.store import Tx
from registry.db.training_runs import Lease, TrainingRun
from registry.db.versions import Line, Node, Version
from registry.errors import Conflict, Invalid, Refused
from registry.rules.versions import usable


class Edge(NamedTuple):
    """An edge of lineage that a version will have: to whom, in which relation, how well known."""

    parent: UUID
    relation: str
    grade: str


def edges(tx: Tx, line: Line, version: Version, draft: Draft, parents: Parents) -> list[Edge]:
    """What a version stands on: its base, the data it was tuned on, and what it is a quantisation
    of.

    Raises Refused for unfit data and for a training run that is not the caller's.
    """
    found = []
    if version.base_version_id is not None:
        found.append(Edge(version.base_version_id, "adapts", "verified"))
    found += _data(tx, line, version, draft, parents)
    if parents.original is not None:
        grade = version.facts["descent"]["grade"]
        found.append(Edge(parents.original.id, "quantised_from", grade))
    return found


def _data(tx: Tx, line: Line, version: Version, draft: Draft, parents: Parents) -> list[Edge]:
    """The data a version was tuned on: observed when a training run brought it, else as its maker
    claims.
    """
    if draft.training_run is not None:
        run = _run(tx, line, draft, parents)
    elif version.training_run_id is not None:
        run = training_runs.by_id(tx.session, version.training_run_id)
    else:
        claimed = draft.meta.get("datasets", [])
        if not isinstance(claimed, list) or not all(isinstance(ref, str) for ref in claimed):
            raise Invalid("bad-meta", "meta.datasets must be a list of data set references.")
        return [Edge(_fit_dataset(tx, ref), "tuned_on", "claimed") for ref in claimed]
    # The data set may have been recalled while the training went on.
    ref = tx.get(Node, run.dataset_version_id).ref.removeprefix("dataset:")
    return [Edge(_fit_dataset(tx, ref), "tuned_on", "observed")]


def _run(tx: Tx, line: Line, draft: Draft, parents: Parents) -> TrainingRun:
    """The training run that brings this version, leased to the caller and asked for just this."""
    assert draft.training_run is not None
    run = training_runs.by_id(tx.session, draft.training_run)
    lease = tx.session.get(Lease, run.id)
    if (
        run.state != "running"
        or lease is None
        or (lease.account_id, lease.attempt) != (tx.actor.account, draft.attempt)
    ):
        raise Conflict(
            "lease-lost",
            "This training run is not leased to you now.",
            "Stop this attempt; the run was taken over or has ended.",
            subject=line.ref,
        )
    base = parents.base
    if run.line_id != line.id or base is None or run.base_version_id != base.id:
        raise Refused(
            "not-this-run",
            "The bundle is not of the adapter and base this training run was asked for.",
            subject=line.ref,
        )
    if draft.step not in run.recipe["publish_at"]:
        raise Refused(
            "step-not-asked",
            f"The recipe does not publish step {draft.step}.",
            f"It publishes {run.recipe['publish_at']}.",
            subject=line.ref,
        )
    return run


def _fit_dataset(tx: Tx, ref: str) -> UUID:
    dataset, _ = datasets.by_ref(tx.session, ref, share=True)
    if not usable(dataset.state):
        raise Refused(
            "unfit-parent",
            f"{ref} is {dataset.state}.",
            "Complete it or name another.",
            subject=ref,
        )
    return dataset.id


def hold(tx: Tx, line: Line, version: Version, edges: list[Edge]) -> None:
    """Lock base and original FOR SHARE and ask again whether they are fit: no recall comes between
    this look and the commit.
    """
    if version.base_version_id is not None:
        base, _, _ = versions.by_id(tx.session, version.base_version_id, share=True)
        if not usable(base.state):
            raise Refused(
                "unfit-base", f"The base is {base.state}.", "Name another base.", subject=line.ref
            )
    for edge in edges:
        if edge.relation == "quantised_from":
            original, its_line, its_node = versions.by_id(tx.session, edge.parent, share=True)
            must_be_fit_original(its_line, original, its_node, line.ref)


def record(tx: Tx, child: Node, edges: list[Edge]) -> None:
    """Write the edges; the child must have been born, so that it is younger than its parents."""
    for edge in edges:
        parent = tx.get(Node, edge.parent)
        tx.add(
            LineageEdge(
                id=uuid4(),
                child_id=child.id,
                child_seq=child.seq,
                parent_id=parent.id,
                parent_seq=parent.seq,
                relation=edge.relation,
                grade=edge.grade,
                created_at=tx.now,
            )
        )
