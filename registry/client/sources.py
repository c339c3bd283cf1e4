"""Where a bundle may be taken from: a folder PEFT or transformers saved to, or a snapshot in a
Hugging Face cache.

Such folders hold more than a bundle may: optimiser states, pickled arguments, weights saved twice.
What belongs is taken by name; the registry still judges it by its content. What does not is listed,
each with its reason.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from registry.artifacts.bundles.names import ADAPTER, FULL, INDEX, Kind, is_weights
from registry.artifacts.contents import REMOTE
from registry.documents.strict_json import loads
from registry.errors import Invalid, Unverified
from registry.views.imports import LeftOut

SNAPSHOT = re.compile(r"models--(.+?)--(.+)/snapshots/([0-9a-f]{40})")
STORED = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
PICKLED = "a pickle, which runs code when it is loaded"
OTHERWISE = {
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
"""Forms of weights that are not taken, by how their names end; a snapshot has its weights in
several.
"""
FRONT = 64 << 10
SETTINGS = 4 << 20
LICENCE = re.compile(r"^license:[ \t]*[\"']?([A-Za-z0-9._-]{1,64})[\"']?[ \t]*$", re.MULTILINE)
REASONS = {
    "training_args.bin": "the training arguments, pickled",
    "trainer_state.json": "the trainer's own state",
    "optimizer.pt": "the optimiser's state",
    "scheduler.pt": "the schedule's state",
    "chat_template.json": "the chat template in the form of older processors: chat_template.jinja "
    "is taken",
    "quantize_config.json": "the quantiser's own settings: config.json says them too",
    "quant_config.json": "the quantiser's own settings: config.json says them too",
    "params.json": "settings of the makers' own loader",
    "original": "a folder: the weights in the makers' own form",
    "onnx": "a folder: weights for ONNX",
    "coreml": "a folder: weights for Core ML",
    "openvino": "a folder: weights for OpenVINO",
    "additional_chat_templates": "a folder: chat templates by name, of which only the default one "
    "is kept",
    "1_Pooling": "a folder: the pooling of sentence-transformers, which is no part of the weights",
}
SHOWN = (".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp", ".pdf", ".md", ".txt")


@dataclass(slots=True)
class Source:
    """What was chosen: files with their paths in the bundle, what stays behind, and what is known
    of the origin.

    `digests` holds what a cache claims of a file, hex SHA-256 by path: damage on its way is found
    before registering.
    """

    name: str
    files: list[tuple[Path, str]] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    meta: dict[str, Any] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes to send."""
        return sum(path.stat().st_size for path, _ in self.files)


def choose(kind: Kind, directory: Path, leave_out: Collection[str] = ()) -> Source:
    """Choose the files of a bundle out of a folder; `leave_out` names files not to take although
    they belong.

    Raises Invalid: no such folder, weights only as pickles or none at all, a link that leads out of
    the folder, a file named in `leave_out` that is not there.
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
        if path.name in leave_out:
            source.left_out.append(LeftOut(path.name, "left out as asked"))
        elif why := _not_taken(kind, path):
            source.left_out.append(LeftOut(path.name, why))
        else:
            _check_link(path, cache)
            if not path.is_file():  # a pipe would be waited for without end
                raise Invalid(
                    "not-a-file",
                    f"{path} is neither a file nor a folder.",
                )
            source.files.append((path, path.name))
            if cache is not None:
                _claimed(source, path)
    if unknown:
        raise Invalid(
            "no-such-file",
            f"There is no file {', '.join(sorted(unknown))} in {root}.",
            "Leave out only what is there.",
        )
    _check_weights(kind, root, source)
    _describe(kind, root, source)
    return source


def without_code(source: Source, folder: Path) -> None:
    """Take the keys by which a loader fetches code out of the settings, which are written anew to
    `folder`; each is listed.

    Snapshots of architectures that transformers has long built in still name the code they began
    with (Phi-3, DeepSeek-V3). What is sent is then not what the source holds, and `meta` says so.
    Raises Invalid for no strict JSON.
    """
    changed = []
    for number, (path, inside) in enumerate(source.files):
        if not inside.endswith("config.json") or path.stat().st_size > SETTINGS:
            continue
        found: list[str] = []
        data = path.read_bytes()
        plain = _plain(loads(data), "", found)
        if not found:
            continue
        claimed, digest = source.digests.pop(inside, None), hashlib.sha256(data).hexdigest()
        if claimed not in (None, digest):  # what is sent in its place cannot be compared any more
            raise damaged(path, str(claimed), digest)
        written = folder / inside
        written.write_text(json.dumps(plain, indent=2, ensure_ascii=False) + "\n", "utf-8")
        source.files[number] = (written, inside)
        changed += [f"{inside}: {key}" for key in found]
    source.left_out += [
        LeftOut(one, "names code; the architecture must be built into transformers")
        for one in changed
    ]
    if changed:
        source.meta["changed"] = changed


def _plain(node: Any, lead: str, found: list[str]) -> Any:
    """Settings without the keys that name code, wherever they stand; which they were goes to
    `found`.
    """
    if isinstance(node, list):
        return [_plain(one, lead, found) for one in node]
    if not isinstance(node, dict):
        return node
    found += [lead + key for key, value in node.items() if key in REMOTE and value]
    return {
        key: _plain(value, f"{lead}{key}.", found)
        for key, value in node.items()
        if key not in REMOTE or not value
    }


def _resolved(root: Path) -> Path:
    """The folder itself, or the one snapshot that a model folder of a Hugging Face cache keeps for
    `main`.
    """
    if not root.is_dir():
        raise Invalid("no-such-folder", f"{root} is not a folder.")
    if not (root.name.startswith("models--") and (root / "snapshots").is_dir()):
        return root.resolve()
    main = root / "refs" / "main"
    commits = (
        [main.read_text("utf-8").strip()]
        if main.is_file()
        else [one.name for one in (root / "snapshots").iterdir()]
    )
    if len(commits) != 1 or not (root / "snapshots" / commits[0]).is_dir():
        raise Invalid(
            "which-snapshot",
            f"{root} holds {len(commits)} snapshots and none of them is main.",
        )
    return (root / "snapshots" / commits[0]).resolve()


def _not_taken(kind: Kind, path: Path) -> str | None:
    """Why something of the folder is no part of a bundle; None when it is one."""
    name = path.name
    if name.startswith("."):
        return (
            "a hidden folder, kept by git or the downloader" if path.is_dir() else "a hidden file"
        )
    if name in REASONS:
        return REASONS[name]
    if path.is_dir():
        return "a folder: the files of a bundle lie side by side"
    if name in (ADAPTER if kind == "adapter" else FULL) or is_weights(kind, name):
        return None
    if name in FULL:
        return "a file of its base"
    if name.endswith(".index.json"):
        return "the list of weights that are not taken"
    if why := next((why for why, ends in OTHERWISE.items() if name.endswith(ends)), None):
        return why
    if name.startswith("tokenizer.model."):
        return "the tokenizer under a numbered name: tokenizer.model is taken"
    if name.endswith(".py"):
        return "code: only architectures built into transformers are accepted"
    if name.endswith(SHOWN):
        return "a text or picture for readers: README.md and the licence are taken"
    return f"no file of a bundle of kind {kind}"


def _check_link(path: Path, cache: Path | None) -> None:
    if not path.is_symlink():
        return
    target = path.resolve()
    if cache is None or target.parent != cache.resolve():
        raise Invalid(
            "linked-file",
            f"{path} is a link that leads out of its folder.",
        )
    if not target.is_file():
        raise Invalid(
            "broken-link",
            f"{path} leads to {target.name}, which is not there.",
        )


def _claimed(source: Source, path: Path) -> None:
    """A cache names its bytes by digest: SHA-256 for large files, git's SHA-1 for small ones."""
    stored = path.resolve().name
    if not STORED.fullmatch(stored):
        return
    if len(stored) == 64:
        source.digests[path.name] = stored  # compared when the file was hashed to be sent
        return
    data = path.read_bytes()
    found = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
    if found != stored:
        raise damaged(path, stored, found)


