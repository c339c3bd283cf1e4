"""Choose a bundle's files in a folder of PEFT or transformers, or in a Hugging Face snapshot.

Such folders contain more than a bundle may: optimiser states, pickled arguments, weights saved
twice. Files are chosen by name; the registry still judges them by content. Every other file is
listed with the reason why it is left out.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import groupby, islice
from pathlib import Path, PurePosixPath
from typing import Any

from registry.artifacts.bundles.companions import companion
from registry.artifacts.bundles.names import (
    ADAPTER,
    ADAPTER_WEIGHTS,
    FULL,
    INDEX,
    Kind,
    is_weights,
)
from registry.artifacts.contents import REMOTE
from registry.artifacts.methods.configs import FILE as CONFIG
from registry.documents.strict_json import loads
from registry.errors import Invalid, Unverified
from registry.views.imports import LeftOut

SNAPSHOT = re.compile(r"models--(.+?)--(.+)/snapshots/([0-9a-f]{40})")
STORED = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
MLX_WEIGHTS = "adapters.safetensors"
ASKED = "left out as asked"
FOLDER = "a folder: a bundle has no folders"
PICKLED = "a pickle, which runs code when it is loaded"
OTHER_WEIGHTS = {
    "weights for TensorFlow": (".h5", ".tflite"),
    "weights for Flax": (".msgpack",),
    "weights for Rust": (".ot",),
    "weights for ONNX": (".onnx", ".onnx_data"),
    "weights for llama.cpp": (".gguf", ".ggml"),
    "weights for Core ML": (".mlmodel", ".mlpackage"),
    "weights for OpenVINO": (".xml",),
    "weights under another name than model.safetensors or its shards": (".safetensors",),
    PICKLED: (".bin", ".pt", ".pth", ".pkl", ".ckpt"),
}
"""Forms of weights that are not taken, by the ends of their names.

