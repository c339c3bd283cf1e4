"""Recompute what a version is from its bytes: digests, manifest, roots, fit, texts, descent."""

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
from registry.db import versions
from registry.db.store import Store
from registry.db.versions import Line, Node, Version
from registry.documents import canonical
from registry.errors import BundleRejected, Defect, NotFound, RegistryError, Unavailable
from registry.rules import refs
from registry.rules.actors import Actor
from registry.views.versions import CheckView, VerifiedView

ABOUT_BYTES = frozenset({"bytes-changed", "bytes-missing", "bytes-short", "bytes-more"})
OF_UPLOAD = "uploaded_config"
ELSEWHERE = frozenset({OF_UPLOAD, "unbound_manifest"})
"""Facts of the configuration as it came, which is not kept, and of the manifest, which is checked
by itself.
"""
TEMPLATE_RULES = ("template-", "chat-template-", "attr-filter", "private-name", "unknown-call")


@dataclass(slots=True)
class _Checks:
    """What was looked at so far, in order."""

    done: list[CheckView] = field(default_factory=list)

    def say(self, check: str, faults: list[str], detail: str) -> None:
        self.done.append(CheckView(check, "fault" if faults else "ok", "; ".join(faults) or detail))

    def skip(self, check: str, why: str) -> None:
        self.done.append(CheckView(check, "skipped", why))

    def same(self, check: str, found: Any, registered: Any) -> None:
        """A value worked out again against the registered one; without it, nothing can be said."""
        if found is None and registered is not None:
            self.skip(check, "it cannot be worked out while other checks find faults")
        else:
            self.say(
                check,
                []
                if found == registered
                else [f"{found} was worked out, {registered} is registered"],
                str(registered or "none"),
            )

    @property
    def problems(self) -> list[str]:
        return [f"{one.check}: {one.detail}" for one in self.done if one.outcome == "fault"]


