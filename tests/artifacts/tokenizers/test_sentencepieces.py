"""SentencePiece models: what the library writes is accepted, and what is accepted the library reads
alike and in safety.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable
from typing import Any

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import sentencepiece_model_pb2 as schema

from registry.artifacts.tokenizers.charsmaps import MAX_RULES, check_map
from registry.artifacts.tokenizers.sentencepieces import (
    MAX_BYTES,
    MAX_FIELDS,
    MAX_NESTED,
    MAX_PIECE,
    MAX_PIECES,
)
from registry.artifacts.tokenizers.vocabularies import check_vocabulary
from tests.assets.pieces import trained

GENUINE: dict[str, dict[str, Any]] = {
    "unigram with a map": {"rules": True},
    "bytes for what is unknown": {
        "model_type": "bpe",
        "byte_fallback": True,
        "vocab_size": 400,
        "normalization_rule_name": "identity",
        "user_defined_symbols": ("<a>", "<aa>", "\n", "\n\n"),
        "control_symbols": ("<c>", "<d>"),
    },
    "characters": {"model_type": "char", "normalization_rule_name": "identity"},
    "words": {
        "model_type": "word",
        "normalization_rule_name": "identity",
        "pad_id": 3,
        "unk_surface": " ⁇ ",
    },
    "no start, no end": {
        "bos_id": -1,
        "eos_id": -1,
        "normalization_rule_name": "identity",
        "split_digits": True,
    },
}
NFKC: dict[str, Any] = {"normalization_rule_name": "nfkc"}
SAID = "please route ﬁrst café 漢字 <aa>\n\n water Å \0 claim 2024 "


def faults(data: bytes) -> list[tuple[str, str, str, str]]:
    found: list[tuple[str, str, str, str]] = []
    check_vocabulary(data, lambda *one: found.append(one))
    return found


@pytest.mark.parametrize("name", [*GENUINE, "NFKC"])
def test_what_sentencepiece_writes_is_accepted(name: str) -> None:
    assert faults(trained(**GENUINE.get(name, NFKC))) == []


def edited(data: bytes, edits: list[tuple[str, int, bytes]]) -> bytes:
    changed = bytearray(data)
    for how, at, text in edits:
        at %= len(changed) + 1
        match how:
            case "put":
                changed[at:at] = text
            case "write":
                changed[at : at + len(text)] = text
            case "cut":
                del changed[at : at + len(text)]
            case "again":
                changed[at:at] = changed[max(at - 3 * len(text), 0) : at]
    return bytes(changed)


edits = st.lists(
    st.tuples(
        st.sampled_from(["put", "write", "cut", "again"]),
        st.integers(0, MAX_BYTES),
        st.binary(min_size=1, max_size=4),
    ),
    min_size=1,
    max_size=3,
)


@settings(max_examples=400)
@given(st.sampled_from(sorted(GENUINE)), edits)
def test_any_change_is_refused_or_leaves_a_model_that_hides_nothing_and_loads(
    name: str, edits: list[tuple[str, int, bytes]]
) -> None:
    data = edited(trained(**GENUINE[name]), edits)
    found = faults(data)
    if found:
        assert len(found) == 1
        assert all(found[0][1:]), "one fault, with its rule, its reason and what to do"
        return
    model = schema.ModelProto.FromString(data)
    assert model.ByteSize() == len(data), "nothing stands there twice or longer than it is"
    loaded = sentencepiece.SentencePieceProcessor(model_proto=data)
    assert [one.piece for one in model.pieces] == list(
        map(loaded.id_to_piece, range(loaded.get_piece_size()))
    )
    loaded.encode(SAID)


def changed(change: Callable[[Any], object], **options: Any) -> bytes:
    model = schema.ModelProto.FromString(trained(**(options or GENUINE["no start, no end"])))
    change(model)
    return model.SerializeToString()


def added(
    name: str = "new", kind: int = 1, score: float = -1.0, count: int = 1
) -> Callable[[Any], None]:
    def add(model: Any) -> None:
        for n in range(count):
            model.pieces.add(piece=name.format(n=n, a="a" * (n + 1)), score=score, type=kind)

    return add


def field(number: int, wire: int, value: bytes) -> bytes:
    return bytes([number << 3 & 0x7F | wire | 0x80, number >> 4]) + value


def mapped(change: Callable[[array[int]], object], texts: bytes = b"") -> bytes:
    """A model whose character map's units were changed."""

    def write(model: Any) -> None:
        blob = model.normalizer_spec.precompiled_charsmap
        units = array("I", blob[4:1028])
        change(units)
        model.normalizer_spec.precompiled_charsmap = (
            blob[:4] + units.tobytes() + (texts or blob[1028:])
        )

    return changed(write, **GENUINE["unigram with a map"])


