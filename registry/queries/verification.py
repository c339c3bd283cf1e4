"""Recompute everything about a version from its bytes: digests, manifest, roots, fit, descent."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from registry.artifacts.bundles import judge as bundles
from registry.artifacts.bundles.judge import BaseFacts, Inspected, Kind
from registry.artifacts.bundles.memory import JUDGING
from registry.artifacts.bundles.names import TOKENIZER, is_weights
from registry.artifacts.datasets import rows
from registry.artifacts.quantised import quantisations
from registry.artifacts.tokenizers import sandbox
from registry.artifacts.tokenizers.chat_templates import Judge, own_of
from registry.artifacts.weights import digests
from registry.artifacts.weights.tensors import File
from registry.blobs.store import Blobs
from registry.db import datasets as dataset_table
from registry.db import quantisations as quantisation_edges
from registry.db import versions
from registry.db.store import Store
from registry.db.versions import Blob, Line, Node, Version
from registry.documents import canonical
from registry.errors import BundleRejected, Defect, NotFound, RegistryError, Unavailable
from registry.rules import refs
from registry.rules.actors import Actor
from registry.views.versions import CheckView, VerifiedView

BYTE_RULES = frozenset({"bytes-changed", "bytes-missing", "bytes-short", "bytes-more"})
"""Rules whose defects are about the bytes of a file."""
UPLOADED_CONFIG = "uploaded_config"
UNCHECKED_FACTS = frozenset({UPLOADED_CONFIG, "unbound_manifest"})
"""Facts that cannot be compared: the uploaded configuration is not kept, and the manifest has a
check of its own.
"""
TEMPLATE_RULES = ("template-", "chat-template-", "attr-filter", "private-name", "unknown-call")
"""Prefixes of the rules for chat templates."""


@dataclass(slots=True)
class _Checks:
    """The checks so far, in order."""

    done: list[CheckView] = field(default_factory=list)

    def add(self, check: str, faults: list[str], detail: str) -> None:
        self.done.append(CheckView(check, "fault" if faults else "ok", "; ".join(faults) or detail))

    def skip(self, check: str, why: str) -> None:
        self.done.append(CheckView(check, "skipped", why))

    def compare(self, check: str, computed: Any, registered: Any) -> None:
        """Compare a computed value with the registered one; skip if it cannot be computed."""
        if computed is None and registered is not None:
            self.skip(check, "it cannot be computed while other checks find faults")
            return
        faults = [f"{computed} was computed, {registered} is registered"]
        self.add(check, [] if computed == registered else faults, str(registered or "none"))

    @property
    def problems(self) -> list[str]:
        return [f"{check.check}: {check.detail}" for check in self.done if check.outcome == "fault"]


@dataclass(frozen=True, slots=True)
class _Original:
    """What a checkpoint was quantised from, by its lineage."""

    ref: str
    grade: str
    files: list[File]


def verify(store: Store, blobs: Blobs, actor: Actor, ref: str) -> VerifiedView:
    """Read every byte of a version or data set version, and compare with what is registered.

    Each difference is a problem in words, and makes `ok` false. Raises NotFound without such a
    version, Unavailable if the store does not answer.
    """
    try:
        return _version(store, blobs, actor, ref)
    except NotFound as missing:
        try:
            return _dataset(store, blobs, actor, ref)
        except NotFound:
            raise missing from None


def _bytes(blobs: Blobs, file: File) -> list[str]:
    try:
        if not blobs.verify(file.sha256):
            return [f"its bytes are not sha256:{file.sha256}"]
        size = blobs.size(file.sha256)
    except Unavailable:
        raise
    except RegistryError as error:
        return [error.detail]
    return [] if size == file.size else [f"it has {size} bytes, {file.size} are registered"]


def _version(store: Store, blobs: Blobs, actor: Actor, ref: str) -> VerifiedView:
    with store.read(actor) as session:
        version, line, node = versions.by_ref(session, ref)
        files = [File(*row) for row in versions.files(session, version.id)]
        base = versions.by_id(session, version.base_version_id) if version.base_version_id else None
        base_files = [File(*row) for row in versions.files(session, base[0].id)] if base else []
        known = quantisation_edges.of_base(session, base[0].id) if base else {}
        original = _original(session, version)
    kind: Kind = line.kind  # type: ignore[assignment]  # the column's CHECK allows no other
    checks = _Checks()
    # An own template was allowed by the policies in force then; now only its bytes are checked.
    judge = Judge(sandbox.look, ("registered",) if own_of(version.facts) else ())
    base_footprint = bundles.footprint("base", base_files, blobs.read)[0]
    with JUDGING.take(base_footprint + bundles.footprint(kind, files, blobs.read)[0]):
        facts = _base(checks, blobs, base, base_files)
        facts = replace(facts, quantisations=known) if facts else None
        inspector = bundles.Inspector(blobs.read, digests.weigh(blobs.read), judge)
        inspected = inspector.inspect(kind, files, base=facts, meta=version.meta)
    _files(checks, blobs, kind, files, inspected)
    manifest = canonical.digest(
        [{"path": file.path, "sha256": file.sha256, "size": file.size} for file in files]
    )
    checks.compare("manifest", manifest, version.manifest_digest)
    _rules(checks, kind, version, inspected, bound=facts is not None)
    checks.compare("tensor root", inspected.tensor_root, version.tensor_root)
    is_known = inspected.is_base(version.base_root)
    base_root = version.base_root if is_known else inspected.base_root
    checks.compare("base root", base_root, version.base_root)
    if original is not None:
        _descent(checks, blobs, files, original)
    _facts(checks, version, inspected)
    return VerifiedView(
        node.ref,
        not checks.problems,
        len(files),
        sum(file.size for file in files),
        manifest,
        inspected.tensor_root,
        checks.problems,
        checks.done,
    )


def _base(
    checks: _Checks, blobs: Blobs, base: tuple[Version, Line, Node] | None, files: list[File]
) -> BaseFacts | None:
    """What an adapter's checks need of its base: headers and texts, not every weight."""
    if base is None:
        return None
    version, _, node = base
    ref = node.ref
    try:
        facts = bundles.base_facts(files, blobs.read, base_root=version.base_root)
    except BundleRejected as error:
        faults = [f"{defect.file}: {defect.detail}" for defect in error.defects]
        checks.add(f"base {ref}", faults, "")
        return None
    checks.add(
        f"base {ref}",
        [],
        f"its headers and texts are sound; countersign verify {ref} reads all of it",
    )
    commit = refs.commit(version.manifest_digest)
    return replace(facts, repository=refs.repository(ref), commit=commit)


