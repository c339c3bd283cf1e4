"""What a bundle is: its manifest, its roots, its facts, everything wrong with it, and what is still
missing.

Nothing is trusted by its name, and an adapter must fit its base tensor by tensor; its configuration
is kept as we write it, not as it came. Defects refuse a bundle; findings (missing descriptions)
leave it a draft.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from registry.artifacts.bundles import bindings
from registry.artifacts.bundles.bindings import WHOLLY, Texts
from registry.artifacts.bundles.files import (
    ADAPTER_WEIGHTS,
    BASE_WEIGHTS,
    DOCS,
    INDEX,
    PREPROCESSING,
    Bundle,
    Kind,
    choose,
    footprint,
    is_weights,
    read_bundle,
)
from registry.artifacts.contents import CLASS
from registry.artifacts.defects import Defects
from registry.artifacts.methods import adapters, fits, heads
from registry.artifacts.methods.configs import FILE as CONFIG
from registry.artifacts.tokenizers import chat_templates
from registry.artifacts.tokenizers.chat_templates import Judge
from registry.artifacts.weights.tensors import (
    DTYPES,
    File,
    Read,
    Weigh,
    Weighed,
    repeated,
    tensor_root,
    weigh_plain,
)
from registry.documents import canonical
from registry.documents.canonical import digest, sha256_hex
from registry.errors import BundleRejected, Defect, Invalid, Unverified

__all__ = [
    "BaseFacts",
    "File",
    "Finding",
    "Inspected",
    "Kind",
    "NamedBase",
    "Read",
    "base_facts",
    "by_name",
    "footprint",
    "inspect",
    "manifest_of",
    "without_docs",
]
NAME_THE_BASE = "Name the base it was trained on."
REQUIRED_META: dict[Kind, tuple[str, ...]] = {
    "base": ("licence", "source"),
    "adapter": ("domain", "purpose"),
    "checkpoint": ("licence", "purpose"),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something a person must still supply; the bundle stays a draft until then."""

    field: str
    detail: str
    fix: str


@dataclass(frozen=True, slots=True)
class BaseFacts:
    """What an adapter is held against: the base's root, the shape of each of its tensors by name,
    its config.json, its texts.

    `line` and `commit` are the registered version's `team/name` and commit id, which an adapter's
    configuration is written to name; None where a base is looked at outside of a registry.
    """

    base_root: str
    shapes: dict[str, tuple[int, ...]]
    config: Mapping[str, Any] = field(default_factory=dict)
    line: str | None = None
    commit: str | None = None
    texts: Texts | None = None


@dataclass(frozen=True, slots=True)
class NamedBase:
    """What an adapter's configuration calls its base, and the root of the base it is to be bound
    to.

    Only the registry knows which of its bases a name may mean, so whoever registers the adapter
    asks it and then this for `defects`.
    """

    name: str
    revision: str | None
    bound_to: str

    def defects(self, roots: Collection[str]) -> list[Defect]:
        """What is wrong when the name means other bases; `roots` are those it may mean.

        There are none where it names nothing registered, such as a folder or a model of another
        hub: then nothing is wrong.
        """
        wrong = Defects()
        if roots and self.bound_to not in roots:
            name = self.name if self.revision is None else f"{self.name} at {self.revision}"
            wrong.append(
                Defect(
                    CONFIG,
                    "base_model_name_or_path",
                    "base-mismatch",
                    f"it names the registered base {name[:200]}, whose base root is "
                    f"{', '.join(sorted(roots)[:3])}, but is to be bound to {self.bound_to}",
                    NAME_THE_BASE,
                )
            )
        return wrong.listed()


