"""The files of a bundle, identified by their bytes rather than by their names.

Nothing that could run when loaded is accepted under any name: no pickle, no archive, no program and
no custom code.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from registry.artifacts.bundles import companions
from registry.artifacts.bundles.names import (
    ADAPTER,
    DOCS,
    FULL,
    INDEX,
    PIECES,
    PREPROCESSING,
    TOKENIZER,
    Kind,
    is_weights,
    looks_like,
    max_bytes,
)
from registry.artifacts.contents import (
    check_document,
    check_outline,
    check_plain,
    check_prose,
    check_tokens,
)
from registry.artifacts.defects import Defects
from registry.artifacts.methods.configs import FILE as CONFIG
from registry.artifacts.signatures import (
    HEAD,
    PICKLE,
    POINTER,
    PROTOBUF,
    TAIL,
    ends_as_archive,
    foreign,
    is_old_pickle,
)
from registry.artifacts.tokenizers.vocabularies import check_vocabulary
from registry.artifacts.weights.headers import MAX_HEADER_BYTES, Header, parse_header
from registry.artifacts.weights.tensors import File, Read, check_extent, fetch, repeated
from registry.documents.json_streams import PIECE, kinds, outline
from registry.documents.strict_json import (
    MAX_BUNDLE_VALUES,
    MAX_VALUES,
    Allowance,
    loads,
    weight,
)
from registry.errors import Defect, Invalid, RegistryError, Unverified

MAX_FILES = 1024
HEX = re.compile(r"[0-9a-f]{64}")
KEPT = TOKENIZER | PREPROCESSING | {"config.json", "chat_template.jinja", CONFIG, INDEX}
"""Files whose parsed text stays in memory; all others are read once, checked and dropped."""
STREAMED = {"tokenizer.json", "vocab.json", "tekken.json"}
"""Files that are read by pieces, unless they are small enough to be parsed whole."""
MAX_PARSED_BYTES = 4 << 20
"""Size up to which a streamed file is parsed whole, so that its keys can be compared one by one.