def _files(
    checks: _Checks, blobs: Blobs, kind: Kind, files: list[File], inspected: Inspected
) -> None:
    """Check the digest of each file; weights that the inspection has read are not read again."""
    faults: dict[str, list[str]] = {}
    for defect in inspected.defects:
        if defect.rule in BYTE_RULES:
            faults.setdefault(defect.file, []).append(defect.detail)
    were_weights_read = all(map(_is_of_reading, inspected.defects))
    for file in files:
        was_read = were_weights_read and is_weights(kind, file.path)
        checks.add(
            file.path,
            faults.get(file.path) or ([] if was_read else _bytes(blobs, file)),
            f"sha256:{file.sha256}, {file.size} bytes",
        )


def _is_of_reading(defect: Defect) -> bool:
    """Whether only reading the weights can find this defect.

    An inspection reads them only if it has found no other defect.
    """
    return defect.rule in ("bytes-changed", "non-finite")


def _rules(
    checks: _Checks, kind: Kind, version: Version, inspected: Inspected, *, bound: bool
) -> None:
    """Add the defects by every rule for bundles, in the groups that people know."""
    groups: dict[str, list[str]] = {
        "fit to its base" if kind == "adapter" else "form": [],
        "tokenizer": [],
        "chat template": [],
    }
    first = next(iter(groups))
    for defect in inspected.defects:
        if defect.rule in BYTE_RULES:
            continue
        group = first
        if defect.rule.startswith(TEMPLATE_RULES):
            group = "chat template"
        elif defect.file in TOKENIZER:
            group = "tokenizer"
        groups[group].append(f"{defect.file} {defect.where}: {defect.detail}".replace(" :", ":"))
    if kind == "adapter" and not bound:
        checks.skip(
            first,
            "its base is not sound" if version.base_version_id else "it is bound to no base yet",
        )
    else:
        checks.add(first, groups[first], f"{inspected.facts.get('tensors', 0)} tensors")
    if UPLOADED_CONFIG in version.facts and UPLOADED_CONFIG in inspected.facts:
        faults = ["it is not as the registry writes it, or names another base"]
        checks.add(
            "configuration",
            faults if inspected.rewritten is not None else [],
            "as the registry writes it, with the base that it is bound to",
        )
    paths = {entry["path"] for entry in inspected.manifest}
    if paths & TOKENIZER:
        checks.add("tokenizer", groups["tokenizer"], "its base's" if kind == "adapter" else "sound")
    if "chat_template" in inspected.facts or groups["chat template"]:
        checks.add(
            "chat template",
            groups["chat template"],
            str(inspected.facts.get("chat_template", {}).get("digest")),
        )


