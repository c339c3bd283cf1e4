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
from dataclasses import dataclass
from typing import Any

from registry.artifacts.bundles.names import Kind, is_weights
from registry.artifacts.defects import shown
from registry.errors import Defect

NAMED = {
    "the value head of a reward model or of PPO": r"(?:value|v|reward|score)_?head",
    "embeddings of new tokens": r"new_embeddings|(?:trained|trainable|added)_(?:tokens|embeddings)",
    "the weights of a multimodal model outside of its adapter": (
        r"non_lora_(?:trainables|state_dict)"
    ),
    "the projector of a multimodal model": r"mm_projector|multi_?modal_projector|projector",
    "a classifier or another head": r"classifier|(?:lm|cls|classification)_head|score",
}
"""What a companion is -> the names without their ends that it has, in any letter case."""
WEIGHTS = re.compile(r"(.+)\.(safetensors|bin|pt|pth|pkl|ckpt|npz|npy|h5|msgpack)", re.IGNORECASE)
"""Forms in which weights are saved: the name without its end, and the end."""
OTHER_DATA = frozenset({"pkl", "npz", "npy", "h5", "msgpack"})
"""Forms that are as often something else: only a name that is known makes them weights."""
TRAINING = re.compile(
    r"training_args|(?:paged_)?optimi[sz]er.*|.*optim_states|scheduler.*|lr_scheduler.*|scaler.*"
    r"|rng_state.*|random_states.*|.*rng.*state.*|trainer_state.*|training_state.*|train_state.*"
    r"|recipe_state|sampler.*|dl_state_dict.*|dataloader.*|.*_model_states|pytorch_model_fsdp.*"
    r"|global_step.*|tokeni[sz]ed.*|dataset.*|loss.*|metrics.*|args|custom_checkpoint.*",
    re.IGNORECASE,
)
"""Names without their ends of what a trainer saves only to go on training."""
FOLDERS = re.compile(
    r"checkpoint[-_].*|global_step.*|runs|logs?|wandb|mlruns|tensorboard|ref|reference|optimizer.*"
    r"|scheduler.*|pytorch_model_fsdp.*|original|onnx|coreml|openvino|tmp.*|\..*",
    re.IGNORECASE,
)
"""Folders of training, of another adapter, or of the weights in another form."""
SAME_ADAPTER = frozenset({"adapter_model.bin", "adapter_model.pt"})
"""The adapter itself as a pickle, which older releases of PEFT wrote."""
MAX_KEPT = 200
"""How many names of left-out files a version keeps."""
MAX_TEXT = 200


@dataclass(frozen=True, slots=True)
class LeftOutFile:
    """A file beside a bundle that is not sent: its path, its size in bytes, and why.

    `asked` says that a person named it and accepts to go without.
    """

    path: str
    size: int
    why: str
    asked: bool = False


def companion(kind: Kind, path: str) -> str | None:
    """What a file beside a bundle of this kind holds if that may belong to the model, else None."""
    folder, _, name = path.rpartition("/")
    match = WEIGHTS.fullmatch(name)
    if match is None or FOLDERS.fullmatch(folder.partition("/")[0]):
        return None
    stem = match[1]
    if what := next(
        (what for what, names in NAMED.items() if re.fullmatch(names, stem, re.I)), None
    ):
        return what
    if kind != "adapter":
        return None  # full weights are often beside themselves in several forms
    if match[2].lower() in OTHER_DATA or TRAINING.fullmatch(stem) or name in SAME_ADAPTER:
        return None
    if is_weights("base", name) or stem.startswith("pytorch_model"):
        return "full weights, or modules that were trained beside the adapter"
    if stem.startswith("adapter_model"):
        return "a further part of the adapter's weights"
    return "weights that are not in the adapter"


def undeclared(kind: Kind, left_out: Sequence[LeftOutFile]) -> list[Defect]:
    """A defect for each companion that nobody asked to leave out."""
    return [
        refusal(kind, file.path, what)
        for file in left_out
        if not file.asked and (what := companion(kind, file.path)) is not None
    ]


def refusal(kind: Kind, path: str, what: str) -> Defect:
    """The defect of a companion, which says how to go on with it or without it."""
    asked = shlex.quote(path.partition("/")[0])
    return Defect(
        path,
        "",
        "companion-weights",
        f"its name says that it holds {what}; without it, the rest is another model",
        "If the model needs it, merge it (merge_and_unload, save_pretrained) and register a "
        f"checkpoint. If not, say so: countersign {kind} import DIR --leave-out {asked}",
    )


def facts(kind: Kind, left_out: Sequence[LeftOutFile]) -> dict[str, Any]:
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
