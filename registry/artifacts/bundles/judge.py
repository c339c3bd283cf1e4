"""What a bundle is: its manifest, roots and facts, every defect, and what is still missing.

Names prove nothing: files are recognised by their bytes, and an adapter must fit its base tensor by
tensor. Its configuration is stored as we write it, not as it was received. Defects refuse a bundle;
findings (missing descriptions) leave it a draft.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from registry.artifacts import statements
from registry.artifacts.bundles import bindings, full_models
from registry.artifacts.bundles.bases import NAME_THE_BASE, BaseFacts, NamedBase
from registry.artifacts.bundles.files import Bundle, choose, footprint, read_bundle
from registry.artifacts.bundles.names import ADAPTER_WEIGHTS, DOCS, Kind
from registry.artifacts.bundles.overflows import overflow
from registry.artifacts.bundles.packed import logical_shapes, quantisation_of
from registry.artifacts.bundles.texts import FAST_TOKENIZER, texts_of
from registry.artifacts.methods import adapters, anatomies, effects, fits, heads
from registry.artifacts.methods.configs import FILE as CONFIG
from registry.artifacts.statements import Finding
from registry.artifacts.tokenizers.chat_templates import Judge
from registry.artifacts.weights.tensors import (
    DTYPES,
    File,
    Read,
    Weigh,
    Weighed,
    tensor_root,
    weigh_plain,
)
from registry.documents.canonical import digest, sha256_hex
from registry.errors import BundleRejected, Defect, Invalid, Unverified

__all__ = [
    "BaseFacts",
    "File",
    "Finding",
    "Inspected",
    "Inspector",
    "Kind",
    "NamedBase",
    "Read",
    "base_facts",
    "by_name",
    "footprint",
    "inspect",
    "manifest_of",
    "unstated",
    "without_docs",
]
TRAIN_AGAIN = (
    "Check the training: every lora_B starts at zero, and stays there if no step ran or no "
    "gradient arrived. Train again, and save the adapter afterwards."
)
REQUIRED_META: dict[Kind, tuple[str, ...]] = {
    "base": ("licence", "source"),
    "adapter": ("domain", "purpose"),
    "checkpoint": ("licence", "purpose"),
}

QUANTISED_ONLY = "quantised_only"
"""The key of the metadata that says that a base was published only in quantised form."""


@dataclass(frozen=True, slots=True)
class Inspected:
    """The outcome of an inspection; a root is None where a defect leaves it without meaning.

    `files` are the files to store, which the manifest lists. `rewritten` are the bytes of an
    adapter's configuration if they differ from the received ones. `unbound_digest` is the digest
    the manifest would have if the adapter were bound to no base. `former_base_root` is the base
    root as it was before it included a tokenizer without a tokenizer.json: bases registered then
    keep it, because adapters name it. `named_base` is what an adapter's configuration calls its
    base.
    """

    files: list[File]
    rewritten: bytes | None
    manifest: list[dict[str, Any]]
    manifest_digest: str
    unbound_digest: str
    tensor_root: str | None
    base_root: str | None
    facts: dict[str, Any]
    defects: list[Defect]
    findings: list[Finding]
    former_base_root: str | None = None
    named_base: NamedBase | None = None

    def is_base(self, root: str | None) -> bool:
        """Whether this is the base with that root, present or former."""
        return root is not None and root in (self.base_root, self.former_base_root)


@dataclass(frozen=True, slots=True)
class Inspector:
    """What an inspection works with: `read` for blobs, `weigh` for weights, `judge` for templates.

    Without `weigh`, `weigh_plain` is used. `judge` runs chat templates outside of this process;
    without it they are not run.
    """

    read: Read
    weigh: Weigh | None = None
    judge: Judge | None = None

    def inspect(
        self,
        kind: Kind,
        files: Sequence[File],
        *,
        base: BaseFacts | None,
        meta: Mapping[str, Any],
    ) -> Inspected:
        """Check a bundle against every rule: what it is, all its defects, and what is missing.

        `base` is the base model an adapter is bound to; None leaves a finding. A `base_root` in
        `meta` names the root the adapter was trained on, which must be that base's. The caller
        includes the line's `domain` in `meta`. Weights are read whole once, in pieces, and only
        when there is no defect so far.
        """
        bundle = read_bundle(kind, files, self.read)
        facts = _counts(bundle)
        config = named = None
        if kind == "adapter":
            adapter_facts, config, named = _inspect_adapter(bundle, base, meta)
            facts |= adapter_facts
        else:
            facts |= full_models.inspect_full(bundle)
        facts |= bindings.check(bundle, base.texts if base else None, self.judge)
        weighed = self._weighed(bundle)
        roots = _roots(bundle, weighed, base)
        findings = _findings(bundle, base, meta)
        if config is not None and base is not None and not bundle.defects:
            effect = _effect(bundle, config, base, weighed)
            facts["effect"] = effect.facts()
            facts["risks"] = [*effect.risks(), *facts.get("risks", [])]
            if effect.nothing:
                findings.append(Finding("effect", effect.risks()[0], TRAIN_AGAIN, blocks=False))
        if not bundle.defects and (large := overflow(bundle, base, weighed)) is not None:
            facts["risks"] = [large.detail, *facts.get("risks", [])]
            findings.append(large)
        received, unbound = list(files), digest(manifest_of(files))
        stored, rewritten = received, None
        if config is not None and not bundle.defects:
            original = bundle.files[CONFIG]
            unbound_config = adapters.written(config, None, None)
            unbound = digest(manifest_of(_with_config(files, unbound_config)))
            facts |= {"uploaded_config": f"sha256:{original.sha256}", "unbound_manifest": unbound}
            bound_config = adapters.written(
                config, base.repository if base else None, base.commit if base else None
            )
            stored = _with_config(files, bound_config)
            rewritten = None if sha256_hex(bound_config) == original.sha256 else bound_config
        manifest = manifest_of(stored)
        return Inspected(
            files=stored,
            rewritten=rewritten,
            manifest=manifest,
            manifest_digest=digest(manifest),
            unbound_digest=unbound,
            tensor_root=roots.tensors,
            base_root=roots.base,
            facts=facts,
            defects=bundle.defects.listed(),
            findings=findings,
            former_base_root=roots.former_base,
            named_base=named,
        )

    def _weighed(self, bundle: Bundle) -> dict[str, Weighed]:
        """What the weights of a bundle hold, by path; nothing is read if it has a defect."""
        return {} if bundle.defects else _weigh(bundle, self.weigh or weigh_plain(self.read))


@dataclass(frozen=True, slots=True)
class _Roots:
    tensors: str | None = None
    base: str | None = None
    former_base: str | None = None


def _roots(bundle: Bundle, weighed: Mapping[str, Weighed], base: BaseFacts | None) -> _Roots:
    """The roots of a bundle that has no defect so far."""
    if bundle.defects:
        return _Roots()
    try:
        root = tensor_root(
            [(header.tensors, weighed[path]) for path, header in bundle.weights.items()]
        )
        if bundle.kind == "adapter":
            return _Roots(root, base.base_root if base else None)
        return _Roots(
            root,
            full_models.base_root(bundle, root),
            None
            if FAST_TOKENIZER in bundle.files
            else full_models.base_root(bundle, root, former=True),
        )
    except Invalid as error:
        bundle.unread(bundle.files["config.json"], error)
        return _Roots()


def _effect(
    bundle: Bundle, config: adapters.Config, base: BaseFacts, weighed: Mapping[str, Weighed]
) -> effects.Effect:
    """What an adapter changes, from the zeros that were counted while its weights were hashed."""
    own = stored_tensors(bundle)
    zero = {name for each in weighed.values() for name in each.zero}
    parts = config.method.parts(config.values, own)
    return effects.effect(parts, zero, own, base.tensors, bundle.read)


def stored_tensors(bundle: Bundle) -> dict[str, effects.Stored]:
    """Where each tensor of a bundle is stored, by name."""
    return {
        info.name: (bundle.files[path], info)
        for path, header in bundle.weights.items()
        for info in header.tensors
    }


def inspect(
    kind: Kind,
    files: Sequence[File],
    read: Read,
    *,
    base: BaseFacts | None,
    meta: Mapping[str, Any],
) -> Inspected:
    """Inspect a bundle with the plain weigher and without running its chat templates."""
    return Inspector(read).inspect(kind, files, base=base, meta=meta)


def by_name(kind: Kind, files: Sequence[File]) -> list[Defect]:
    """The defects of the files' names, number and sizes, before any of their bytes are there."""

    def unsent(sha256: str, start: int, length: int) -> bytes:
        raise KeyError(sha256)

    bundle = Bundle(kind, unsent)
    choose(bundle, files)
    return bundle.defects.listed()


