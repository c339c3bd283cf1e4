"""SentencePiece models (`tokenizer.model`, `spiece.model`), read strictly, byte by byte.

The form is the protocol buffer ModelProto of sentencepiece's src/sentencepiece_model.proto (0.2.0
and 0.2.3). The library uses the last of two fields with one name, skips what it does not know and,
before 0.2.3, trusts what it reads. Here every byte must be part of a known field that occurs once,
and nothing may lead the library outside the given bytes.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator
from typing import Any

from registry.artifacts.contents import Wrong
from registry.artifacts.tokenizers.charsmaps import check_map

MAX_BYTES = 8 << 20
"""Bytes of a model; Gemma 3's 262,144 pieces take 4.7 MB."""
MAX_PIECES = 280_000
"""Pieces of a model.

Gemma's 262,144 are the most of any family. More pieces, together with a tokenizer.json of that
size, would take a second to judge.
"""
MAX_PIECE = 1024
"""Bytes of one piece; the longest of Gemma are runs of blanks with 93 bytes."""
MAX_FIELDS = 50_000
"""Fields besides the plain pieces: each control symbol is one, a self test has a few hundred."""
MAX_MAP = 512 << 10
"""Bytes of the character maps; NFKC, which most models have, takes 237,539."""
FIX = (
    "Save the tokenizer again with sentencepiece, or leave this file out where tokenizer.json has "
    "the same content."
)

MAX_NESTED = 64
"""User-defined pieces of which each begins the next.

The library has room for this many (PrefixMatcher::PrefixMatch) and writes no more, but reads as
many as there are. Gemma has runs of 31 line breaks.
"""

INT, LONG, BYTES, FLOAT = 0, 1, 2, 5
"""The wire types; no such message has groups (3 and 4)."""
PIECE, TRAINER_SPEC, NORMALIZER_SPEC, SELF_TEST, DENORMALIZER_SPEC = 1, 2, 3, 4, 5
NAMES = {
    1: "pieces",
    2: "trainer_spec",
    3: "normalizer_spec",
    4: "self_test_data",
    5: "denormalizer_spec",
}
"""The fields of a model by number."""
PARTS = dict.fromkeys(NAMES, BYTES)
TRAINER = {
    **dict.fromkeys((1, 2, 5, 7, 30, 31, 36, 44, 45, 46, 47, 48, 53, 54), BYTES),
    **dict.fromkeys(
        (3, 4, 6, *range(11, 15), *range(16, 27), *range(32, 36), *range(40, 44), 49, 50, 52, 55),
        INT,
    ),
    **dict.fromkeys((10, 15, 51), FLOAT),
}
TRAINER_LISTS = frozenset({1, 5, 30, 31})
"""The repeated fields of the trainer's options."""
NORMALIZER = {1: BYTES, 2: BYTES, 3: INT, 4: INT, 5: INT, 6: BYTES}
MODEL_TYPE, BYTE_FALLBACK, CHARSMAP = 3, 35, 2
UNIGRAM, BPE, WORD, CHAR = ALGORITHMS = 1, 2, 3, 4
EXTENSIONS = 200
"""The first number that messages of others may use."""
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
RESERVED = frozenset({UNKNOWN, CONTROL, BYTE})
"""The library keeps these kinds in a separate table, so a text may have the same name."""
KINDS = RESERVED | {NORMAL, USER_DEFINED, UNUSED}
WITHOUT_KIND = {bytes((0x0A, length + 7, 0x0A, length)): length for length in range(1, 121)}
"""The length of a piece's text by the first bytes of the piece: a text and a score."""
WITH_KIND = {bytes((0x0A, length + 9, 0x0A, length)): length for length in range(1, 119)}
"""The length of a piece's text by the first bytes of the piece: a text, a score and a kind."""
A_BYTE = re.compile(rb"<0x[0-9A-F]{2}>")


class Unsound(ValueError):
    """Something is wrong with a model; `where` is its place."""

    def __init__(self, where: str, detail: str) -> None:
        super().__init__(detail)
        self.where = where


class Model:
    """What has been read: the pieces by kind, and how much may still be read."""

    def __init__(self) -> None:
        self.plain: set[bytes] = set()
        self.reserved: set[bytes] = set()
        self.defined: list[bytes] = []
        self.bytes: set[bytes] = set()
        self.scores = bytearray()
        self.unknown = self.count = 0
        self.fields_left, self.map_bytes_left = MAX_FIELDS, MAX_MAP
        self.spec: dict[int, Any] = {}

    def add(self, name: bytes, kind: int) -> None:
        """Add a piece; its text and score are checked when all pieces are read."""
        if kind not in KINDS:
            raise Unsound(
                f"piece {self.count}", f"its kind is {kind}, but there are only six kinds"
            )
        (self.reserved if kind in RESERVED else self.plain).add(name)
        if kind == UNKNOWN:
            self.unknown += 1
        elif kind == USER_DEFINED:
            self.defined.append(name)
        elif kind == BYTE:
            if not A_BYTE.fullmatch(name):
                raise Unsound(
                    f"piece {self.count}",
                    "it stands for a byte, but its name is not <0x00> to <0xFF>",
                )
            self.bytes.add(name)
        self.count += 1
        if self.count > MAX_PIECES:
            raise Unsound("pieces", f"it has more than {MAX_PIECES} pieces")


