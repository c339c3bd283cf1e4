"""What a version derives from: its base, its original and its data.

It is read again, under lock, when the version is entered.
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
    """An edge that a version will have: its parent, the relation, and how well that is known."""

    parent: UUID
    relation: str
    grade: str


def edges(tx: Tx, line: Line, version: Version, draft: Draft, parents: Parents) -> list[Edge]:
    """The edges of a version: to its base, to its training data, and to its unquantised original.

    Raises Refused for unfit data, Conflict or Refused for a training run that is not the caller's.
    """
    edges = []
    if version.base_version_id is not None:
        edges.append(Edge(version.base_version_id, "adapts", "verified"))
    edges += _data(tx, line, version, draft, parents)
    if parents.original is not None:
        grade = version.facts["descent"]["grade"]
        edges.append(Edge(parents.original.id, "quantised_from", grade))
    return edges


def _data(tx: Tx, line: Line, version: Version, draft: Draft, parents: Parents) -> list[Edge]:
    """The edges to the data a version was tuned on.

    They are observed when a training run made the version, else claimed by its maker.
    """
    if draft.training_run is not None:
        run = _run(tx, line, draft, parents)
    elif version.training_run_id is not None:
        run = training_runs.by_id(tx.session, version.training_run_id)
        _must_be_of(run, line, parents)
    else:
        claimed = draft.meta.get("datasets", [])
        if not isinstance(claimed, list) or not all(isinstance(ref, str) for ref in claimed):
            raise Invalid("bad-meta", "meta.datasets must be a list of data set references.")
        return [Edge(_fit_dataset(tx, ref), "tuned_on", "claimed") for ref in claimed]
    # The data set may have been recalled while the training went on.
    ref = tx.get(Node, run.dataset_version_id).ref.removeprefix("dataset:")
    return [Edge(_fit_dataset(tx, ref), "tuned_on", "observed")]


def _run(tx: Tx, line: Line, draft: Draft, parents: Parents) -> TrainingRun:
    """The training run that made this version; it must be leased to the caller and ask for it."""
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
    _must_be_of(run, line, parents)
    if draft.step not in run.recipe["publish_at"]:
        raise Refused(
            "step-not-asked",
            f"The recipe does not publish step {draft.step}.",
            f"It publishes {run.recipe['publish_at']}.",
            subject=line.ref,
        )
    return run


def _must_be_of(run: TrainingRun, line: Line, parents: Parents) -> None:
    """Check that a run trained this adapter on this base: only then was its data observed."""
    base = parents.base
    if run.line_id != line.id or base is None or run.base_version_id != base.id:
        raise Refused(
            "not-this-run",
            "The bundle is not of the adapter and base that this training run is for.",
            subject=line.ref,
        )


def _fit_dataset(tx: Tx, ref: str) -> UUID:
    dataset, _ = datasets.by_ref(tx.session, ref, share=True)
    if not usable(dataset.state):
        raise Refused(
            "unfit-parent",
            f"{ref} is {dataset.state}.",
            "Complete the data set version, or name another one.",
            subject=ref,
        )
    return dataset.id


def hold(tx: Tx, line: Line, version: Version, edges: list[Edge]) -> None:
    """Lock the base, the original and what it was trained on FOR SHARE; check again their fitness.

    The lock keeps a recall from coming between this check and the commit.
    """
    if version.base_version_id is not None:
        base, _, _ = versions.by_id(tx.session, version.base_version_id, share=True)
        if not usable(base.state):
            raise Refused(
                "unfit-base", f"The base is {base.state}.", "Name another base.", subject=line.ref
            )
    for edge in edges:
        if edge.relation in ("quantised_from", "derived_from"):
            original, original_line, node = versions.by_id(tx.session, edge.parent, share=True)
            must_be_fit_original(original_line, original, node, line.ref)


def record(tx: Tx, child: Node, edges: list[Edge]) -> None:
    """Write the edges. Name the node first, so that it is younger than its parents."""
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
