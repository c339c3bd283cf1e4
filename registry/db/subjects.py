"""Versions of lines and of data sets together, for acts that take either."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry.db import datasets, retention, tombstones, versions
from registry.db.datasets import Dataset, DatasetVersion
from registry.db.sight import Sighted
from registry.db.versions import Line, Node, Version
from registry.errors import Invalid, NotFound
from registry.rules.refs import Ref, parse_ref
from registry.rules.retention import Standing, kept_until

PREFIX = "dataset:"


@dataclass(frozen=True, slots=True)
class Subject:
    """A version or data set version, with its line and node."""

    row: Version | DatasetVersion
    line: Line | Dataset
    node: Node

    @property
    def ref(self) -> str:
        return self.node.ref.removeprefix(PREFIX)


def by_ref(session: Sighted, ref: str, *, gone: bool = False) -> Subject:
    """The version or data set version that a reference names; `dataset:` forces a data set.

    Raises NotFound, and Invalid when the reference names one of each: these acts are hard to undo,
    so asking again is better than taking the wrong one.
    """
    if ref.startswith(PREFIX):
        return _dataset(session, parse_ref(ref.removeprefix(PREFIX)), gone)
    parsed = parse_ref(ref)
    try:
        version, line, node = versions.by_ref(session, parsed, gone=gone)
    except NotFound as unknown:
        if unknown.kind == "deleted":
            raise
        try:
            return _dataset(session, parsed, gone)
        except NotFound as neither:
            if neither.kind == "deleted":
                raise
            raise NotFound(
                "dataset-unknown",
                f"There is no version and no data set version '{ref}'.",
                "See countersign adapter ls, countersign base ls and countersign dataset ls.",
            ) from None
    try:
        _dataset(session, parsed, gone=True)
    except NotFound:
        return Subject(version, line, node)
    raise Invalid(
        "ambiguous-reference",
        f"'{ref}' names both a version and a data set version.",
        f"Write dataset:{ref} for the data set, or the version's sha256 digest.",
    )


def _dataset(session: Sighted, ref: Ref, gone: bool) -> Subject:
    version, node = datasets.by_ref(session, ref, gone=gone)
    return Subject(version, session.get_one(Dataset, version.dataset_id), node)


def by_id(session: Session, node_id: UUID, *, lock: bool = False) -> Subject:
    """The version or data set version of that id, locked if asked, or NotFound."""
    row = versions.find(session, node_id, lock=lock) or datasets.find(session, node_id, lock=lock)
    if row is None:
        raise NotFound("version-unknown", f"There is no version {node_id}.", "Check the id.")
    line: Line | Dataset = (
        session.get_one(Line, row.line_id)
        if isinstance(row, Version)
        else session.get_one(Dataset, row.dataset_id)
    )
    return Subject(row, line, session.get_one(Node, node_id))


def line_by_name(session: Sighted, name: str) -> Line | Dataset:
    """The line or data set of that name; `dataset:` before the name forces a data set.

    Raises NotFound, and Invalid when there is one of each.
    """
    ref = parse_ref(name.removeprefix(PREFIX))
    line = session.scalars(
        select(Line).where(Line.team == ref.team, Line.name == ref.name, session.seen(Line.team))
    ).one_or_none()
    dataset = datasets.line(session, ref)
    if name.startswith(PREFIX):
        line = None
    if line is None and dataset is None:
        raise NotFound(
            "line-unknown", f"There is no line or data set '{name[:120]}'.", "Check the name."
        )
    if line is not None and dataset is not None:
        raise Invalid(
            "ambiguous-reference",
            f"'{name}' names both a line and a data set.",
            f"Write dataset:{name} for the data set, or name one version.",
        )
    named = line or dataset
    assert named is not None
    return named


def standing(session: Session, subject: Subject) -> Standing:
    """Everything that decides the subject's deletion, as of now; lock the subject first."""
    terms, since, served = retention.terms_of(session, subject.node.id)
    draft = subject.row.state == "draft"
    return Standing(
        ref=subject.ref,
        state=subject.row.state,
        deleted=tombstones.find(session, subject.node.id) is not None,
        holds=retention.holds_on(session, subject.node.id),
        kept_until=None if draft or since is None else kept_until(since, served, terms),
        needs=() if draft else retention.needs(session, subject.node.id),
    )