def check_sentencepiece(data: bytes, wrong: Wrong) -> None:
    """Record the first reason why the library would not load these bytes as a model."""
    try:
        _check(data)
    except Unsound as error:
        wrong(error.where, "sentencepiece", str(error), FIX)


def _check(data: bytes) -> None:
    model, at, seen = Model(), 0, set[int]()
    while (at := _pieces(data, at, model)) < len(data):
        number, value, at = _field(data, at, "", PARTS, model)
        if number != PIECE and number in seen:
            raise Unsound(NAMES[number], "it occurs twice")
        seen.add(number)
        if number == PIECE:
            _piece(value, model)
        elif number == TRAINER_SPEC:
            model.spec = _flat(value, NAMES[number], TRAINER, model, TRAINER_LISTS)
        elif number == SELF_TEST:
            for _, sample in _fields(value, NAMES[number], {1: BYTES}, model, frozenset({1})):
                _flat(sample, NAMES[number], {1: BYTES, 2: BYTES}, model)
        elif charsmap := _flat(value, NAMES[number], NORMALIZER, model).get(CHARSMAP):
            model.map_bytes_left -= len(charsmap)
            if (
                fault := f"the maps have more than {MAX_MAP} bytes"
                if model.map_bytes_left < 0
                else check_map(charsmap)
            ):
                raise Unsound(f"{NAMES[number]}.precompiled_charsmap", fault)
    for number in (TRAINER_SPEC, NORMALIZER_SPEC):
        if number not in seen:
            raise Unsound(NAMES[number], "it is missing")
    _check_whole(model)


def _pieces(data: bytes, at: int, model: Model) -> int:
    """Read pieces in the form in which every program writes them; returns where that form ends.

    There are up to 280,000 pieces, so each costs only one step: its first four bytes identify a
    piece, and what is between text and score is checked when all are read. The general reader of
    fields reads all other forms.
    """
    size, plain, scores, begun = len(data), model.plain.add, bytearray(), model.count
    known, room = WITHOUT_KIND.get, MAX_PIECES - model.count
    while True:
        head = data[at : at + 4]
        if (length := known(head)) and room > 0:
            after = at + 4 + length
            plain(data[at + 4 : after])
            at = after + 5
            scores += data[after:at]
            room -= 1
        elif (length := WITH_KIND.get(head)) and data[
            at + length + 9 : at + length + 10
        ] == b"\x18":
            after = at + 4 + length
            model.count = MAX_PIECES - room
            model.add(data[at + 4 : after], int.from_bytes(data[after + 6 : after + 7]))
            scores += data[after : after + 5]
            at = after + 7
            room -= 1
        else:
            break
    model.count = MAX_PIECES - room
    if at > size or scores[::5] != b"\x15" * (model.count - begun):
        raise Unsound("pieces", "a piece is cut off, or has no score after its text")
    del scores[::5]
    model.scores += scores
    return at


def _piece(data: bytes, model: Model) -> None:
    """Read a piece in any form that the format allows."""
    where = f"piece {model.count}"
    fields = dict(_fields(data, where, {1: BYTES, 2: FLOAT, 3: INT}, model))
    name = fields.get(1, b"")
    if not 0 < len(name) <= MAX_PIECE:
        raise Unsound(where, f"it has {len(name)} bytes; 1 to {MAX_PIECE} are allowed")
    model.add(name, fields.get(3, NORMAL))
    model.scores += fields.get(2, bytes(4))