def filled(value: int) -> Callable[[array[int]], None]:
    """Every unit that is no end of a rule."""

    def fill(units: array[int]) -> None:
        for at, unit in enumerate(units):
            if at and not unit >> 31 and unit >> 10:
                units[at] = value

    return fill


def trainer(more: bytes) -> Callable[[Any], object]:
    return lambda model: model.trainer_spec.MergeFromString(more)


def fifth(model: Any) -> None:
    model.trainer_spec.ClearField("model_type")
    model.trainer_spec.MergeFromString(b"\x18\x05")


PLAIN = GENUINE["no start, no end"]
BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "nothing": (lambda: b"", ""),
    "JSON": (lambda: b"{}", ""),
    "a pointer of Git LFS": (lambda: b"version https://git-lfs.github.com/spec/v1\n", ""),
    "cut off": (lambda: trained(**PLAIN)[:-3], "byte"),
    "bytes behind": (lambda: trained(**PLAIN) + b"\0\0", "byte"),
    "a later part": (lambda: trained(**PLAIN) + field(200, 2, b"\x01x"), "byte"),
    "a text of a later trainer": (lambda: changed(trainer(field(60, 2, b"\x01x"))), "trainer_spec"),
    "two trainers": (lambda: trained(**PLAIN) + b"\x12\x02\x18\x02", "trainer_spec"),
    "no trainer": (lambda: changed(lambda model: model.ClearField("trainer_spec")), "trainer_spec"),
    "no normaliser": (
        lambda: changed(lambda model: model.ClearField("normalizer_spec")),
        "normalizer_spec",
    ),
    "a piece twice": (lambda: changed(added("a", count=2)), "pieces"),
    "a piece without text": (lambda: changed(added("")), "piece"),
    "a piece of a page": (lambda: changed(added("x" * (MAX_PIECE + 1))), "piece"),
    "a piece that ends early": (lambda: changed(added("a\0b")), "pieces"),
    "a piece that is no text": (
        lambda: changed(added("abc")).replace(b"\x03abc", b"\x03\xed\xa0\x80"),
        "pieces",
    ),
    "a kind there is not": (
        lambda: changed(added("new", 2)).replace(b"\x80\xbf\x18\x02", b"\x80\xbf\x18\x07"),
        "piece",
    ),
    "two unknown": (lambda: changed(added("new", 2)), "pieces"),
    "nothing unknown": (lambda: changed(lambda model: model.pieces.pop(0)), "pieces"),
    "a byte too many": (lambda: changed(added("<0x00>", 6)), "trainer_spec.byte_fallback"),
    "a byte's wrong name": (lambda: changed(added("<0x0g>", 6)), "piece"),
    "bytes missing": (lambda: changed(trainer(b"\x98\x02\x01")), "trainer_spec.byte_fallback"),
    "a score that is no number": (lambda: changed(added(score=float("nan"))), "piece"),
    "a score without end": (lambda: changed(added(score=float("-inf"))), "piece"),
    "an algorithm there is not": (lambda: changed(fifth), "trainer_spec.model_type"),
    "user's pieces in a row": (lambda: changed(added("{a}", 4, count=MAX_NESTED + 1)), "pieces"),
    "too many pieces": (lambda: b"\x0a\x08\x0a\x01a\x15\0\0\0\0" * (MAX_PIECES + 1), "pieces"),
    "too many fields": (
        lambda: changed(lambda model: model.trainer_spec.input.extend([""] * MAX_FIELDS)),
        "trainer_spec",
    ),
    "a map that leads out": (
        lambda: mapped(filled(0x3FFFFF00)),
        "normalizer_spec.precompiled_charsmap",
    ),
    "a map in circles": (
        lambda: mapped(filled(1 << 10 | 65)),
        "normalizer_spec.precompiled_charsmap",
    ),
    "a map of nothing": (
        lambda: mapped(lambda units: units.__setitem__(0, 1 << 31)),
        "normalizer_spec.precompiled_charsmap",
    ),
    "a map whose texts do not end": (
        lambda: mapped(lambda units: None, b"endless"),
        "normalizer_spec.precompiled_charsmap",
    ),
    "a map whose texts are too few": (
        lambda: mapped(lambda units: None, b"\0"),
        "normalizer_spec.precompiled_charsmap",
    ),
    "a map that is none": (
        lambda: changed(
            lambda model: setattr(model.normalizer_spec, "precompiled_charsmap", b"abc")
        ),
        "normalizer_spec.precompiled_charsmap",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_sound_model_is_refused_once_and_says_where(name: str) -> None:
    make, where = BAD[name]
    ((place, rule, detail, fix),) = faults(make())
    assert (rule, place.split(" ")[0]) == ("sentencepiece", where)
    assert detail
    assert fix


def test_a_later_trainer_s_numbers_are_taken() -> None:
    """Field 55 came with 0.2.3; what comes next may be a switch as well, and changes nothing for a
    reader of today.
    """
    assert (
        faults(
            changed(
                lambda model: model.trainer_spec.MergeFromString(
                    field(55, 0, b"\x01") + field(61, 0, b"\x07")
                )
            )
        )
        == []
    )


def test_a_null_alone_is_a_piece_where_bytes_stand_in() -> None:
    assert faults(changed(added("\0"), **GENUINE["bytes for what is unknown"])) == []
    assert faults(changed(added("\0"))) != []


def rules(depth: int) -> bytes:
    """A map by hand, whose rules are "a", "aa", "aaa" and so on: each unit's children begin at the
    next block's unit.
    """
    units = array("I", bytes(1024 * (depth + 2)))
    for at in range(len(units)):
        units[at] = 1 << 31
    place, target = 0, 256
    units[0] = (256 ^ 0) << 10
    for n in range(depth):
        place, target = target ^ 97, 256 * (n + 2)
        units[place] = (place ^ target) << 10 | 1 << 8 | 97
    units[target] = 1 << 31
    return struct.pack("<I", 4 * len(units)) + units.tobytes() + b"b\0"


def test_rules_that_begin_one_another_are_counted() -> None:
    assert check_map(rules(MAX_RULES)) is None
    assert "begin with one another" in str(check_map(rules(MAX_RULES + 1)))


RANKED: dict[str, tuple[bytes, str]] = {
    "sound": (b"IQ== 0\nIg== 1\nISI= 5\n", ""),
    "no break at the end": (b"IQ== 0\nIg== 1", ""),
    "a token twice": (b"IQ== 0\nIQ== 1\n", "line 2"),
    "a rank twice": (b"IQ== 0\nIg== 0\n", "line 2"),
    "no base64": (b"IQ== 0\nI=g= 1\n", "line 2"),
    "a script": (b"IQ== 0\nimport os\n", "line 2"),
    "an empty line": (b"IQ== 0\n\nIg== 1\n", "line 2"),
    "a long token": (b"IQ== 0\n" + b"IQAA" * 343 + b" 1\n", "line 2"),
}


@pytest.mark.parametrize("name", RANKED)
def test_a_table_by_rank_is_taken_for_what_it_is(name: str) -> None:
    data, where = RANKED[name]
    assert [(rule, place) for place, rule, _, _ in faults(data)] == (
        [("token-table", where)] if where else []
    )
