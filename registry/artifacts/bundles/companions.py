"""Files beside a bundle that may hold weights which belong to it.

A reward model's value head, new embeddings or a multimodal projector stay outside of the adapter
that PEFT saves; without them it is another model. What a trainer keeps only to go on training is
known by name and left out. Weights that are not known here are taken for a part of the model: who
leaves them out must say so, and the version keeps that.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import Any

from registry.artifacts.bundles.names import Kind, is_weights, plain
from registry.artifacts.defects import shown
from registry.artifacts.methods.configs import FILE as CONFIG
from registry.errors import Defect
from registry.views.imports import LeftOut

NAMED = {
    "the value head of a reward model or of PPO": r"(?:value|v|reward|score)_?head",
    "embeddings of new tokens": (
        r"(?:new|learned|prompt)_embed(?:ding)?s"
        r"|(?:trained|trainable|added)_(?:tokens|embeddings)"
    ),
    "the weights of a multimodal model outside of its adapter": (
        r"non_lora_(?:trainables|state_dict)"
    ),
    "the projector of a multimodal model": r"mm_projector|multi_?modal_projector|projector",
    "a classifier or another head": r"classifier|(?:.+_)?heads?|score",
}
"""What a companion is -> the plain names (see `_plain_stem`) that it or its folder has."""
WEIGHTS = re.compile(
    r"(.+)\.(safetensors|bin|pt|pth|ckpt|pdparams|tensors|pkl|npz|npy|h5|keras|msgpack|ot|pt2"
    r"|distcp|gguf|ggml|onnx|zip|tar|tgz)(\.(?:gz|bz2|xz|zst|zip))?",
    re.IGNORECASE,
)
"""Forms in which weights are saved: the name without its end, the end, and how it is packed."""
OWN_FORMS = frozenset({"safetensors", "bin", "pt", "pth", "ckpt", "pdparams", "tensors"})
"""Forms that hold weights under any name; the others are as often something else."""
SHARD = re.compile(r"[-_]\d+[-_]of[-_]\d+$")
MODULE = re.compile(r"(?:(?:query|document)_)?\d+_[a-z]\w*", re.IGNORECASE)
"""Folders of the modules that sentence-transformers runs after the model, such as `2_Dense`."""
TRAINING = re.compile(
    r"training_args|args|(?:trainer|training|train|recipe)_state|custom_checkpoint_\d+"
    r"|(?:(?:rank\d+_of_\d+_)?(?:paged_)?optimi[sz]er|(?:lr_)?scheduler|scaler|sampler)(?:_\d+)?"
    r"|(?:rng_states?|random_states|dl_state_dict|dataloader)(?:_\d+)?"
    r"|(?:(?:bf16|fp16)_)?(?:zero_pp|expp)_rank_\d+_mp_rank_\d+_(?:optim|model)_states"
    r"|(?:layer_\d+_expert_\d+_)?mp_rank_\d+_(?:optim|model)_states"
    r"|layer_\d+_model_\d+_model_states|pytorch_model_fsdp(?:_\d+)?(?:_rank\d+)?"
    r"|tokeni[sz]ed|dataset|loss(?:es)?|metrics"
)
"""Plain names of what a trainer, accelerate, DeepSpeed or FSDP saves only to go on training.

They are whole names: `loss_head` or `optimizer_value_head` is not one of them.
"""
FOLDERS = re.compile(
    r"checkpoint[-_].*|global_step\d*|runs|logs?|wandb|mlruns|tensorboard|ref|reference"
    r"|optimizer(?:_\d+)?|scheduler|pytorch_model_fsdp(?:_\d+)?|original|onnx|coreml|openvino"
    r"|tmp(?:[-_].*)?|\..*",
    re.IGNORECASE,
)
"""Folders of training, of another adapter, or of the weights in another form.