def damaged(path: Path, stored: str, found: str) -> Unverified:
    """The refusal of a file that is not what its cache says it is."""
    return Unverified(
        "snapshot-damaged",
        f"{path.name} has the digest {found}, but its cache says {stored}.",
        expected=stored,
        found=found,
    )


def _check_weights(kind: Kind, root: Path, source: Source) -> None:
    if any(is_weights(kind, inside) for _, inside in source.files):
        return
    pickled = [one.path for one in source.left_out if one.why == PICKLED]
    if pickled:
        raise Invalid(
            "weights-pickled",
            f"{root} holds its weights only as {pickled[0]}, a pickle, which is never opened here.",
        )
    if other := next((one for one in source.left_out if one.why in OTHERWISE), None):
        raise Invalid(
            "no-weights",
            f"{root} holds its weights only as {other.path}: {other.why}.",
            "Load them with transformers and save them with save_pretrained (safetensors), then "
            "import that.",
        )
    if any(inside == INDEX for _, inside in source.files):
        raise Invalid(
            "no-weights",
            f"{root} has the index of its weights, but none of the files that it names.",
            "Fetch the snapshot whole: its download was not finished.",
        )
    inner = sorted(path.parent.name for path in root.glob("*/*.safetensors"))
    hint = (
        f"Name the folder with the weights: {', '.join(dict.fromkeys(inner))}."
        if inner
        else "Name another folder."
    )
    raise Invalid(
        "no-weights",
        f"{root} holds no weights of {'an adapter' if kind == 'adapter' else f'a {kind}'}.",
        hint,
    )


def _describe(kind: Kind, root: Path, source: Source) -> None:
    """What the folder says of itself: claims, kept as such; the registry binds by digests and never
    by these.
    """
    source.meta["source"] = source.name
    card = root / "README.md"
    if any(inside == card.name for _, inside in source.files):
        with card.open("rb") as file:
            head = file.read(FRONT).decode("utf-8", "replace")
        if head.startswith("---\n") and (said := LICENCE.search(head.split("\n---", 1)[0])):
            source.meta["licence"] = said[1]
    config = root / "adapter_config.json"
    if kind == "adapter" and config.is_file() and config.stat().st_size <= 1 << 20:
        try:
            written: Any = json.loads(config.read_bytes())
        except ValueError:
            return  # the registry says what is wrong with it
        claims = {
            key: written[key]
            for key in ("base_model_name_or_path", "revision", "peft_version")
            if isinstance(written, dict) and isinstance(written.get(key), str)
        }
        if claims:
            source.meta["claimed"] = {key: value[:512] for key, value in claims.items()}
