"""SentencePiece models (`tokenizer.model`, `spiece.model`), read strictly: what the library would
be given, byte by byte.

The form is ModelProto of sentencepiece's src/sentencepiece_model.proto (0.2.0 and 0.2.3), a
protocol buffer. The library takes the last of two fields of one name and skips what it does not
know; before 0.2.3 it trusts what it reads. Here every byte is part of a known field, which stands
there once, and nothing leads the library to what it was not given.
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
"""Gemma 3's 262,144 pieces take 4.7 MB."""
MAX_PIECES = 280_000
"""Gemma's 262,144 are the most of any family; more, beside a tokenizer.json as large, would cost a
second to judge.
"""
MAX_PIECE = 1024
"""Bytes of one piece; Gemma's longest are runs of blanks of 93."""
MAX_FIELDS = 50_000
"""Beside the pieces: each control symbol is one, and a self test has a few hundred."""
MAX_MAP = 512 << 10
"""Bytes of the character maps; NFKC, which most have, takes 237,539."""
MEND = (
    "Save the tokenizer again with sentencepiece, or leave this file out where tokenizer.json "
    "says the same."
)

MAX_NESTED = 64
"""User-defined pieces that begin one another: the library has room for so many
(PrefixMatcher::PrefixMatch) and writes no more, but reads as many as there are. Gemma has runs of
31 line breaks.
"""

INT, LONG, BYTES, FLOAT = 0, 1, 2, 5
"""The wire types; groups (3 and 4) are in no such message."""
PIECE, TRAINER_SPEC, NORMALIZER_SPEC, SELF_TEST, DENORMALIZER_SPEC = 1, 2, 3, 4, 5
NAMES = {
    1: "pieces",
    2: "trainer_spec",
    3: "normalizer_spec",
    4: "self_test_data",
    5: "denormalizer_spec",
}
PARTS = dict.fromkeys(NAMES, BYTES)
TRAINER = {
    **dict.fromkeys((1, 2, 5, 7, 30, 31, 36, 44, 45, 46, 47, 48, 53, 54), BYTES),
    **dict.fromkeys(
        (
            3,
            4,
            6,
            11,
            12,
            13,
            14,
            16,
            17,
            18,
            19,
            *range(20, 27),
            32,
            33,
            34,
            35,
            *range(40, 44),
            49,
            50,
            52,
            55,
        ),
        INT,
    ),
    **dict.fromkeys((10, 15, 51), FLOAT),
}
LISTS = frozenset({1, 5, 30, 31})
NORMALIZER = {1: BYTES, 2: BYTES, 3: INT, 4: INT, 5: INT, 6: BYTES}
MODEL_TYPE, BYTE_FALLBACK, CHARSMAP = 3, 35, 2
UNIGRAM, BPE, WORD, CHAR = ALGORITHMS = 1, 2, 3, 4
EXTENSIONS = 200
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
RESERVED = frozenset({UNKNOWN, CONTROL, BYTE})
"""Kept in a table of their own by the library, so that a text may bear the same name."""
KINDS = RESERVED | {NORMAL, USER_DEFINED, UNUSED}
WITHOUT_KIND = {bytes((0x0A, length + 7, 0x0A, length)): length for length in range(1, 121)}
WITH_KIND = {bytes((0x0A, length + 9, 0x0A, length)): length for length in range(1, 119)}
"""How a piece with a text of so many bytes begins, which has a score and, in the second, a kind
behind.
"""
A_BYTE = re.compile(rb"<0x[0-9A-F]{2}>")


class Unsound(ValueError):
    """Where something is wrong, and what."""

    def __init__(self, where: str, detail: str) -> None:
        super().__init__(detail)
        self.where = where