def manifest_of(files: Sequence[File]) -> list[dict[str, Any]]:
    """Path, SHA-256 and size of every file, sorted by path.

    A version's digest, and so its commit id, is computed over this list.
    """
    return [
        {"path": file.path, "sha256": file.sha256, "size": file.size}
        for file in sorted(files, key=lambda file: file.path)
    ]


def _with_config(files: Sequence[File], config: bytes) -> list[File]:
    written = File(CONFIG, sha256_hex(config), len(config))
    return [written if file.path == CONFIG else file for file in files]


def _weigh(bundle: Bundle, weigh: Weigh) -> dict[str, Weighed]:
    """Read every byte of the weights, and check their digests and that every number is finite."""
    weighed_by_path = {}
    for path, header in bundle.weights.items():
        file = bundle.files[path]
        try:
            weighed = weighed_by_path[path] = weigh(file, header.tensors)
        except Unverified as error:
            bundle.unread(file, error)
            continue
        if weighed.sha256 != file.sha256:
            bundle.wrong(
                path,
                "",
                "bytes-changed",
                f"the bytes are sha256:{weighed.sha256}, not sha256:{file.sha256}",
                "Upload the file again; its stored bytes are damaged.",
            )
        for name in weighed.nonfinite:
            bundle.wrong(
                path,
                name,
                "non-finite",
                "it holds NaN or infinity, so every result computed from it is meaningless",
                "Find the step at which training diverged, and save weights from before it.",
            )
    return weighed_by_path


