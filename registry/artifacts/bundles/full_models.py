"""Full weights, of a base model or a checkpoint: configuration, shards and base root."""

from __future__ import annotations

from typing import Any

from registry.artifacts.bundles import bindings
from registry.artifacts.bundles.files import Bundle
from registry.artifacts.bundles.names import BASE_WEIGHTS, INDEX, PREPROCESSING, is_weights
from registry.artifacts.contents import CLASS
from registry.artifacts.tokenizers import chat_templates
from registry.artifacts.weights.tensors import repeated
from registry.documents import canonical
from registry.documents.canonical import digest, sha256_hex
from registry.documents.differences import written


def shapes_of(bundle: Bundle) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor by name."""
    return {info.name: info.shape for header in bundle.weights.values() for info in header.tensors}


def inspect_full(bundle: Bundle) -> dict[str, Any]:
    """Check the configuration and the shards of full weights, and return the architecture."""
    _check_shards(bundle)
    if "config.json" not in bundle.files:
        bundle.wrong(
            "config.json",
            "",
            "file-missing",
            "there is no config.json",
            "Add the model's config.json.",
        )
        return {}
    if "config.json" not in bundle.documents:
        return {}  # it could not be read, which is a defect already
    config = bundle.documents["config.json"]
    model_type, architectures = config.get("model_type"), config.get("architectures")
    if not _is_class_name(model_type):
        bundle.wrong(
            "config.json",
            "model_type",
            "config-value",
            "model_type is not a name",
            "Save the model again.",
        )
    if (
        not isinstance(architectures, list)
        or not architectures
        or not all(map(_is_class_name, architectures))
    ):
        bundle.wrong(
            "config.json",
            "architectures",
            "config-value",
            "architectures is not a list of class names",
            "Save the model again from its model class.",
        )
        return {}
    return {"architecture": architectures[0], "model_type": model_type}


def _is_class_name(value: Any) -> bool:
    return isinstance(value, str) and CLASS.fullmatch(value) is not None


def _check_shards(bundle: Bundle) -> None:
    """Require one file, or every shard of one set with an index that matches the shards."""
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
        if numbers != [(number, len(paths)) for number in range(1, len(paths) + 1)]:
            bundle.wrong(
                paths[0],
                "",
                "shards-incomplete",
                f"the {len(paths)} weight files are not one complete set",
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
    places = [
        (info.name, path) for path, header in bundle.weights.items() for info in header.tensors
    ]
    for name in repeated(name for name, _ in places):
        bundle.wrong(
            paths[0],
            name,
            "duplicate-tensor",
            "two shards hold a tensor with this name",
            "Keep one of them.",
        )
    if INDEX in bundle.documents:
        index = bundle.documents[INDEX]
        if not isinstance(index, dict) or index.get("weight_map") != dict(places):
            bundle.wrong(
                INDEX,
                "weight_map",
                "index-mismatch",
                "it does not match the files that hold the tensors",
                "Write the index again from the shards.",
            )


def base_root(bundle: Bundle, tensor_root: str, *, former: bool = False) -> str:
    """One digest over everything that makes a base answer as it does.

    It covers the tensors, the configuration, the tokenizer and the chat template. Files that
    prepare images and sound are included only where there are any, so that roots from before such
    files were accepted stay the same. `former` leaves out the tokenizer, as roots did before a
    tokenizer without a tokenizer.json was accepted.

    Raises Invalid (`not-canonical`) when the configuration has no canonical form.
    """
    preprocessing = {
        path: sha256_hex(written(bundle.documents[path]))
        for path in sorted(PREPROCESSING & set(bundle.files))
    }
    template = chat_templates.named(bundle.documents)
    digests = {path: file.sha256 for path, file in bundle.files.items()}
    tokenizer = None if former else bindings.tokenizer_identity(digests, bundle.documents)
    config = canonical.encode(bundle.documents["config.json"], large_floats=True)
    return digest(
        {
            "tensor_root": tensor_root,
            "config": sha256_hex(config),
            "tokenizer": tokenizer,
            "chat_template": None
            if template is None
            else sha256_hex(template.encode("utf-8", "surrogatepass")),
            **({"preprocessing": preprocessing} if preprocessing else {}),
        }
    )