A snapshot often has its weights in several forms.
"""
MAX_INSIDE = 1000
"""How many files of a folder are looked at."""
MAX_FOLDERS_SHOWN = 8
MAX_FRONT_MATTER_BYTES = 64 << 10
MAX_SETTINGS_BYTES = 4 << 20
MAX_ADAPTER_CONFIG_BYTES = 1 << 20
LICENCE = re.compile(r"^license:[ \t]*[\"']?([A-Za-z0-9._-]{1,64})[\"']?[ \t]*$", re.MULTILINE)
REASONS = {
    "training_args.bin": "the training arguments, pickled",
    "trainer_state.json": "the trainer's own state",
    "optimizer.pt": "the optimiser's state",
    "scheduler.pt": "the scheduler's state",
    "chat_template.json": (
        "the chat template in the form of older processors; chat_template.jinja is taken"
    ),
    "quantize_config.json": "the quantiser's own settings, which config.json contains too",
    "quant_config.json": "the quantiser's own settings, which config.json contains too",
    "params.json": "settings of the makers' own loader",
    "original": "a folder: the weights in the makers' own form",
    "onnx": "a folder: weights for ONNX",
    "coreml": "a folder: weights for Core ML",
    "openvino": "a folder: weights for OpenVINO",
    "additional_chat_templates": "a folder of named chat templates; only the default one is kept",
    "1_Pooling": "a folder: the pooling of sentence-transformers, which is not part of the weights",
}
FOR_READERS = (".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp", ".pdf", ".md", ".txt")


@dataclass(slots=True)
class Source:
    """What was chosen: files with their paths in the bundle, what is left out, and its origin.

    `digests` maps paths to the hex SHA-256 that a cache claims, so that a damaged file is detected
    before it is registered.
    """

    name: str
    files: list[tuple[Path, str]] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    meta: dict[str, Any] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """The number of bytes to send."""
        return sum(path.stat().st_size for path, _ in self.files)


def choose(kind: Kind, directory: Path, leave_out: Collection[str] = ()) -> Source:
    """Choose the files of a bundle from a folder, without those named in `leave_out`.

    Raises Invalid for a missing folder, for weights only as pickles or none at all, for a link that
    leads out of the folder, and for a name in `leave_out` that is not in the folder.
    """
    root = _resolved(Path(directory))
    snapshot = SNAPSHOT.search(root.as_posix())
    source = Source(
        f"huggingface:{snapshot[1]}/{snapshot[2]}@{snapshot[3]}"
        if snapshot
        else f"folder:{root.name}"
    )
    cache = root.parents[1] / "blobs" if snapshot else None
    unknown = set(leave_out)
    for path in sorted(root.iterdir()):
        unknown.discard(path.name)
        asked = path.name in leave_out
        if why := ASKED if asked else _not_taken(kind, path):
            source.left_out.append(LeftOut(path.name, why, _size(path), asked))
            source.left_out += _weights_inside(kind, path, asked)
        else:
            _check_link(path, cache)
            if not path.is_file():  # reading a pipe could block forever
                raise Invalid("not-a-file", f"{path} is neither a file nor a folder.")
            source.files.append((path, path.name))
            if cache is not None:
                _check_cached(source, path)
    if unknown:
        raise Invalid(
            "no-such-file",
            f"There is no file {', '.join(sorted(unknown))} in {root}.",
            "Name only files of this folder in --leave-out.",
        )
    _check_weights(kind, root, source)
    _describe(kind, root, source)
    return source


def without_code(source: Source, folder: Path) -> None:
    """Remove the keys by which a loader fetches code; write the changed settings to `folder`.

    Each removed key is listed. Snapshots of architectures that transformers has long built in still
    name the code they began with (Phi-3, DeepSeek-V3). The bytes that are sent then differ from the
    source's, which `meta` records. Raises Invalid for settings that are not strict JSON.
    """
    changed = []
    for number, (path, inside) in enumerate(source.files):
        if not inside.endswith("config.json") or path.stat().st_size > MAX_SETTINGS_BYTES:
            continue
        removed: list[str] = []
        data = path.read_bytes()
        plain = _without_code(loads(data), "", removed)
        if not removed:
            continue
        claimed, digest = source.digests.pop(inside, None), hashlib.sha256(data).hexdigest()
        if claimed not in (None, digest):  # compared now: the changed file has another digest
            raise damaged(path, str(claimed), digest)
        written = folder / inside
        written.write_text(json.dumps(plain, indent=2, ensure_ascii=False) + "\n", "utf-8")
        source.files[number] = (written, inside)
        changed += [f"{inside}: {key}" for key in removed]
    source.left_out += [
        LeftOut(key, "names code; the architecture must be built into transformers")
        for key in changed
    ]
    if changed:
        source.meta["changed"] = changed


def _without_code(node: Any, prefix: str, removed: list[str]) -> Any:
    """Settings without the keys that name code, at any depth; appends those keys to `removed`."""
    if isinstance(node, list):
        return [_without_code(child, prefix, removed) for child in node]
    if not isinstance(node, dict):
        return node
    removed += [prefix + key for key, value in node.items() if key in REMOTE and value]
    return {
        key: _without_code(value, f"{prefix}{key}.", removed)
        for key, value in node.items()
        if key not in REMOTE or not value
    }


def _resolved(root: Path) -> Path:
    """The folder itself or, for a model folder of a Hugging Face cache, its snapshot of `main`."""
    if not root.is_dir():
        raise Invalid("no-such-folder", f"{root} is not a folder.")
    if not (root.name.startswith("models--") and (root / "snapshots").is_dir()):
        return root.resolve()
    main = root / "refs" / "main"
    commits = (
        [main.read_text("utf-8").strip()]
        if main.is_file()
        else [snapshot.name for snapshot in (root / "snapshots").iterdir()]
    )
    if len(commits) != 1 or not (root / "snapshots" / commits[0]).is_dir():
        raise Invalid(
            "which-snapshot",
            f"{root} has {len(commits)} snapshots, and none of them is main.",
        )
    return (root / "snapshots" / commits[0]).resolve()


def _not_taken(kind: Kind, path: Path) -> str | None:
    """Why an entry of the folder is not part of a bundle; None when it is."""
    name = path.name
    if path.is_dir():
        return _why_folder(name)
    if name.startswith("."):
        return "a hidden file"
    if name in REASONS:
        return REASONS[name]
    if name in (ADAPTER if kind == "adapter" else FULL) or is_weights(kind, name):
        return None
    if name in FULL:
        return "a file of its base"
    if name.endswith(".index.json"):
        return "the index of weights that are not taken"
    if why := next((why for why, ends in OTHER_WEIGHTS.items() if name.endswith(ends)), None):
        return why
    if name.startswith("tokenizer.model."):
        return "the tokenizer under a numbered name; tokenizer.model is taken"
    if name.endswith(".py"):
        return "code; only architectures that are built into transformers are accepted"
    if name.endswith(FOR_READERS):
        return "a text or picture for readers; README.md and the licence are taken"
    return f"not a file of a bundle of kind {kind}"


def _why_folder(name: str) -> str:
    if name.startswith("."):
        return "a hidden folder of git or the downloader"
    return REASONS.get(name, FOLDER)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _weights_inside(kind: Kind, folder: Path, asked: bool) -> list[LeftOut]:
    """The files of a folder that may hold weights of this model, such as `2_Dense`."""
    if not folder.is_dir() or folder.is_symlink():
        return []
    root = folder.parent
    sizes = {
        path.relative_to(root).as_posix(): _size(path)
        for path in islice(folder.rglob("*"), MAX_INSIDE)
        if path.is_file()
    }
    return _companions(kind, sizes, lambda name: is_whole(root / name), asked)


def left_in_folders(
    kind: Kind,
    sizes: Mapping[str, int],
    whole: Callable[[str], bool],
    leave_out: Collection[str] = (),
) -> list[LeftOut]:
    """What is left out of folders that are not on this machine, as `choose` lists its own.

    `sizes` are the files by their paths below the bundle; `whole` is `is_whole` of such a folder.
    """
    left_out = []
    folders = groupby(sorted(sizes), key=lambda path: path.partition("/")[0])
    for folder, paths in folders:
        asked = folder in leave_out
        left_out.append(LeftOut(folder, ASKED if asked else _why_folder(folder), 0, asked))
        left_out += _companions(kind, {path: sizes[path] for path in paths}, whole, asked)
    return left_out


def _companions(
    kind: Kind, sizes: Mapping[str, int], whole: Callable[[str], bool], asked: bool
) -> list[LeftOut]:
    """The files below folders that may hold weights of this model.

    A folder with an adapter or with a whole model in it holds those, not a part of this one, at
    any depth.
    """
    is_apart = cache(whole)
    return [
        LeftOut(path, FOLDER, sizes[path], asked)
        for path in sorted(sizes)
        if companion(kind, path)
        and not any(is_apart(str(parent)) for parent in PurePosixPath(path).parents[:-1])
    ]


def is_whole(folder: Path) -> bool:
    """Whether a folder holds another adapter, or the configuration of a whole model."""
    if (folder / CONFIG).is_file():
        return True
    config = folder / "config.json"
    return (
        config.is_file()
        and config.stat().st_size <= MAX_SETTINGS_BYTES
        and b'"model_type"' in config.read_bytes()
    )


def _check_link(path: Path, cache: Path | None) -> None:
    if not path.is_symlink():
        return
    target = path.resolve()
    if cache is None or target.parent != cache.resolve():
        raise Invalid("linked-file", f"{path} is a link that leads out of its folder.")
    if not target.is_file():
        raise Invalid("broken-link", f"{path} leads to {target.name}, which does not exist.")


def _check_cached(source: Source, path: Path) -> None:
    """Compare a file of a cache with the digest in its name.

    A Hugging Face cache names large files by SHA-256, and small ones by the SHA-1 of git.
    """
    expected = path.resolve().name
    if not STORED.fullmatch(expected):
        return
    if len(expected) == 64:
        source.digests[path.name] = expected  # compared when the file is hashed to be sent
        return
    data = path.read_bytes()
    actual = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
    if actual != expected:
        raise damaged(path, expected, actual)


def damaged(path: Path, expected: str, actual: str) -> Unverified:
    """The refusal of a file that differs from what its cache says it is."""
    return Unverified(
        "snapshot-damaged",
        f"{path.name} has the digest {actual}, but its cache says {expected}.",
        expected=expected,
        found=actual,
    )


def _check_weights(kind: Kind, root: Path, source: Source) -> None:
    if any(is_weights(kind, inside) for _, inside in source.files):
        return
    what = "an adapter" if kind == "adapter" else f"a {kind}"
    missing = f"{root} has no weights of {what}."
    if folders := _folders_with_weights(kind, root):
        named = ", ".join(folders[-MAX_FOLDERS_SHOWN:])
        more = len(folders) - MAX_FOLDERS_SHOWN
        last = shlex.quote(str(root / folders[-1]))
        raise Invalid(
            "no-weights",
            f"{missing} These folders in it have: {f'{more} others, ' if more > 0 else ''}{named}.",
            f"Name the folder to import: countersign {kind} import {last}",
        )
    left_out = {entry.path: entry.why for entry in source.left_out}
    if other := _other_kind(kind, left_out):
        raise Invalid("no-weights", f"{missing} {other[0]}", other[1])
    if pickled := next((path for path, why in left_out.items() if why == PICKLED), None):
        raise Invalid(
            "weights-pickled",
            f"{root} has its weights only as {pickled}, a pickle. Pickles are never opened.",
        )
    if path := next((path for path, why in left_out.items() if why in OTHER_WEIGHTS), None):
        raise Invalid(
            "no-weights",
            f"{root} has its weights only as {path}: {left_out[path]}.",
            "Load them with transformers, save them with save_pretrained (safetensors), and "
            "import that folder.",
        )
    if any(inside == INDEX for _, inside in source.files):
        raise Invalid(
            "no-weights",
            f"{root} has the index of its weights, but none of the files that the index names.",
            "Download the snapshot again: its download did not finish.",
        )
    raise Invalid("no-weights", missing, "Name another folder.")


def _folders_with_weights(kind: Kind, root: Path) -> list[str]:
    """The folders inside that have weights of this kind; of a trainer's save points the last last.

    Trainers write checkpoint-2390 beside the folder's own settings, and ms-swift a folder for each
    run around that: it is looked for where there is nothing nearer.
    """
    for inside in ("*/*.safetensors", "*/*/*.safetensors"):
        folders = {path.parent for path in root.glob(inside) if is_weights(kind, path.name)}
        if folders:
            return sorted((each.relative_to(root).as_posix() for each in folders), key=_save_point)
    return []


def _save_point(folder: str) -> tuple[list[int | str], int, str]:
    """Sorts folders by their runs, then by the number of the save point: v9, v10; 900, 2390."""
    run, _, name = folder.rpartition("/")
    parts = [int(part) if part.isdecimal() else part for part in re.split("([0-9]+)", run)]
    number = re.search("-([0-9]+)$", name)
    return parts, int(number[1]) if number else 0, name


def _other_kind(kind: Kind, left_out: Collection[str]) -> tuple[str, str] | None:
    """What the folder holds in place of weights of this kind, and what to do; None if unknown."""
    if kind != "adapter" and ADAPTER_WEIGHTS in left_out:
        return "It has those of an adapter.", "Use countersign adapter import."
    if kind == "adapter" and any(is_weights("checkpoint", name) for name in left_out):
        return (
            "It has the weights of a full model.",
            "Use countersign checkpoint import, or name the folder that save_pretrained of the "
            "PEFT model wrote.",
        )
    if kind == "adapter" and MLX_WEIGHTS in left_out:
        return (
            f"It has {MLX_WEIGHTS}, which MLX writes in a form of its own.",
            "Merge it with mlx_lm.fuse --dequantize, and use countersign checkpoint import.",
        )
    return None


def _describe(kind: Kind, root: Path, source: Source) -> None:
    """Record what the folder says of itself. These are claims: the registry binds by digests."""
    source.meta["source"] = source.name
    card = root / "README.md"
    if any(inside == card.name for _, inside in source.files):
        with card.open("rb") as file:
            head = file.read(MAX_FRONT_MATTER_BYTES).decode("utf-8", "replace")
        if head.startswith("---\n") and (licence := LICENCE.search(head.split("\n---", 1)[0])):
            source.meta["licence"] = licence[1]
    config = root / "adapter_config.json"
    if kind == "adapter" and config.is_file() and config.stat().st_size <= MAX_ADAPTER_CONFIG_BYTES:
        try:
            written: Any = json.loads(config.read_bytes())
        except ValueError:
            return  # the registry will refuse it and say why
        claims = {
            key: written[key]
            for key in ("base_model_name_or_path", "revision", "peft_version")
            if isinstance(written, dict) and isinstance(written.get(key), str)
        }
        if claims:
            source.meta["claimed"] = {key: value[:512] for key, value in claims.items()}
