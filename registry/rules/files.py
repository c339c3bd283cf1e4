"""Which files a bundle may hold, and what they are by their bytes rather than by their names.

Nothing that could run when loaded is accepted under any name: no pickle, no archive, no program, no custom code.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from registry.errors import Defect, Invalid, RegistryError, Unverified
from registry.rules import lora
from registry.rules.documents import loads
from registry.rules.tensors import File, Header, Read, check_extent, fetch, parse_header, repeated

Kind = Literal["base", "adapter", "checkpoint"]

MAX_FILES = 1024
MAX_TEXT = 1 << 20
LARGER = {"tokenizer.json": 64 << 20, "vocab.json": 16 << 20, "merges.txt": 16 << 20, "vocab.txt": 16 << 20,
          "model.safetensors.index.json": 8 << 20}  # fmt: skip
"""Byte limits of the text files that may pass 1 MiB."""

INDEX = "model.safetensors.index.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
BASE_WEIGHTS = re.compile(r"model(?:-(\d{5})-of-(\d{5}))?\.safetensors")
DOCS = {"README.md", "LICENSE", "LICENSE.md", "LICENSE.txt", "NOTICE", "NOTICE.txt"}
TOKENIZER = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
             "merges.txt", "vocab.txt"}  # fmt: skip
FULL = DOCS | TOKENIZER | {"config.json", "generation_config.json", "chat_template.jinja", INDEX}
ADAPTER = DOCS | TOKENIZER | {lora.FILE, "chat_template.jinja"}
# Keys by which a loader fetches or imports code; in any configuration file.
CODE_KEYS = ("auto_map", "trust_remote_code", "custom_pipelines")
HEX = re.compile(r"[0-9a-f]{64}")
SIGNATURES = (
    (b"PK\x03\x04", "a ZIP archive, the form of PyTorch's .bin and .pt files, which hold pickles"),
    *((bytes((0x80, protocol)), "a Python pickle, which runs code when it is loaded") for protocol in (2, 3, 4, 5)),
    (b"GGUF", "a GGUF file"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"\x93NUMPY", "a NumPy file, which may hold pickles"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\xfd7zXZ\x00", "an xz archive"),
    (b"\x28\xb5\x2f\xfd", "a zstandard archive"),
    (b"\x7fELF", "a program"),
)


@dataclass(slots=True)
class Bundle:
    """The files that may be read, and the defects found so far."""

    kind: Kind
    read: Read
    files: dict[str, File] = field(default_factory=dict)
    weights: dict[str, Header] = field(default_factory=dict)
    defects: list[Defect] = field(default_factory=list)
    documents: dict[str, Any] = field(default_factory=dict)

    def wrong(self, file: str, where: str, rule: str, detail: str, mend: str) -> None:
        self.defects.append(Defect(file, where, rule, detail, mend))

    def unread(self, file: File, error: RegistryError) -> None:
        self.wrong(file.path, "", error.kind, error.detail, error.mend)


def read_bundle(kind: Kind, files: Sequence[File], read: Read) -> Bundle:
    """Choose the files that may be there, read their headers and texts, and note every defect on the way."""
    bundle = Bundle(kind, read)
    _choose(bundle, files)
    for path, file in bundle.files.items():
        try:
            check_extent(file, read)
            _read(bundle, path, file)
        except (Unverified, Invalid) as error:
            bundle.unread(file, error)
    return bundle


def is_weights(kind: Kind, path: str) -> bool:
    return path == ADAPTER_WEIGHTS if kind == "adapter" else BASE_WEIGHTS.fullmatch(path) is not None


def _choose(bundle: Bundle, files: Sequence[File]) -> None:
    """Keep the files that may be there at all; the rest are refused by name, and say what their bytes are."""
    if len(files) > MAX_FILES:
        bundle.wrong("", "", "too-many-files", f"{len(files)} files, at most {MAX_FILES} are accepted", "Remove some.")
        return
    for path in repeated(file.path for file in files):
        bundle.wrong(path, "", "duplicate-path", "the path is named more than once", "Name each file once.")
    allowed = ADAPTER if bundle.kind == "adapter" else FULL
    for file in files:
        parts = file.path.split("/")
        if any(part.startswith(".") or not part for part in parts) or "\\" in file.path or "\0" in file.path:
            bundle.wrong(file.path[:200], "", "unsafe-path", "a path may have no hidden, empty or parent part",
                         "Rename or remove the file.")  # fmt: skip
        elif not HEX.fullmatch(file.sha256) or file.size < 0:
            bundle.wrong(file.path, "", "bad-digest", "its digest is not 64 hex digits, or its size is negative",
                         "Declare the SHA-256 and the size of the file's bytes.")  # fmt: skip
        elif file.path not in allowed and not is_weights(bundle.kind, file.path):
            what = f"; it is {foreign}" if (foreign := _foreign(bundle, file)) else ""
            kinds = (
                "the weights, adapter_config.json, its base's tokenizer"
                if bundle.kind == "adapter"
                else "weights, config"
            )
            bundle.wrong(file.path[:200], "", "file-not-allowed",
                         f"no such file belongs in a bundle of kind {bundle.kind}{what}",
                         f"Remove it: a bundle holds {kinds}, tokenizer, README and licence.")  # fmt: skip
        elif not is_weights(bundle.kind, file.path) and file.size > (most := LARGER.get(file.path, MAX_TEXT)):
            bundle.wrong(
                file.path, "", "file-too-large", f"{file.size} bytes, at most {most} are accepted", "Shorten it."
            )
        else:
            bundle.files.setdefault(file.path, file)


def _foreign(bundle: Bundle, file: File) -> str | None:
    """What a file is by its first bytes, when that is something never accepted; None when nothing speaks against it."""
    try:
        head = fetch(file, bundle.read, 0, min(file.size, 512))
    except Unverified:
        return None
    # A safetensors header of 640 bytes starts like a pickle, and one of 35,615 like gzip: look at its brace first.
    if head[8:9] == b"{" and not any(head[4:8]):
        return None
    return next((what for magic, what in SIGNATURES if head.startswith(magic)), None)


def _read(bundle: Bundle, path: str, file: File) -> None:
    weights = is_weights(bundle.kind, path)
    if what := _foreign(bundle, file):
        bundle.wrong(path, "", "foreign-content", f"whatever its name says, it is {what}",
                     "Save the weights as safetensors." if weights else "Remove it.")  # fmt: skip
    elif weights:
        header = parse_header(file, bundle.read)
        bundle.defects.extend(header.defects)
        if not header.defects:
            bundle.weights[path] = header
    else:
        _read_text(bundle, path, fetch(file, bundle.read, 0, file.size))


def _read_text(bundle: Bundle, path: str, data: bytes) -> None:
    if path.endswith(".json"):
        document = bundle.documents[path] = loads(data)
        if isinstance(document, dict):
            for key in CODE_KEYS:
                if document.get(key):
                    bundle.wrong(path, key, "remote-code", f"{key} makes a loader run code that comes with the model",
                                 f"Remove {key}; only architectures built into transformers are accepted.")  # fmt: skip
        return
    try:
        bundle.documents[path] = data.decode("utf-8")
    except UnicodeDecodeError as error:
        bundle.wrong(path, f"byte {error.start}", "not-text", "it is not UTF-8 text", "Save it as UTF-8.")
