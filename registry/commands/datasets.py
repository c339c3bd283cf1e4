"""Register data set versions. Every row is read, and the record root covers all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from registry.artifacts.datasets import rows
from registry.artifacts.weights.tensors import File
from registry.blobs.store import Blobs
from registry.db import datasets as table
from registry.db import quotas, senders, versions
from registry.db.datasets import Dataset, DatasetVersion
from registry.db.store import Store
from registry.db.versions import Node
from registry.errors import BundleRejected, Refused
from registry.rules.actions import Action
from registry.rules.actors import Actor
from registry.rules.refs import parse_line
from registry.views.versions import AddedView, FindingView


@dataclass(frozen=True, slots=True)
class Draft:
    """A file of rows to register as the next version of the data set `name`."""

    name: str
    sha256: str
    size: int
    meta: dict[str, Any]


def register(store: Store, blobs: Blobs, actor: Actor, draft: Draft) -> AddedView:
    """Freeze one file of rows as the next version; while required facts are missing it is a draft.

    Raises BundleRejected with the rows that are wrong, Unverified when the bytes are not here,
    Refused when these rows were recalled.
    """
    name, sha256, size, meta = draft.name, draft.sha256, draft.size, draft.meta
    ref = parse_line(name)
    assert ref.team is not None and ref.name is not None
    store.check(actor, Action.DATASET_REGISTER, ref.team)
    senders.must_have(store, blobs, actor, [("The rows", sha256, size)])
    scan = rows.inspect(File("rows.jsonl", sha256, size), blobs.read, meta)
    views = [FindingView(finding.field, finding.detail, finding.fix) for finding in scan.findings]
    if not scan.defects and (same := _registered(store, actor, name, sha256)):
        return same
    with store.write(actor, Action.DATASET_REGISTER, ref.team) as tx:
        tx.within(ref.team)
        if scan.defects:
            raise BundleRejected(scan.defects, subject=name)
        assert scan.record_root is not None
        dataset = table.line(tx.session, ref, lock=True)
        if dataset is None:
            dataset = tx.add(
                Dataset(
                    id=uuid4(),
                    team=ref.team,
                    name=ref.name,
                    created_by=actor.account,
                    created_at=tx.now,
                )
            )
        version = table.draft_of(tx.session, dataset.id, sha256)
        if version is None:
            identity = uuid4()
            versions.hold_blob(tx.session, blobs, sha256, size)
            node = tx.add(
                Node(
                    id=identity,
                    kind="dataset",
                    team=ref.team,
                    ref=f"dataset:{name}@draft-{identity.hex[:8]}",
                )
            )
            version = tx.add(
                DatasetVersion(
                    id=identity,
                    dataset_id=dataset.id,
                    number=None,
                    state="draft",
                    blob_id=sha256,
                    record_root=scan.record_root,
                    rows=scan.rows,
                    splits=scan.splits,
                    duplicates=scan.duplicates,
                    overlap=scan.overlap,
                    meta=meta,
                    created_by=actor.account,
                    created_at=tx.now,
                )
            )
            quotas.must_fit(tx.session, ref.team)
        else:
            node = tx.get(Node, version.id)
            version.meta = meta
        if not scan.findings:
            version.number = table.highest(tx.session, dataset.id) + 1
            version.state, version.registered_at = "registered", tx.now
            node.ref = f"dataset:{name}@v{version.number}"
        tx.audit(node.ref, record_root=scan.record_root, rows=scan.rows, state=version.state)
        return AddedView(
            node.ref.removeprefix("dataset:"),
            f"sha256:{sha256}",
            scan.record_root,
            version.state,
            views,
        )


def _registered(store: Store, actor: Actor, name: str, sha256: str) -> AddedView | None:
    """The version of these rows, if they are registered; refuses rows that were recalled."""
    with store.read(actor) as session:
        dataset = table.line(session, parse_line(name))
        version = dataset and (
            table.numbered(session, dataset.id, sha256)
            or table.draft_of(session, dataset.id, sha256)
        )
        if not dataset or not version or not actor.sees(dataset.team):
            return None
        ref = session.get_one(Node, version.id).ref.removeprefix("dataset:")
    if version.state == "recalled":
        store.refuse(
            actor,
            Action.DATASET_REGISTER,
            dataset.team,
            Refused(
                "recalled",
                f"These rows are {ref}, which is recalled.",
                "Register other rows, without what was wrong.",
                subject=ref,
            ),
        )
    return (
        None
        if version.state == "draft"
        else AddedView(ref, f"sha256:{sha256}", version.record_root, "found")
    )