@dataclass(frozen=True, slots=True)
class Inspected:
    """The outcome of an inspection; the roots are None where a defect leaves them without meaning.

    `files` are what is kept and what the manifest is over. `rewritten` are the bytes of an
    adapter's configuration where they differ from those that came; `unbound_digest` is the
    manifest's digest were the adapter bound to no base. `former_base_root` is what the base root
    was before a tokenizer without a tokenizer.json entered it: bases registered then keep it, for
    adapters name it. `named_base` is what an adapter's configuration calls its base.
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
        """Is this the base of that root, as it is or as it was?"""
        return root is not None and root in (self.base_root, self.former_base_root)


def inspect(
    kind: Kind,
    files: Sequence[File],
    read: Read,
    *,
    base: BaseFacts | None,
    meta: Mapping[str, Any],
    weigh: Weigh | None = None,
    judge: Judge | None = None,
) -> Inspected:
    """Hold a bundle against every rule and say all that is wrong with it, what it is, and what is
    still missing.

    `base` is the base model an adapter is bound to (None leaves a finding); a `base_root` in `meta`
    says on which root it was trained, and must be that base's. The caller lays the line's `domain`
    into `meta`. Weights are read once whole, in pieces, and only when nothing else is wrong;
    `weigh` reads them (the plain one unless told otherwise). `judge` looks at chat templates, which
    is never done in this process.
    """
    bundle = read_bundle(kind, files, read)
    config = named = None
    if kind == "adapter":
        facts, config, named = _inspect_adapter(bundle, base, meta)
    else:
        facts = _inspect_full(bundle)
    facts |= bindings.check(bundle, base.texts if base else None, judge)
    root = base_root = former = None
    if not bundle.defects:
        weighed = _weigh(bundle, weigh or weigh_plain(read))
    if not bundle.defects:
        try:
            root = tensor_root(
                [(header.tensors, weighed[path]) for path, header in bundle.weights.items()]
            )
            base_root = (
                (base.base_root if base else None)
                if kind == "adapter"
                else _base_root(bundle, root)
            )
            former = (
                None
                if kind == "adapter" or WHOLLY in bundle.files
                else _base_root(bundle, root, former=True)
            )
        except Invalid as error:
            root = None
            bundle.unread(bundle.files["config.json"], error)
    kept, rewritten = list(files), None
    unbound = digest(manifest_of(files))
    if config is not None and not bundle.defects:
        came = bundle.files[CONFIG]
        unbound = digest(manifest_of(_with_config(files, adapters.written(config, None, None))))
        facts |= {"uploaded_config": f"sha256:{came.sha256}", "unbound_manifest": unbound}
        mine = adapters.written(config, base.line if base else None, base.commit if base else None)
        kept = _with_config(files, mine)
        rewritten = None if sha256_hex(mine) == came.sha256 else mine
    manifest = manifest_of(kept)
    findings = _findings(kind, base, meta)
    return Inspected(
        kept,
        rewritten,
        manifest,
        digest(manifest),
        unbound,
        root,
        base_root,
        facts,
        bundle.defects.listed(),
        findings,
        former,
        named,
    )


def by_name(kind: Kind, files: Sequence[File]) -> list[Defect]:
    """What is wrong with the files' names, number and sizes: what can be said before any byte of
    them is there.
    """

    def unsent(sha256: str, start: int, length: int) -> bytes:
        raise KeyError(sha256)

    bundle = Bundle(kind, unsent)
    choose(bundle, files)
    return bundle.defects.listed()


def manifest_of(files: Sequence[File]) -> list[dict[str, Any]]:
    """Every file's path, SHA-256 and size, by path: what a version's digest, and so its commit id,
    is taken of.
    """
    return [
        {"path": file.path, "sha256": file.sha256, "size": file.size}
        for file in sorted(files, key=lambda file: file.path)
    ]


def _with_config(files: Sequence[File], config: bytes) -> list[File]:
    made = File(CONFIG, sha256_hex(config), len(config))
    return [made if file.path == CONFIG else file for file in files]


def _weigh(bundle: Bundle, weigh: Weigh) -> dict[str, Weighed]:
    """Read every byte of the weights: they are what they are declared to be, and every number in
    them is one.
    """
    weighed = {}
    for path, header in bundle.weights.items():
        file = bundle.files[path]
        try:
            found = weighed[path] = weigh(file, header.tensors)
        except Unverified as error:
            bundle.unread(file, error)
            continue
        if found.sha256 != file.sha256:
            bundle.wrong(
                path,
                "",
                "bytes-changed",
                f"the bytes are sha256:{found.sha256}, not sha256:{file.sha256}",
                "Upload the file again; its stored bytes are damaged.",
            )
        for name in found.nonfinite:
            bundle.wrong(
                path,
                name,
                "non-finite",
                "it holds NaN or infinity: whatever it takes part in answers nonsense",
                "Find the step at which training diverged, and save weights from before it.",
            )
    return weighed


def base_facts(files: Sequence[File], read: Read, *, base_root: str | None = None) -> BaseFacts:
    """The facts of a base already registered; its `base_root`, where known, spares reading all
    weights again.

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
        base_root, _shapes(bundle), bundle.documents["config.json"], texts=bindings.texts_of(bundle)
    )