def base_facts(files: Sequence[File], read: Read, *, base_root: str | None = None) -> BaseFacts:
    """The facts of a registered base; a known `base_root` saves reading all weights again.

    Raises BundleRejected when the bytes are no longer a sound base.
    """
    files = without_docs(files)
    if base_root is None:
        inspected = inspect("base", files, read, base=None, meta={})
        if inspected.base_root is None:
            raise BundleRejected(inspected.defects)
        base_root = inspected.base_root
    bundle = read_bundle("base", files, read, judged=True)
    if bundle.defects:
        raise BundleRejected(bundle.defects.listed())
    return BaseFacts(
        base_root,
        logical_shapes(bundle),
        bundle.documents["config.json"],
        texts=texts_of(bundle),
        tensors=stored_tensors(bundle),
    )


def without_docs(files: Sequence[File]) -> list[File]:
    """The files that decide how a bundle answers.

    A readme or licence that was accepted before the rules on texts existed must not refuse a base.
    """
    return [file for file in files if file.path not in DOCS]


def _counts(bundle: Bundle) -> dict[str, Any]:
    """Tensors, stored parameters (tied weights count once), and parameters by type."""
    sizes: Counter[str] = Counter()
    for header in bundle.weights.values():
        for info in header.tensors:
            sizes[info.dtype] += info.end - info.start
    by_dtype = {dtype: size // DTYPES[dtype] for dtype, size in sizes.items()}
    return {
        "tensors": sum(len(header.tensors) for header in bundle.weights.values()),
        "parameters": sum(by_dtype.values()),
        "dtypes": dict(sorted(by_dtype.items())),
    }


def _inspect_adapter(
    bundle: Bundle, base: BaseFacts | None, meta: Mapping[str, Any]
) -> tuple[dict[str, Any], adapters.Config | None, NamedBase | None]:
    """Check an adapter's configuration, and that its tensors fit the base it is bound to.

    Returns its facts, its configuration, and what that calls the base.
    """
    for path in (CONFIG, ADAPTER_WEIGHTS):
        if path not in bundle.files:
            bundle.wrong(
                path,
                "",
                "file-missing",
                f"there is no {path}",
                "Save the adapter with save_pretrained.",
            )
    document = bundle.documents.get(CONFIG)
    named = None
    if base:
        _check_binding(bundle, base, meta.get("base_root"))
        if name := adapters.named_base(document):
            named = NamedBase(*name, base)
    if document is None:
        return {}, None, named
    config, defects = adapters.read_config(document)
    bundle.defects.extend(defects)
    if config is None:
        return {}, None, named
    config = adapters.untied(
        config, document, base is not None and anatomies.is_tied(base.shapes, base.config)
    )
    facts = fits.facts_of(config) | {"trainable_parameters": _counts(bundle)["parameters"]}
    if base and ADAPTER_WEIGHTS in bundle.weights:
        tensors = bundle.weights[ADAPTER_WEIGHTS].tensors
        view = heads.view(config.values, [info.name for info in tensors], base.shapes, base.config)
        fit = fits.fit(ADAPTER_WEIGHTS, config, tensors, view)
        bundle.defects.extend(fit.defects)
        if fit.defects and (method := quantisation_of(base.config)):
            bundle.wrong(
                CONFIG,
                "base",
                "base-mismatch",
                f"the base's weights are quantised ({method}), and not every packing is known here",
                "Register the original as the base, and bind the adapter to it.",
            )
        facts |= fit.facts
    return facts, config, named


def _check_binding(bundle: Bundle, base: BaseFacts, trained_on: Any) -> None:
    """Require that the adapter was trained on this base's root, or on a verified quantisation.

    Equal shapes are not enough.
    """
    verified = [root for root, known in base.quantisations.items() if known.verified]
    if trained_on and trained_on not in (base.base_root, *verified):
        bundle.wrong(
            CONFIG,
            "base",
            "base-mismatch",
            f"the adapter was trained on base root {trained_on}, but is to be bound to "
            f"{base.base_root}",
            NAME_THE_BASE,
        )


def unstated(
    kind: Kind, meta: Mapping[str, Any], then: str = "add the same files again"
) -> list[Finding]:
    """What `meta` must still say before a version of this kind leaves the draft state."""
    return list(statements.unstated(REQUIRED_META[kind], meta, then))


def _findings(bundle: Bundle, base: BaseFacts | None, meta: Mapping[str, Any]) -> list[Finding]:
    findings = missing_facts(bundle.kind, base is not None, meta)
    method = quantisation_of(bundle.documents.get("config.json") or {})
    if bundle.kind == "base" and method and meta.get(QUANTISED_ONLY) is not True:
        findings.append(
            Finding(
                QUANTISED_ONLY,
                f"its weights are quantised ({method}): adapters belong to the original, which can "
                "also be served at full precision",
                "Register the original as the base, and these files with: countersign checkpoint "
                f"add DIR --quantised-of ORIGINAL. If there is no original, say {QUANTISED_ONLY}: "
                "true in the meta file and add the same files again.",
            )
        )
    return findings


def missing_facts(kind: Kind, has_base: bool, meta: Mapping[str, Any]) -> list[Finding]:
    """What a version still lacks before it gets a number; the same for the same facts."""
    findings = unstated(kind, meta)
    if kind == "adapter" and not has_base:
        findings.insert(
            0,
            Finding(
                "base",
                "the adapter is bound to no base model, so its tensors were not checked",
                "Name the base with --base team/name@v1 and add the same files again.",
            ),
        )
    return findings
