"""Recompute what a version is from its bytes: digests, manifest, roots."""

from __future__ import annotations

from registry.blobs import Blobs
from registry.db import datasets as dataset_table
from registry.db import versions
from registry.db.store import Store
from registry.errors import NotFound, RegistryError
from registry.proof import canonical
from registry.rules import bundles, datasets
from registry.rules.actors import Actor
from registry.rules.files import is_weights
from registry.rules.tensors import File
from registry.stats import weights
from registry.views.versions import VerifiedView


def verify(store: Store, blobs: Blobs, actor: Actor, ref: str) -> VerifiedView:
    """Read every byte again and compare; each disagreement is a problem in words, and then `ok` is false."""
    try:
        return _version(store, blobs, actor, ref)
    except NotFound as missing:
        try:
            return _dataset(store, blobs, actor, ref)
        except NotFound:
            raise missing from None


def _bytes(blobs: Blobs, files: list[File]) -> list[str]:
    problems = []
    for file in files:
        try:
            if not blobs.verify(file.sha256):
                problems.append(f"{file.path}: the bytes are not sha256:{file.sha256}")
        except RegistryError as error:
            problems.append(f"{file.path}: {error.detail}")
    return problems


def _version(store: Store, blobs: Blobs, actor: Actor, ref: str) -> VerifiedView:
    with store.read(actor) as session:
        version, line, node = versions.by_ref(session, ref)
        if not actor.sees(line.team):
            raise NotFound("version-unknown", f"There is no version '{ref}'.", "Check the name.")
        files = [File(*row) for row in versions.files(session, version.id)]
        base = versions.by_id(session, version.base_version_id)[0] if version.base_version_id else None
        base_files = [File(*row) for row in versions.files(session, base.id)] if base else []
    kind: bundles.Kind = line.kind  # type: ignore[assignment]
    # Weights are read once, where their tensors are: the same pass compares the file's own digest.
    problems = _bytes(blobs, [file for file in files if not is_weights(kind, file.path)])
    manifest = canonical.digest([{"path": f.path, "sha256": f.sha256, "size": f.size} for f in files])
    if manifest != version.manifest_digest:
        problems.append("the manifest's digest differs from the registered one")
    root = None
    if not problems:
        facts = bundles.base_facts(base_files, blobs.read, base_root=base.base_root) if base else None
        inspected = bundles.inspect(
            kind, files, blobs.read, base=facts, meta=version.meta, weigh=weights.weigh(blobs.read)
        )
        root = inspected.tensor_root
        problems += [f"{defect.file}: {defect.detail}" for defect in inspected.defects]
        if root != version.tensor_root:
            problems.append("the tensor root differs from the registered one")
        if inspected.base_root != version.base_root:
            problems.append("the base root differs from the registered one")
    return VerifiedView(node.ref, not problems, len(files), sum(f.size for f in files), manifest, root, problems)


def _dataset(store: Store, blobs: Blobs, actor: Actor, ref: str) -> VerifiedView:
    with store.read(actor) as session:
        version, node = dataset_table.by_ref(session, ref)
        if not actor.sees(node.team):
            raise NotFound("dataset-unknown", f"There is no data set version '{ref}'.", "Check the name.")
    file = File("rows.jsonl", version.blob_id, blobs.size(version.blob_id))
    problems = _bytes(blobs, [file])
    root = None
    if not problems:
        root = datasets.inspect(file, blobs.read, version.meta).record_root
        if root != version.record_root:
            problems.append("the record root differs from the registered one")
    name = node.ref.removeprefix("dataset:")
    return VerifiedView(name, not problems, 1, file.size, f"sha256:{version.blob_id}", root, problems)
