"""Data set versions."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry.db.accounts import names
from registry.db.datasets import Dataset, DatasetVersion, by_ref
from registry.db.store import Store
from registry.db.versions import Blob, Node
from registry.queries.pages import plain_ref, seen
from registry.rules.actors import Actor
from registry.views.datasets import DatasetVersionView


def datasets(store: Store, actor: Actor) -> list[DatasetVersionView]:
    """Every data set version of the teams the caller sees, by name, newest first.

    Drafts come before numbered versions.
    """
    with store.read(actor) as session:
        rows = session.execute(
            select(DatasetVersion, Node)
            .join(Node, Node.id == DatasetVersion.id)
            .join(Dataset, Dataset.id == DatasetVersion.dataset_id)
            .where(seen(actor, Dataset.team))
            .order_by(Dataset.team, Dataset.name, DatasetVersion.number.desc(), Node.seq.desc())
        )
        return _views(session, [(row[0], row[1]) for row in rows])


def dataset(store: Store, actor: Actor, ref: str) -> DatasetVersionView:
    """The data set version that a reference names, or NotFound."""
    with store.read(actor) as session:
        return _views(session, [by_ref(session, ref)])[0]


def _views(session: Session, rows: list[tuple[DatasetVersion, Node]]) -> list[DatasetVersionView]:
    names_by_id = names(session, {version.created_by for version, _ in rows})
    blobs = select(Blob.id, Blob.size).where(Blob.id.in_({version.blob_id for version, _ in rows}))
    sizes = {row.id: row.size for row in session.execute(blobs)}
    return [
        DatasetVersionView(
            id=version.id,
            ref=plain_ref(node.ref),
            number=version.number,
            state=version.state,
            sha256=version.blob_id,
            size=sizes[version.blob_id],
            record_root=version.record_root,
            rows=version.rows,
            splits=version.splits,
            duplicates=version.duplicates,
            overlap=version.overlap,
            meta=version.meta,
            created_by=names_by_id[version.created_by],
            created_at=version.created_at,
        )
        for version, node in rows
    ]