A name that is known to be a companion's counts in them too.
"""
SAME_ADAPTER = frozenset({"adapter_model.bin", "adapter_model.pt"})
"""The adapter itself as a pickle, which older releases of PEFT wrote."""
LOADED_WITH_IT = "an adapter, which transformers loads with the full weights of its folder"
MAX_KEPT = 200
"""How many names of left-out files a version keeps."""
MAX_TEXT = 200


def companion(kind: Kind, path: str) -> str | None:
    """What a file beside a bundle of this kind holds if that may belong to the model, else None."""
    *folders, name = path.split("/")
    full = kind != "adapter"
    if full and not folders and plain(name).replace("-", "_") == CONFIG:
        return LOADED_WITH_IT
    match = WEIGHTS.fullmatch(name)
    if match is None:
        return None
    stem = _plain_stem(match[1])
    for part in [stem, *map(_plain_stem, folders)]:
        for what, names in NAMED.items():
            if re.fullmatch(names, part):
                return what
    if full:  # full weights are often beside themselves in several forms
        if not folders and stem.startswith("adapter_model"):
            return LOADED_WITH_IT
        return "a module that runs after the model" if _in_module(folders) else None
    known = TRAINING.fullmatch(stem) or (folders and FOLDERS.fullmatch(folders[0]))
    if known or match[2].lower() not in OWN_FORMS or name in SAME_ADAPTER:
        return None
    if is_weights("base", name) or stem.startswith("pytorch_model"):
        return "full weights, or modules that were trained beside the adapter"
    if stem.startswith("adapter_model"):
        return "a further part of the adapter's weights"
    return "weights that are not in the adapter"


def _plain_stem(name: str) -> str:
    """A name as people read it: small letters, `_` for other separators, no number of a shard."""
    return re.sub(r"[-_.\s]+", "_", SHARD.sub("", plain(name))).strip("_")


def _in_module(folders: Sequence[str]) -> bool:
    return bool(folders) and MODULE.fullmatch(folders[0]) is not None


def undeclared(kind: Kind, left_out: Sequence[LeftOut]) -> list[Defect]:
    """A defect for each companion that nobody asked to leave out."""
    return [
        refusal(kind, file.path, what)
        for file in left_out
        if not file.asked and (what := companion(kind, file.path)) is not None
    ]


def refusal(kind: Kind, path: str, what: str) -> Defect:
    """The defect of a companion, which says how to go on with it or without it."""
    if kind == "adapter":
        needed = (
            "If the model needs it, this cannot be registered as an adapter; if it is a part of "
            "LoRA's weights, merge them (merge_and_unload, save_pretrained) and register a "
            "checkpoint."
        )
    elif what == LOADED_WITH_IT:
        needed = "If the model needs it, register it as an adapter of these weights, or merge it."
    else:
        needed = "If the model needs it, it cannot be registered: no form for it is accepted yet."
    return Defect(
        path,
        "",
        "companion-weights",
        f"its name says that it holds {what}; without it, the rest is another model",
        f"{needed} If not, import it again with --leave-out {_quoted(path.partition('/')[0])}",
    )


def _quoted(name: str) -> str:
    """A name as one word of a shell's command that shows what it holds."""
    if name.isprintable():
        return shlex.quote(name)
    letters = (
        letter if letter.isprintable() and letter not in "'\\" else f"\\U{ord(letter):08x}"
        for letter in name
    )
    return f"$'{''.join(letters)}'"


def facts(kind: Kind, left_out: Sequence[LeftOut]) -> dict[str, Any]:
    """What a version keeps of the files that were left out: companions first, then by path."""
    entries = [
        {
            "path": shown(file.path, MAX_TEXT),
            "size": file.size,
            "why": shown(file.why, MAX_TEXT),
            "companion": companion(kind, file.path),
        }
        for file in left_out
    ]
    entries.sort(key=lambda entry: (entry["companion"] is None, entry["path"]))
    more = len(entries) - MAX_KEPT
    return ({"left_out": entries[:MAX_KEPT]} if entries else {}) | (
        {"left_out_more": more} if more > 0 else {}
    )


def declared_before(earlier: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """The facts of a draft that is added again: what it was declared to lack, it still lacks."""
    listed = {entry["path"] for entry in now.get("left_out", [])}
    entries = [
        entry
        for entry in earlier.get("left_out", [])
        if entry["companion"] and entry["path"] not in listed
    ]
    if not entries:
        return now
    kept = {"left_out": [*entries, *now.get("left_out", [])]}
    return now | kept | {"risks": [*risks({"left_out": entries}), *now.get("risks", [])]}


def risks(kept: dict[str, Any]) -> list[str]:
    """What a reviewer should know of the companions among `facts`."""
    return [
        f"high: it was registered without {entry['path']}, which may hold {entry['companion']}"
        for entry in kept.get("left_out", [])
        if entry["companion"]
    ]