class Model:
    """What was read so far: the pieces by kind, and how much may still be read."""

    def __init__(self) -> None:
        self.plain: set[bytes] = set()
        self.reserved: set[bytes] = set()
        self.defined: list[bytes] = []
        self.bytes: set[bytes] = set()
        self.scores = bytearray()
        self.unknown = self.count = 0
        self.fields, self.map = MAX_FIELDS, MAX_MAP
        self.spec: dict[int, Any] = {}

    def add(self, name: bytes, kind: int) -> None:
        """One more piece; its text and score are looked at when all are there."""
        if kind not in KINDS:
            raise Unsound(f"piece {self.count}", f"its kind is {kind}, and there are six")
        (self.reserved if kind in RESERVED else self.plain).add(name)
        if kind == UNKNOWN:
            self.unknown += 1
        elif kind == USER_DEFINED:
            self.defined.append(name)
        elif kind == BYTE:
            if not A_BYTE.fullmatch(name):
                raise Unsound(
                    f"piece {self.count}",
                    "it stands for a byte, but is not called <0x00> to <0xFF>",
                )
            self.bytes.add(name)
        self.count += 1
        if self.count > MAX_PIECES:
            raise Unsound("pieces", f"it has more than {MAX_PIECES} pieces")


def check_sentencepiece(data: bytes, wrong: Wrong) -> None:
    """Note the first thing for which these bytes are no SentencePiece model, or one that the
    library would not take.
    """
    try:
        _check(data)
    except Unsound as error:
        wrong(error.where, "sentencepiece", str(error), MEND)


def _check(data: bytes) -> None:
    model, at, seen = Model(), 0, set[int]()
    while (at := _pieces(data, at, model)) < len(data):
        number, value, at = _field(data, at, "", PARTS, model)
        if number != PIECE and number in seen:
            raise Unsound(NAMES[number], "it stands there twice")
        seen.add(number)
        if number == PIECE:
            _piece(value, model)
        elif number == TRAINER_SPEC:
            model.spec = _flat(value, NAMES[number], TRAINER, model, LISTS)
        elif number == SELF_TEST:
            for _, sample in _fields(value, NAMES[number], {1: BYTES}, model, frozenset({1})):
                _flat(sample, NAMES[number], {1: BYTES, 2: BYTES}, model)
        elif charsmap := _flat(value, NAMES[number], NORMALIZER, model).get(CHARSMAP):
            model.map -= len(charsmap)
            if (
                fault := f"the maps have more than {MAX_MAP} bytes"
                if model.map < 0
                else check_map(charsmap)
            ):
                raise Unsound(f"{NAMES[number]}.precompiled_charsmap", fault)
    for number in (TRAINER_SPEC, NORMALIZER_SPEC):
        if number not in seen:
            raise Unsound(NAMES[number], "it is missing")
    _check_whole(model)