A larger one is compared by its bytes.
"""
MAX_PARSED_VALUES = 500_000
"""JSON values up to which a streamed file is parsed whole."""
PARSED_COST = 24
"""Bytes of memory for each byte of a text that is parsed whole."""
STREAMED_COST = 2
"""Bytes of memory for each byte of a text that is read by pieces."""
BUNDLE_COST = 1 << 20
"""Bytes of memory that any bundle needs."""
TABLES = {"merges.txt", "vocab.txt"}


@dataclass(slots=True)
class Bundle:
    """The accepted files of a bundle, what was read of them, and the defects found so far."""

    kind: Kind
    read: Read
    files: dict[str, File] = field(default_factory=dict)
    weights: dict[str, Header] = field(default_factory=dict)
    defects: Defects = field(default_factory=Defects)
    allowance: Allowance = field(default_factory=lambda: Allowance(MAX_BUNDLE_VALUES))
    documents: dict[str, Any] = field(default_factory=dict)
    judged: bool = False
    """Whether the bundle was found sound before.

    Files that would not stay in memory are then not read again.
    """
    pieces: str = ""
    """The name of the SentencePiece model, once there is one."""

    def wrong(self, file: str, where: str, rule: str, detail: str, fix: str) -> None:
        """Add a defect of a file, at `where` in it."""
        self.defects.append(Defect(file, where, rule, detail, fix))

    def unread(self, file: File, error: RegistryError) -> None:
        """Add the error that stopped the reading of a file as its defect."""
        self.wrong(file.path, "", error.kind, error.detail, error.fix)


def read_bundle(kind: Kind, files: Sequence[File], read: Read, *, judged: bool = False) -> Bundle:
    """Read the headers and texts of the files that a bundle may hold, and note every defect.

    Of a bundle that was `judged` before, only the files that stay in memory are read.
    """
    bundle = Bundle(kind, read, judged=judged)
    choose(bundle, files)
    # Read a SentencePiece model last: it is skipped when the other files used up the allowance.
    for path, file in sorted(bundle.files.items(), key=lambda item: item[0] in PIECES):
        try:
            check_extent(file, read)
            _read(bundle, path, file)
        except (Unverified, Invalid) as error:
            bundle.unread(file, error)
    return bundle


def footprint(kind: Kind, files: Sequence[File], read: Read) -> tuple[int, int]:
    """The bytes of memory that a bundle needs while it is read, and while it is weighed.

    Both are upper bounds, computed from the sizes of its texts and headers alone. A text takes up
    to 24 times its size when it is parsed (`[],` is three bytes, and 64 as a list). A tokenizer
    that is read by pieces leaves only its keys.
    """
    kept = streamed = passing = 0
    for file in files:
        if is_weights(kind, file.path):
            with suppress(RegistryError):
                kept += min(int.from_bytes(fetch(file, read, 0, 8), "little"), MAX_HEADER_BYTES)
        elif file.size > max_bytes(file.path):
            continue  # refused for its size
        elif file.path in STREAMED and file.size > MAX_PARSED_BYTES:
            streamed += file.size
        elif file.path in KEPT and file.path not in TABLES | PIECES:
            kept += file.size
        else:
            passing = max(passing, file.size)
    reading = PARSED_COST * (kept + passing) + STREAMED_COST * streamed + BUNDLE_COST
    return reading, PARSED_COST * kept + BUNDLE_COST


def choose(bundle: Bundle, files: Sequence[File]) -> None:
    """Keep the files whose names are allowed, and refuse the others with what their bytes are."""
    if len(files) > MAX_FILES:
        bundle.wrong(
            "",
            "",
            "too-many-files",
            f"there are {len(files)} files, but at most {MAX_FILES} are accepted",
            "Remove files that the bundle does not need.",
        )
        return
    for path in repeated(file.path for file in files):
        bundle.wrong(
            path, "", "duplicate-path", "the path occurs more than once", "List each file once."
        )
    allowed = ADAPTER if bundle.kind == "adapter" else FULL
    for file in files:
        parts = file.path.split("/")
        if (
            any(part.startswith(".") or not part for part in parts)
            or "\\" in file.path
            or not file.path.isprintable()
        ):
            bundle.wrong(
                file.path,
                "",
                "unsafe-path",
                "a path may not have a hidden, empty or parent part",
                "Rename or remove the file; import leaves hidden ones behind.",
            )
        elif not HEX.fullmatch(file.sha256) or file.size < 0:
            bundle.wrong(
                file.path,
                "",
                "bad-digest",
                "its digest is not 64 lower-case hex digits, or its size is negative",
                "Declare the SHA-256 and the size of the file's bytes.",
            )
        elif file.path not in allowed and not is_weights(bundle.kind, file.path):
            _refuse_name(bundle, file, allowed)
        elif not is_weights(bundle.kind, file.path) and file.size > (limit := max_bytes(file.path)):
            bundle.wrong(
                file.path,
                "",
                "file-too-large",
                f"it has {file.size} bytes, but at most {limit} are accepted",
                "Shorten it.",
            )
        else:
            bundle.files.setdefault(file.path, file)


def _refuse_name(bundle: Bundle, file: File, allowed: set[str]) -> None:
    if holds := companions.companion(bundle.kind, file.path):
        bundle.defects.append(companions.refusal(bundle.kind, file.path, holds))
        return
    content = _foreign(bundle, file)
    what = f"; it is {content}" if content else ""
    lookalike = next((name for name in allowed if looks_like(name, file.path)), None)
    like = f"; its name only looks like {lookalike}" if lookalike else ""
    contents = (
        "the weights, adapter_config.json, its base's tokenizer"
        if bundle.kind == "adapter"
        else "weights, config, tokenizer"
    )
    bundle.wrong(
        file.path,
        "",
        "file-not-allowed",
        f"a bundle of kind {bundle.kind} may not hold this file{like}{what}",
        "Remove it, or use import, which leaves it out. "
        f"A bundle holds {contents}, README and licence.",
    )


def _foreign(bundle: Bundle, file: File) -> str | None:
    """What a file is by its first bytes if that is never accepted, else None."""
    try:
        return foreign(fetch(file, bundle.read, 0, min(file.size, HEAD)))
    except Unverified:
        return None


def _read(bundle: Bundle, path: str, file: File) -> None:
    weights = is_weights(bundle.kind, path)
    if (what := _foreign(bundle, file)) and not (what == PROTOBUF and path in PIECES):
        bundle.wrong(
            path,
            "",
            "foreign-content",
            f"despite its name, it is {what}",
            "Fetch the files themselves: git lfs pull, or hf download."
            if what == POINTER
            else "Save the weights as safetensors."
            if weights
            else "Remove it.",
        )
    elif weights:
        _read_weights(bundle, path, file)
    else:
        _read_text(bundle, path, file)


def _read_weights(bundle: Bundle, path: str, file: File) -> None:
    header = parse_header(file, bundle.read, bundle.allowance)
    bundle.defects.extend(header.defects)
    if header.defects:
        return
    tail = min(file.size, TAIL)
    if ends_as_archive(fetch(file, bundle.read, file.size - tail, tail)):
        bundle.wrong(
            path,
            "end",
            "foreign-content",
            "its end makes it a ZIP archive with other contents",
            "Save the weights again with safetensors.",
        )
    bundle.weights[path] = header


def _read_text(bundle: Bundle, path: str, file: File) -> None:
    def wrong(where: str, rule: str, detail: str, fix: str) -> None:
        alternative = f" Or leave it out: import --leave-out {path}." if path in DOCS else ""
        bundle.wrong(path, where, rule, detail, fix + alternative)

    bundle.allowance.take(file.size)
    if path in STREAMED and not _fits(bundle, file):
        if not bundle.judged:
            check_outline(path, outline(_pieces(bundle, file), bundle.allowance), wrong)
        return
    if bundle.judged and path in TABLES | PIECES:
        return
    document: Any
    try:
        if path in PIECES:
            _read_pieces(bundle, path, file)
            return
        if path in TABLES:
            if is_old_pickle(fetch(file, bundle.read, 0, min(file.size, PIECE))):
                wrong("", "foreign-content", f"despite its name, it is {PICKLE}", "Remove it.")
                return
            check_tokens(path, _texts(_pieces(bundle, file)), wrong)
            return
        data = fetch(file, bundle.read, 0, file.size)
        if not path.endswith(".json"):
            document = data.decode("utf-8")
        else:
            document = loads(
                data,
                values=MAX_PARSED_VALUES if path in STREAMED else MAX_VALUES,
                allowance=bundle.allowance,
                halves=False,
            )
    except UnicodeDecodeError as error:
        wrong(f"byte {error.start}", "not-text", "it is not UTF-8 text", "Save it as UTF-8.")
        return
    if path == INDEX:
        pass  # compared with the shards once all of them are read
    elif path in STREAMED:
        check_outline(path, kinds(document), wrong)
    elif path.endswith(".json"):
        # Each method's table judges every key of an adapter's configuration, and what is below the
        # key.
        check_document(path, document, wrong, deep=path != CONFIG)
    elif is_old_pickle(data):
        wrong("", "foreign-content", f"despite its name, it is {PICKLE}", "Remove it.")
    elif path not in DOCS:
        check_plain(document, wrong)
    else:
        check_prose(document, wrong)
    form = dict if path.endswith(".json") else str
    if path in KEPT and (isinstance(document, form) or path == INDEX):
        bundle.documents[path] = document


def _read_pieces(bundle: Bundle, path: str, file: File) -> None:
    wrong = partial(bundle.wrong, path)
    if bundle.pieces:
        wrong(
            "",
            "tokenizer-twice",
            f"{bundle.pieces} is already a SentencePiece model",
            "Keep the model that is used.",
        )
    elif bundle.allowance.values < 0:
        wrong(
            "",
            "sentencepiece",
            "it was not read, because the JSON of the other files is already too much",
            "Fix the other files first.",
        )
    else:
        bundle.pieces = path
        check_vocabulary(fetch(file, bundle.read, 0, file.size), wrong)


def _fits(bundle: Bundle, file: File) -> bool:
    """Whether a streamed file is small enough to be parsed whole."""
    if file.size > MAX_PARSED_BYTES:
        return False
    return weight(fetch(file, bundle.read, 0, file.size)) <= MAX_PARSED_VALUES


def _pieces(bundle: Bundle, file: File) -> Iterator[bytes]:
    for start in range(0, file.size, PIECE):
        yield fetch(file, bundle.read, start, min(PIECE, file.size - start))


def _texts(pieces: Iterator[bytes]) -> Iterator[str]:
    """Decode a text by pieces, each cut after its last line break.

    A line that never ends is returned in parts. Raises UnicodeDecodeError.
    """
    decode, rest = codecs.getincrementaldecoder("utf-8")().decode, ""
    for piece in pieces:
        whole, line_break, rest = (rest + decode(piece)).rpartition("\n")
        yield whole + line_break
        if len(rest) > PIECE:
            yield rest
    yield rest + decode(b"", True)