def verify(store: Store, blobs: Blobs, actor: Actor, ref: str) -> VerifiedView:
    """Read every byte again and compare; each disagreement is a problem in words, and then `ok` is
    false.
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
        original = _original(session, version)
        original_files = (
            [File(*row) for row in versions.files(session, original[0].id)] if original else []
        )
    kind: Kind = line.kind  # type: ignore[assignment]  # the column's CHECK knows no other
    checks = _Checks()
    # An own template was let in under the policies of its day; now only its bytes are looked at.
    judge = Judge(sandbox.look, ("registered",) if own_of(version.facts) else ())
    below, own = (
        bundles.footprint(*one, blobs.read)[0] for one in (("base", base_files), (kind, files))
    )
    with JUDGING.take(below + own):
        facts = _base(checks, blobs, base, base_files)
        inspector = bundles.Inspector(blobs.read, digests.weigh(blobs.read), judge)
        inspected = inspector.inspect(kind, files, base=facts, meta=version.meta)
    _files(checks, blobs, kind, files, inspected)
    manifest = canonical.digest(
        [{"path": f.path, "sha256": f.sha256, "size": f.size} for f in files]
    )
    checks.same("manifest", manifest, version.manifest_digest)
    _rules(checks, kind, version, inspected, bound=facts is not None)
    checks.same("tensor root", inspected.tensor_root, version.tensor_root)
    known = inspected.is_base(version.base_root)
    checks.same("base root", version.base_root if known else inspected.base_root, version.base_root)
    if original is not None:
        _descent(checks, blobs, files, original[1], original_files, original[2])
    _facts(checks, version, inspected)
    return VerifiedView(
        node.ref,
        not checks.problems,
        len(files),
        sum(f.size for f in files),
        manifest,
        inspected.tensor_root,
        checks.problems,
        checks.done,
    )


def _base(
    checks: _Checks, blobs: Blobs, base: tuple[Version, Line, Node] | None, files: list[File]
) -> BaseFacts | None:
    """The base an adapter is bound to, as far as the adapter is held against it: headers and texts,
    not every weight.
    """
    if base is None:
        return None
    version, line, node = base
    ref = node.ref
    try:
        facts = bundles.base_facts(files, blobs.read, base_root=version.base_root)
    except BundleRejected as error:
        checks.say(f"base {ref}", [f"{one.file}: {one.detail}" for one in error.defects], "")
        return None
    checks.say(
        f"base {ref}",
        [],
        f"its headers and texts are sound; countersign verify {ref} reads all of it",
    )
    return replace(facts, line=line.ref, commit=refs.commit(version.manifest_digest))


def _files(
    checks: _Checks, blobs: Blobs, kind: Kind, files: list[File], inspected: Inspected
) -> None:
    """Each file's digest; weights were read once, with their tensors, where nothing was wrong
    before.
    """
    told: dict[str, list[str]] = {}
    for defect in inspected.defects:
        if defect.rule in ABOUT_BYTES:
            told.setdefault(defect.file, []).append(defect.detail)
    for file in files:
        weighed = is_weights(kind, file.path) and not any(
            _before_bytes(one) for one in inspected.defects
        )
        checks.say(
            file.path,
            told.get(file.path) or ([] if weighed else _bytes(blobs, file)),
            f"sha256:{file.sha256}, {file.size} bytes",
        )


def _before_bytes(defect: Defect) -> bool:
    """Weights are read whole only when nothing else was wrong: then only reading itself can have
    found this.
    """
    return defect.rule not in ("bytes-changed", "non-finite")


def _rules(
    checks: _Checks, kind: Kind, version: Version, inspected: Inspected, *, bound: bool
) -> None:
    """Every rule of a bundle, in the groups people ask for."""
    groups: dict[str, list[str]] = {
        "fit to its base" if kind == "adapter" else "form": [],
        "tokenizer": [],
        "chat template": [],
    }
    first = next(iter(groups))
    for defect in inspected.defects:
        if defect.rule in ABOUT_BYTES:
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
        checks.say(first, groups[first], f"{inspected.facts.get('tensors', 0)} tensors")
    if OF_UPLOAD in version.facts and OF_UPLOAD in inspected.facts:
        other = (
            ["it is not as the registry writes it, or names another base"]
            if inspected.rewritten is not None
            else []
        )
        checks.say(
            "configuration", other, "as the registry writes it, naming the base it is bound to"
        )
    held = {entry["path"] for entry in inspected.manifest}
    if held & TOKENIZER:
        checks.say("tokenizer", groups["tokenizer"], "its base's" if kind == "adapter" else "sound")
    if "chat_template" in inspected.facts or groups["chat template"]:
        checks.say(
            "chat template",
            groups["chat template"],
            str(inspected.facts.get("chat_template", {}).get("digest")),
        )


def _original(session: Session, version: Version) -> tuple[Version, str, str] | None:
    """What the lineage says a checkpoint was quantised from: the version, its reference, the
    grade.
    """
    row = session.execute(
        text(
            "select parent_id, grade from lineage_edge where child_id = :child and relation = "
            "'quantised_from'"
        ),
        {"child": version.id},
    ).one_or_none()
    if row is None:
        return None
    parent, _, node = versions.by_id(session, row.parent_id)
    return parent, node.ref, row.grade


def _descent(
    checks: _Checks, blobs: Blobs, files: list[File], ref: str, original: list[File], grade: str
) -> None:
    """The descent worked out again; a claim stays one, and is told as one."""
    try:
        found = quantisations.descend(files, original, blobs.read)
    except Unavailable:
        raise
    except RegistryError as error:
        checks.skip(f"descent from {ref}", error.detail)
        return
    faults = [f"{one.where}: {one.detail}" for one in found.defects]
    if not faults and found.grade != grade:
        faults = [f"{found.grade} was worked out, {grade} is registered"]
    told = (
        ", ".join(f"{count} by {recipe}" for recipe, count in found.recipes.items())
        or "nothing was worked out"
    )
    checks.say(
        f"descent from {ref}",
        faults,
        f"{grade}: {told}; {len(found.unchecked)} things cannot be worked out",
    )


def _facts(checks: _Checks, version: Version, inspected: Inspected) -> None:
    """What is kept of a version beside its bytes; a fact that came with a later release is not
    expected of it.
    """
    if any(one.rule in ABOUT_BYTES for one in inspected.defects):
        checks.skip("facts", "they cannot be worked out while bytes are missing or changed")
        return
    faults = [
        f"{key} is kept as {version.facts[key]}, the bytes say {value}"[:300]
        for key, value in inspected.facts.items()
        if key in version.facts.keys() - ELSEWHERE and version.facts[key] != value
    ]
    checks.say("facts", faults, ", ".join(sorted(version.facts)) or "none")


def _dataset(store: Store, blobs: Blobs, actor: Actor, ref: str) -> VerifiedView:
    with store.read(actor) as session:
        version, node = dataset_table.by_ref(session, ref)
        kept, size = version, _size(session, version.blob_id)
    checks = _Checks()
    file = File("rows.jsonl", kept.blob_id, size)
    checks.say(file.path, _bytes(blobs, file), f"sha256:{file.sha256}, {file.size} bytes")
    root = None
    if checks.problems:
        checks.skip("record root", "it cannot be worked out without the rows")
    else:
        root = rows.inspect(file, blobs.read, kept.meta).record_root
        checks.same("record root", root, kept.record_root)
    name = node.ref.removeprefix("dataset:")
    return VerifiedView(
        name,
        not checks.problems,
        1,
        file.size,
        f"sha256:{kept.blob_id}",
        root,
        checks.problems,
        checks.done,
    )


def _size(session: Session, blob: str) -> int:
    return int(
        session.execute(text("select size from blob where id = :blob"), {"blob": blob}).scalar_one()
    )
