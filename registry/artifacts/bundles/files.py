"""Which files a bundle may hold, and what they are by their bytes rather than by their names.

Nothing that could run when loaded is accepted under any name: no pickle, no archive, no program, no
custom code.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

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
from registry.artifacts.tokenizers.sentencepieces import MAX_BYTES
from registry.artifacts.tokenizers.vocabularies import check_vocabulary
from registry.artifacts.weights.tensors import (
    MAX_HEADER,
    File,
    Header,
    Read,
    check_extent,
    fetch,
    parse_header,
    repeated,
)
from registry.documents.json_streams import PIECE, kinds, outline
from registry.documents.strict_json import MAX_VALUES as FEW
from registry.documents.strict_json import Allowance, loads, weight
from registry.errors import Defect, Invalid, RegistryError, Unverified

Kind = Literal["base", "adapter", "checkpoint"]

MAX_FILES = 1024
MAX_TEXT = 1 << 20
LARGER = {
    "tokenizer.json": 64 << 20,
    "vocab.json": 8 << 20,
    "merges.txt": 8 << 20,
    "vocab.txt": 8 << 20,
    "tokenizer_config.json": 4 << 20,
    "model.safetensors.index.json": 12 << 20,
    "tokenizer.model": MAX_BYTES,
    "spiece.model": MAX_BYTES,
    "sentencepiece.bpe.model": MAX_BYTES,
    "spm.model": MAX_BYTES,
    "tekken.json": 32 << 20,
}
"""Byte limits of the text files that may pass 1 MiB: Gemma's tokenizer has 33 MB, its settings 1.2;
Mistral's table 15; DeepSeek-V3's index of 91,991 tensors about 9.
"""
MAX_TERMS = 128 << 10
"""Bytes of a licence or notice: all the licences there are in SPDX have less than 60,000 each."""
MAX_VALUES = 3_200_000
"""In all JSON of one bundle, headers included, as documents.Allowance counts: a tokenizer of
262,144 pieces and twice as many merges has 2.9 million, 140,000 tensors have 2.2.
"""

INDEX = "model.safetensors.index.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
BASE_WEIGHTS = re.compile(r"model(?:(?:\.safetensors)?-([0-9]{5})-of-([0-9]{5,6}))?\.safetensors")
"""DeepSeek-V3 says `-of-000163`, Qwen 3.5 `model.safetensors-00001-of-00002.safetensors`: the index
names them all.
"""
DOCS = {
    "README.md",
    "LICENSE",
    "LICENSE.md",
    "LICENSE.txt",
    "LICENSE-MODEL",
    "LICENSE-CODE",
    "USE_POLICY.md",
    "NOTICE",
    "NOTICE.md",
    "NOTICE.txt",
}
PIECES = frozenset({"tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "spm.model"})
"""SentencePiece's models under the names of transformers' families; the first may be a tiktoken
table.
"""
ALONE = PIECES | {"tekken.json"}
"""Each a whole tokenizer by itself, which some loaders prefer to tokenizer.json."""
TOKENIZER = ALONE | {
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
}
PREPROCESSING = {
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
}
"""How images and sound become numbers: part of a base that takes them."""
FULL = (
    DOCS
    | TOKENIZER
    | PREPROCESSING
    | {"config.json", "generation_config.json", "chat_template.jinja", INDEX}
)
ADAPTER = DOCS | TOKENIZER | {CONFIG, "chat_template.jinja"}
HEX = re.compile(r"[0-9a-f]{64}")
KEPT = TOKENIZER | PREPROCESSING | {"config.json", "chat_template.jinja", CONFIG, INDEX}
"""Of the others nothing is wanted but that they are sound: they are read, and let go."""
STREAMED = {"tokenizer.json", "vocab.json", "tekken.json"}
MAX_HELD = 4 << 20, 500_000
"""Bytes and values up to which one of those is held all the same, to be compared key by key; others
are by their bytes.
"""
BYTES, TWICE, LEAST = 24, 2, 1 << 20
"""Bytes of memory a byte of a text that is parsed whole, one of a text read by pieces, and what any
bundle takes.
"""
TABLES = {"merges.txt", "vocab.txt"}
LOOKS = str.maketrans(
    "асԁеһіјӏорԛѕхуανοАВЕНКМОРСТХΑΒΕΗΙΚΜΝΟΡΤΧ", "acdehijlopqsxyavoABEHKMOPCTXABEHIKMNOPTX"
)
"""Letters of other alphabets that look like those of the names that are allowed."""


@dataclass(slots=True)
class Bundle:
    """The files that may be read, and the defects found so far."""

    kind: Kind
    read: Read
    files: dict[str, File] = field(default_factory=dict)
    weights: dict[str, Header] = field(default_factory=dict)
    defects: Defects = field(default_factory=Defects)
    allowance: Allowance = field(default_factory=lambda: Allowance(MAX_VALUES))
    documents: dict[str, Any] = field(default_factory=dict)
    judged: bool = False
    """It was found sound before: what would not be held is not read again."""
    pieces: str = ""

    def wrong(self, file: str, where: str, rule: str, detail: str, fix: str) -> None:
        self.defects.append(Defect(file, where, rule, detail, fix))

    def unread(self, file: File, error: RegistryError) -> None:
        self.wrong(file.path, "", error.kind, error.detail, error.fix)


def read_bundle(kind: Kind, files: Sequence[File], read: Read, *, judged: bool = False) -> Bundle:
    """Choose the files that may be there, read their headers and texts, and note every defect on
    the way.

    Of a bundle that was `judged` before only what is held of it is read.
    """
    bundle = Bundle(kind, read, judged=judged)
    choose(bundle, files)
    # A SentencePiece model last: it is not read when too much was.
    for path, file in sorted(bundle.files.items(), key=lambda one: one[0] in PIECES):
        try:
            check_extent(file, read)
            _read(bundle, path, file)
        except (Unverified, Invalid) as error:
            bundle.unread(file, error)
    return bundle


def footprint(kind: Kind, files: Sequence[File], read: Read) -> tuple[int, int]:
    """At most how many bytes of memory it takes to read a bundle, and to keep what is kept of it
    while it is weighed.

    By the sizes of its texts and headers alone, each read to 24 times its size at worst (`[],` is
    three bytes, and 64 as a list); a tokenizer that is read by pieces leaves no more than its keys.
    """
    held = streamed = passing = 0
    for file in files:
        if is_weights(kind, file.path):
            with suppress(RegistryError):
                held += min(int.from_bytes(fetch(file, read, 0, 8), "little"), MAX_HEADER)
        elif file.size > _most(file.path):
            continue  # refused by its size
        elif file.path in STREAMED and file.size > MAX_HELD[0]:
            streamed += file.size
        elif file.path in KEPT and file.path not in TABLES | PIECES:
            held += file.size
        else:
            passing = max(passing, file.size)
    return BYTES * (held + passing) + TWICE * streamed + LEAST, BYTES * held + LEAST


def is_weights(kind: Kind, path: str) -> bool:
    return (
        path == ADAPTER_WEIGHTS if kind == "adapter" else BASE_WEIGHTS.fullmatch(path) is not None
    )


def choose(bundle: Bundle, files: Sequence[File]) -> None:
    """Keep the files that may be there at all; the rest are refused by name, and say what their
    bytes are.
    """
    if len(files) > MAX_FILES:
        bundle.wrong(
            "",
            "",
            "too-many-files",
            f"{len(files)} files, at most {MAX_FILES} are accepted",
            "Remove some.",
        )
        return
    for path in repeated(file.path for file in files):
        bundle.wrong(
            path, "", "duplicate-path", "the path is named more than once", "Name each file once."
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
                "a path may have no hidden, empty or parent part",
                "Rename or remove the file; import leaves hidden ones behind.",
            )
        elif not HEX.fullmatch(file.sha256) or file.size < 0:
            bundle.wrong(
                file.path,
                "",
                "bad-digest",
                "its digest is not 64 hex digits, or its size is negative",
                "Declare the SHA-256 and the size of the file's bytes.",
            )
        elif file.path not in allowed and not is_weights(bundle.kind, file.path):
            what = f"; it is {what}" if (what := _foreign(bundle, file)) else ""
            like = next(
                (
                    f"; its name only looks like {name}"
                    for name in allowed
                    if _alike(name, file.path)
                ),
                "",
            )
            kinds = (
                "the weights, adapter_config.json, its base's tokenizer"
                if bundle.kind == "adapter"
                else "weights, config, tokenizer"
            )
            bundle.wrong(
                file.path,
                "",
                "file-not-allowed",
                f"no such file belongs in a bundle of kind {bundle.kind}{like}{what}",
                f"Remove it, or use import, which leaves it behind: a bundle holds {kinds}, "
                "README and licence.",
            )
        elif not is_weights(bundle.kind, file.path) and file.size > (most := _most(file.path)):
            bundle.wrong(
                file.path,
                "",
                "file-too-large",
                f"{file.size} bytes, at most {most} are accepted",
                "Shorten it.",
            )
        else:
            bundle.files.setdefault(file.path, file)


def _most(path: str) -> int:
    return (
        MAX_TERMS
        if path.startswith(("LICENSE", "NOTICE", "USE_POLICY"))
        else LARGER.get(path, MAX_TEXT)
    )


def _alike(name: str, path: str) -> bool:
    """Would people take the path for the name? Other case, other forms of the same letters, or
    letters that look so.
    """
    return len(path) < 200 and _plain(path) == name.casefold()


def _plain(path: str) -> str:
    letters = unicodedata.normalize("NFKD", path).translate(LOOKS).casefold()
    return "".join(one for one in letters if not unicodedata.combining(one)).rstrip(". ")


def _foreign(bundle: Bundle, file: File) -> str | None:
    """What a file is by its first bytes, when that is something never accepted; None when nothing
    speaks against it.
    """
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
            f"whatever its name says, it is {what}",
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
            "read from its end, it is a ZIP archive with other contents",
            "Save the weights again with safetensors.",
        )
    bundle.weights[path] = header


def _read_text(bundle: Bundle, path: str, file: File) -> None:
    def wrong(where: str, rule: str, detail: str, fix: str) -> None:
        spare = f" Or do without it: import --leave-out {path}." if path in DOCS else ""
        bundle.wrong(path, where, rule, detail, fix + spare)

    bundle.allowance.take(file.size)
    if path in STREAMED and not _held(bundle, file):
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
                wrong(
                    "", "foreign-content", f"whatever its name says, it is {PICKLE}", "Remove it."
                )
                return
            check_tokens(path, _texts(_pieces(bundle, file)), wrong)
            return
        data = fetch(file, bundle.read, 0, file.size)
        if not path.endswith(".json"):
            document = data.decode("utf-8")
        else:
            document = loads(
                data,
                values=MAX_HELD[1] if path in STREAMED else FEW,
                allowance=bundle.allowance,
                halves=False,
            )
    except UnicodeDecodeError as error:
        wrong(f"byte {error.start}", "not-text", "it is not UTF-8 text", "Save it as UTF-8.")
        return
    if path == INDEX:
        pass  # held against the shards, once all of them are read
    elif path in STREAMED:
        check_outline(path, kinds(document), wrong)
    elif path.endswith(".json"):
        # Of an adapter's configuration every key is judged by its method's row, so that its own say
        # what is wrong below them.
        check_document(path, document, wrong, deep=path != CONFIG)
    elif is_old_pickle(data):
        wrong("", "foreign-content", f"whatever its name says, it is {PICKLE}", "Remove it.")
    elif path not in DOCS:
        check_plain(document, wrong)
    else:
        check_prose(document, wrong)
    if path in KEPT and (isinstance(document, str | dict) or path == INDEX):
        bundle.documents[path] = document


def _read_pieces(bundle: Bundle, path: str, file: File) -> None:
    def wrong(where: str, rule: str, detail: str, fix: str) -> None:
        bundle.wrong(path, where, rule, detail, fix)

    if bundle.pieces:
        wrong(
            "",
            "tokenizer-twice",
            f"{bundle.pieces} is a SentencePiece model already",
            "Keep the one that is used.",
        )
    elif bundle.allowance.values < 0:
        wrong(
            "",
            "sentencepiece",
            "it was not read, for the JSON beside it is too much already",
            "Fix that first.",
        )
    else:
        bundle.pieces = path
        check_vocabulary(fetch(file, bundle.read, 0, file.size), wrong)


def _held(bundle: Bundle, file: File) -> bool:
    most, values = MAX_HELD
    return file.size <= most and weight(fetch(file, bundle.read, 0, file.size)) <= values


def _pieces(bundle: Bundle, file: File) -> Iterator[bytes]:
    for at in range(0, file.size, PIECE):
        yield fetch(file, bundle.read, at, min(PIECE, file.size - at))


def _texts(pieces: Iterator[bytes]) -> Iterator[str]:
    """A text read by pieces, each cut after its last line break; a line that never ends comes in
    parts.
    """
    decode, rest = codecs.getincrementaldecoder("utf-8")().decode, ""
    for piece in pieces:
        whole, found, rest = (rest + decode(piece)).rpartition("\n")
        yield whole + found
        if len(rest) > PIECE:
            yield rest
    yield rest + decode(b"", True)