def _original(session: Session, version: Version) -> _Original | None:
    row = session.execute(
        text(
            "select parent_id, grade from lineage_edge "
            "where child_id = :child and relation = 'quantised_from'"
        ),
        {"child": version.id},
    ).one_or_none()
    if row is None:
        return None
    parent, _, node = versions.by_id(session, row.parent_id)
    files = [File(*file) for file in versions.files(session, parent.id)]
    return _Original(node.ref, row.grade, files)


def _descent(checks: _Checks, blobs: Blobs, files: list[File], original: _Original) -> None:
    """Recompute the descent; a claim stays a claim, and the detail shows its grade."""
    name, grade = f"descent from {original.ref}", original.grade
    try:
        descent = quantisations.descend(files, original.files, blobs.read)
    except Unavailable:
        raise
    except RegistryError as error:
        checks.skip(name, error.detail)
        return
    faults = [f"{defect.where}: {defect.detail}" for defect in descent.defects]
    if not faults and descent.grade != grade:
        faults = [f"{descent.grade} was computed, {grade} is registered"]
    recipes = [f"{count} by {recipe}" for recipe, count in descent.recipes.items()]
    computed = ", ".join(recipes) or "nothing was computed"
    unchecked = f"{len(descent.unchecked)} things cannot be computed"
    checks.add(name, faults, f"{grade}: {computed}; {unchecked}")


def _facts(checks: _Checks, version: Version, inspected: Inspected) -> None:
    """Compare the registered facts; one that a later release added is not expected of it."""
    if any(defect.rule in BYTE_RULES for defect in inspected.defects):
        checks.skip("facts", "they cannot be computed while bytes are missing or changed")
        return
    faults = [
        f"{key} is registered as {version.facts[key]}, the bytes give {value}"[:300]
        for key, value in inspected.facts.items()
        if key in version.facts.keys() - UNCHECKED_FACTS
        and not _agree(key, version.facts[key], value)
    ]
    checks.add("facts", faults, ", ".join(sorted(version.facts)) or "none")


def _agree(key: str, registered: Any, computed: Any) -> bool:
    """Whether a registered fact is what the bytes give.

    Registering adds risks that no byte of the version shows: files left out, weights that another
    version has.
    """
    if key == "risks":
        return set(computed) <= set(registered)
    return bool(registered == computed)


def _dataset(store: Store, blobs: Blobs, actor: Actor, ref: str) -> VerifiedView:
    with store.read(actor) as session:
        version, node = dataset_table.by_ref(session, ref)
        size = session.get_one(Blob, version.blob_id).size
    checks = _Checks()
    file = File("rows.jsonl", version.blob_id, size)
    checks.add(file.path, _bytes(blobs, file), f"sha256:{file.sha256}, {file.size} bytes")
    root = None
    if checks.problems:
        checks.skip("record root", "it cannot be computed without the rows")
    else:
        root = rows.inspect(file, blobs.read, version.meta).record_root
        checks.compare("record root", root, version.record_root)
    name = node.ref.removeprefix("dataset:")
    return VerifiedView(
        name,
        not checks.problems,
        1,
        file.size,
        f"sha256:{version.blob_id}",
        root,
        checks.problems,
        checks.done,
    )