def _check_whole(model: Model) -> None:
    """Check what sentencepiece refuses to load (model_interface.cc), or would crash on."""
    algorithm, fallback = model.spec.get(MODEL_TYPE, UNIGRAM), bool(model.spec.get(BYTE_FALLBACK))
    if algorithm not in ALGORITHMS:
        raise Unsound(
            "trainer_spec.model_type", f"it is {algorithm}, but there are only four types"
        )
    repeated = model.count - len(model.plain) - len(model.reserved)
    if repeated == 0 and algorithm == BPE:  # BPE keeps all pieces in one table.
        repeated = len(model.plain & model.reserved)
    if repeated:
        raise Unsound("pieces", f"{repeated} pieces occur more than once")
    if len(model.bytes) != (256 if fallback else 0):
        raise Unsound(
            "trainer_spec.byte_fallback",
            f"it is {fallback}, but {len(model.bytes)} pieces stand for bytes",
        )
    if not (model.unknown == 1 or (fallback and not model.unknown)) or not model.plain:
        raise Unsound(
            "pieces",
            f"{model.unknown} pieces are of the kind unknown and {len(model.plain)} are text: one "
            "unknown piece and at least one text are required",
        )
    # A piece of NUL alone is accepted with byte fallback: it is never used (sentencepiece's issue
    # 1308).
    text = b"\n".join(
        (*model.plain, *model.reserved)
        if not fallback
        else (*(model.plain - {b"\0"}), *model.reserved)
    )
    if not _is_text(text) or b"\0" in text:
        raise Unsound(
            "pieces",
            "a piece is not UTF-8 text, or contains U+0000, at which the library ends it",
        )
    scores = struct.unpack(f"<{model.count}f", model.scores)
    if not all(map(math.isfinite, scores)):
        raise Unsound(
            f"piece {next(n for n, score in enumerate(scores) if not math.isfinite(score))}",
            "its score is NaN or infinite",
        )
    nested: list[bytes] = []
    for name in sorted(model.defined):
        while nested and not name.startswith(nested[-1]):
            nested.pop()
        nested.append(name)
        if len(nested) > MAX_NESTED:
            raise Unsound(
                "pieces", f"more than {MAX_NESTED} user-defined pieces begin with one another"
            )


def _is_text(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _flat(
    data: bytes,
    where: str,
    known: dict[int, int],
    model: Model,
    lists: frozenset[int] = frozenset(),
) -> dict[int, Any]:
    """The fields of a message without nested messages.

    Texts must be UTF-8, except a character map, and floats must be finite.
    """
    fields: dict[int, Any] = {}
    for number, value in _fields(data, where, known, model, lists):
        fields[number] = value
        kind = known.get(number)
        if (
            kind == BYTES
            and not (known is NORMALIZER and number == CHARSMAP)
            and not _is_text(value)
        ):
            raise Unsound(f"{where} field {number}", "it is not UTF-8 text")
        if kind == FLOAT and not math.isfinite(struct.unpack("<f", value)[0]):
            raise Unsound(f"{where} field {number}", "it is NaN or infinite")
    return fields


def _fields(
    data: bytes,
    where: str,
    known: dict[int, int],
    model: Model,
    lists: frozenset[int] = frozenset(),
) -> Iterator[tuple[int, Any]]:
    """Every field of a message; only those in `lists` may be repeated."""
    at, seen = 0, set[int]()
    while at < len(data):
        number, value, at = _field(data, at, where, known, model)
        if number in seen and number not in lists:
            raise Unsound(f"{where} field {number}", "it occurs twice")
        seen.add(number)
        yield number, value


def _field(
    data: bytes, at: int, where: str, known: dict[int, int], model: Model
) -> tuple[int, Any, int]:
    """The number, value and end of the field at `at`; texts and floats are returned as bytes."""
    here = f"{where} byte {at}".strip()
    tag, at = _varint(data, at, here)
    number, wire = tag >> 3, tag & 7
    model.fields_left -= 1
    if model.fields_left < 0:
        raise Unsound(here, f"it has more than {MAX_FIELDS} fields besides its plain pieces")
    # Later trainers have options that current readers ignore: a number is harmless, but a text
    # could be anything.
    if number not in known and not (
        known is TRAINER and 0 < number < EXTENSIONS and wire in (INT, LONG, FLOAT)
    ):
        raise Unsound(here, f"there is no field {number} in {where or 'a SentencePiece model'}")
    if wire != known.get(number, wire):
        raise Unsound(here, f"field {number} is of wire type {wire}, not {known[number]}")
    if wire == INT:
        return number, *_varint(data, at, here)
    size, at = _varint(data, at, here) if wire == BYTES else (8 if wire == LONG else 4, at)
    if at + size > len(data):
        raise Unsound(here, "it is cut off")
    return number, data[at : at + size], at + size


def _varint(data: bytes, at: int, here: str) -> tuple[int, int]:
    """A number of up to 64 bits, seven bits a byte, in the fewest bytes; and where it ends."""
    value = shift = 0
    for byte in data[at : at + 10]:
        value |= (byte & 0x7F) << shift
        shift += 7
        at += 1
        if byte < 0x80:
            if (byte == 0 and shift > 7) or value >= 1 << 64:
                break
            return value, at
    raise Unsound(here, "a number is cut off, or has more bytes than it needs")