def _pieces(data: bytes, at: int, model: Model) -> int:
    """Read the pieces that follow, as long as they are written as every writer writes them; where
    something else stands.

    There are up to 280,000, so a step a piece, and no more than that: a piece is known by its first
    four bytes, and what lies between text and score is looked at when all are read. Others are left
    to the reader of fields.
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
        raise Unsound("pieces", "a piece is cut off, or has no score behind its text")
    del scores[::5]
    model.scores += scores
    return at


def _piece(data: bytes, model: Model) -> None:
    """One piece written in any way that the form allows."""
    where = f"piece {model.count}"
    said = dict(_fields(data, where, {1: BYTES, 2: FLOAT, 3: INT}, model))
    name = said.get(1, b"")
    if not 0 < len(name) <= MAX_PIECE:
        raise Unsound(where, f"it has {len(name)} bytes, of at least one and at most {MAX_PIECE}")
    model.add(name, said.get(3, NORMAL))
    model.scores += said.get(2, bytes(4))


def _check_whole(model: Model) -> None:
    """What sentencepiece itself refuses when it loads a model (model_interface.cc), and what it
    would not survive.
    """
    algorithm, fallback = model.spec.get(MODEL_TYPE, UNIGRAM), bool(model.spec.get(BYTE_FALLBACK))
    if algorithm not in ALGORITHMS:
        raise Unsound("trainer_spec.model_type", f"it is {algorithm}, and there are four")
    twice = model.count - len(model.plain) - len(model.reserved)
    if twice == 0 and algorithm == BPE:  # which keeps all of them in one table
        twice = len(model.plain & model.reserved)
    if twice:
        raise Unsound("pieces", f"{twice} pieces stand there more than once")
    if len(model.bytes) != (256 if fallback else 0):
        raise Unsound(
            "trainer_spec.byte_fallback",
            f"it is {fallback}, and {len(model.bytes)} pieces stand for bytes",
        )
    if not (model.unknown == 1 or (fallback and not model.unknown)) or not model.plain:
        raise Unsound(
            "pieces",
            f"{model.unknown} pieces are unknown and {len(model.plain)} are text: there must be "
            "one, and some",
        )
    # Alone it is taken for a piece that is never used (sentencepiece's issue 1308).
    text = b"\n".join(
        (*model.plain, *model.reserved)
        if not fallback
        else (*(model.plain - {b"\0"}), *model.reserved)
    )
    if not _is_text(text) or b"\0" in text:
        raise Unsound(
            "pieces",
            "a piece is not UTF-8 text, or holds U+0000, where the library takes it to end",
        )
    scores = struct.unpack(f"<{model.count}f", model.scores)
    if not all(map(math.isfinite, scores)):
        raise Unsound(
            f"piece {next(n for n, one in enumerate(scores) if not math.isfinite(one))}",
            "its score is NaN or infinite",
        )
    nested: list[bytes] = []
    for name in sorted(model.defined):
        while nested and not name.startswith(nested[-1]):
            nested.pop()
        nested.append(name)
        if len(nested) > MAX_NESTED:
            raise Unsound("pieces", f"more than {MAX_NESTED} user-defined pieces begin one another")


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
    """A message with none inside: its fields, of which texts are texts and floats finite. A
    character map is no text.
    """
    said: dict[int, Any] = {}
    for number, value in _fields(data, where, known, model, lists):
        said[number] = value
        kind = known.get(number)
        if (
            kind == BYTES
            and not (known is NORMALIZER and number == CHARSMAP)
            and not _is_text(value)
        ):
            raise Unsound(f"{where} field {number}", "it is not UTF-8 text")
        if kind == FLOAT and not math.isfinite(struct.unpack("<f", value)[0]):
            raise Unsound(f"{where} field {number}", "it is NaN or infinite")
    return said


def _fields(
    data: bytes,
    where: str,
    known: dict[int, int],
    model: Model,
    lists: frozenset[int] = frozenset(),
) -> Iterator[tuple[int, Any]]:
    """Every field of a message: those in `lists` any number of times, others once."""
    at, seen = 0, set[int]()
    while at < len(data):
        number, value, at = _field(data, at, where, known, model)
        if number in seen and number not in lists:
            raise Unsound(f"{where} field {number}", "it stands there twice")
        seen.add(number)
        yield number, value


def _field(
    data: bytes, at: int, where: str, known: dict[int, int], model: Model
) -> tuple[int, Any, int]:
    """One field's number and value, and where it ends; texts and floats by their bytes."""
    here = f"{where} byte {at}".strip()
    tag, at = _varint(data, at, here)
    number, wire = tag >> 3, tag & 7
    model.fields -= 1
    if model.fields < 0:
        raise Unsound(here, f"it has more than {MAX_FIELDS} fields beside its plain pieces")
    # A later trainer has options that no reader of today heeds: a number is harmless, a text could
    # be anything.
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
    """A number of up to 64 bits, seven bits a byte, in as few bytes as it needs; and where it
    ends.
    """
    value = shift = 0
    for byte in data[at : at + 10]:
        value |= (byte & 0x7F) << shift
        shift += 7
        at += 1
        if byte < 0x80:
            if (byte == 0 and shift > 7) or value >= 1 << 64:
                break
            return value, at
    raise Unsound(here, "a number is cut off, or written longer than it is")