def without_docs(files: Sequence[File]) -> list[File]:
    """The files that make a bundle answer as it does: a readme or licence from before a rule of
    texts hinders nobody.
    """
    return [file for file in files if file.path not in DOCS]


def _shapes(bundle: Bundle) -> dict[str, tuple[int, ...]]:
    return {info.name: info.shape for header in bundle.weights.values() for info in header.tensors}


def _counts(bundle: Bundle) -> dict[str, Any]:
    """Tensors, stored parameters (tied weights count once), and parameters by type."""
    held: Counter[str] = Counter()
    for header in bundle.weights.values():
        for _, dtype, _, start, end in header.tensors:
            held[dtype] += end - start
    by_dtype = {dtype: size // DTYPES[dtype] for dtype, size in held.items()}
    return {
        "tensors": sum(len(header.tensors) for header in bundle.weights.values()),
        "parameters": sum(by_dtype.values()),
        "dtypes": dict(sorted(by_dtype.items())),
    }


def _inspect_full(bundle: Bundle) -> dict[str, Any]:
    """A base model or checkpoint: its configuration, its shards, and what architecture it is."""
    facts = _counts(bundle)
    _check_shards(bundle)
    if "config.json" not in bundle.files:
        bundle.wrong(
            "config.json",
            "",
            "file-missing",
            "there is no config.json",
            "Add the model's config.json.",
        )
        return facts
    config = bundle.documents.get("config.json", {})
    model_type, architectures = config.get("model_type"), config.get("architectures")
    if "config.json" in bundle.documents:
        if not isinstance(model_type, str) or not CLASS.fullmatch(model_type):
            bundle.wrong(
                "config.json",
                "model_type",
                "config-value",
                "model_type is no name",
                "Save the model again.",
            )
        if (
            not isinstance(architectures, list)
            or not architectures
            or not all(map(_named, architectures))
        ):
            bundle.wrong(
                "config.json",
                "architectures",
                "config-value",
                "architectures is no list of class names",
                "Save the model again from its model class.",
            )
        else:
            facts |= {"architecture": architectures[0], "model_type": model_type}
    return facts


def _named(value: Any) -> bool:
    return isinstance(value, str) and CLASS.fullmatch(value) is not None


def _check_shards(bundle: Bundle) -> None:
    """Either one file, or every shard of one set with an index that says truly where each tensor
    lies.
    """
    paths = [path for path in bundle.files if is_weights(bundle.kind, path)]
    if not paths:
        bundle.wrong(
            "model.safetensors",
            "",
            "file-missing",
            "there are no weights",
            "Add model.safetensors, or its shards with their index.",
        )
        return
    numbers = sorted(
        tuple(map(int, match.groups(default="0")))
        for path in paths
        if (match := BASE_WEIGHTS.fullmatch(path))
    )
    if numbers != [(0, 0)]:
        if numbers != [(n, len(paths)) for n in range(1, len(paths) + 1)]:
            bundle.wrong(
                paths[0],
                "",
                "shards-incomplete",
                f"the {len(paths)} weight files are not one whole set",
                "Give one model.safetensors, or all shards of one set.",
            )
        if INDEX not in bundle.files:
            bundle.wrong(
                INDEX,
                "",
                "file-missing",
                "there are shards but no index",
                "Add the index of the shards.",
            )
    if len(bundle.weights) != len(paths):
        return  # a shard that could not be read has its own defects
    lies = [(info.name, path) for path, header in bundle.weights.items() for info in header.tensors]
    for name in repeated(name for name, _ in lies):
        bundle.wrong(
            paths[0],
            name,
            "duplicate-tensor",
            "two shards hold a tensor of this name",
            "Keep one of them.",
        )
    if INDEX in bundle.documents:
        index = bundle.documents[INDEX]
        if not isinstance(index, dict) or index.get("weight_map") != dict(lies):
            bundle.wrong(
                INDEX,
                "weight_map",
                "index-mismatch",
                "it does not say truly which file holds which tensor",
                "Write the index again from the shards.",
            )


def _base_root(bundle: Bundle, root: str, *, former: bool = False) -> str:
    """One digest over all that makes a base answer as it does: tensors, configuration, tokenizer,
    chat template.

    What prepares its images and sound is named only where there is any: roots from before it was
    accepted stay.
    """
    prepares = {
        path: sha256_hex(bindings.written(bundle.documents[path]))
        for path in sorted(PREPROCESSING & set(bundle.files))
    }
    template = chat_templates.named(bundle.documents)
    return digest(
        {
            "tensor_root": root,
            "config": sha256_hex(
                canonical.encode(bundle.documents["config.json"], large_floats=True)
            ),
            "tokenizer": None
            if former
            else bindings.tokenizer_identity(
                {path: file.sha256 for path, file in bundle.files.items()}, bundle.documents
            ),
            "chat_template": None
            if template is None
            else sha256_hex(template.encode("utf-8", "surrogatepass")),
            **({"preprocessing": prepares} if prepares else {}),
        }
    )


def _inspect_adapter(
    bundle: Bundle, base: BaseFacts | None, meta: Mapping[str, Any]
) -> tuple[dict[str, Any], adapters.Config | None, NamedBase | None]:
    """An adapter: a configuration that cannot run anything, and tensors that fit the base it is
    bound to; and what it calls that base.
    """
    facts = _counts(bundle)
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
            named = NamedBase(*name, base.base_root)
    if CONFIG not in bundle.documents:
        return facts, None, named
    config, defects = adapters.read_config(document)
    bundle.defects.extend(defects)
    if config is None:
        return facts, None, named
    facts |= fits.facts_of(config) | {"trainable_parameters": facts["parameters"]}
    if base and ADAPTER_WEIGHTS in bundle.weights:
        tensors = bundle.weights[ADAPTER_WEIGHTS].tensors
        seen = heads.view(config.values, [info.name for info in tensors], base.shapes, base.config)
        fit = fits.fit(ADAPTER_WEIGHTS, config, tensors, seen)
        bundle.defects.extend(fit.defects)
        facts |= fit.facts
    return facts, config, named


def _check_binding(bundle: Bundle, base: BaseFacts, trained_on: Any) -> None:
    """A base of the same shapes is not the same base: the root it was trained on must be this
    one's.
    """
    if trained_on and trained_on != base.base_root:
        bundle.wrong(
            CONFIG,
            "base",
            "base-mismatch",
            f"the adapter was trained on base root {trained_on}, but is to be "
            f"bound to {base.base_root}",
            NAME_THE_BASE,
        )


def _findings(kind: Kind, base: BaseFacts | None, meta: Mapping[str, Any]) -> list[Finding]:
    findings = [
        Finding(
            name,
            f"{name} is missing",
            f"Give {'--domain, or domain' if name == 'domain' else name} in the meta file and add "
            "the same files again.",
        )
        for name in REQUIRED_META[kind]
        if not str(meta.get(name) or "").strip()
    ]
    if kind == "adapter" and base is None:
        findings.insert(
            0,
            Finding(
                "base",
                "the adapter is bound to no base model, so its tensors were not checked",
                "Name the base with --base team/name@v1 and add the same files again.",
            ),
        )
    return findings
