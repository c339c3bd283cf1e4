"""YAML has one meaning, that of the core schema of YAML 1.2, or is refused with a ValueError that
says why.
"""

from __future__ import annotations

import math
from typing import Any

import pytest

from registry.documents import strict_yaml


@pytest.mark.parametrize(
    "text",
    [
        "x: !!bool abc",
        "x: !!bool yes",
        "x: !!timestamp abc",
        "x: !!timestamp 2020-01-01",
        "x: !!null x",
        "x: !!binary aGk=",
        "x: !!set {a}",
        "x: !!omap [a: 1]",
        'x: !!int ""',
        "x: !!int 1:30",
        "x: !!int 1_000",
        'x: !!float ""',
        "x: !!float 1:30.5",
        "x: !!map [1]",
        'environment: "\\ud800"',
        '"\\udc00": 1',
        "x: 1\nx: 2",
        "1: x\n'1': y",
        "x: &a 1\ny: *a",
        "x: {<<: {y: 1}}",
        "x: !!python/object:os.system 1",
        "x: " + "9" * 5000,
    ],
)
def test_whatever_is_wrong_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        strict_yaml.loads(text)


def test_plain_documents_are_read() -> None:
    assert strict_yaml.loads("a: 1\nb: [x, true, 1.5]\nc: \u00e4\U0001f600") == {
        "a": 1,
        "b": ["x", True, 1.5],
        "c": "\u00e4\U0001f600",
    }


NULLS = ("null", "Null", "NULL", "~", "")
TRUES, FALSES = ("true", "True", "TRUE"), ("false", "False", "FALSE")
NUMBERS = """
    0=0 -19=-19 +12=12 3=3 0o7=7 0o17=15 0x3A=58 0x1F=31 0.=0.0 -0.0=-0.0 .5=0.5 +12e03=12000.0
    -2E+05=-200000.0 12.3=12.3 1e-4=0.0001 5e-3=0.005 1E-4=0.0001 1.e-4=0.0001 +1e3=1000.0
    1e4=10000.0 1.5e-05=0.000015 -.5E2=-50.0 00.5=0.5 .inf=inf -.Inf=-inf +.INF=inf
"""
"""Spellings of numbers, each with its value as Python writes it."""
TEXTS = """
    nULL tRUE yes no on Off y N 1:30 190:20:30.15 1_000 0b101 -0x1F 0o8 0xG 1e e4 1e- . + 1.2.3 1e4x
    inf nan 2026-11-30 2026-11-30T10:00:00Z = <
"""
"""Plain scalars that are texts, and mean what they look like."""


def number(text: str) -> int | float:
    return float(text) if set(text) & set(".einf") else int(text)


CORE: dict[str, Any] = {
    # The examples of YAML 1.2.2, section 10.3.2, and the spellings that people use.
    **dict.fromkeys(NULLS, None),
    **dict.fromkeys(TRUES, True),
    **dict.fromkeys(FALSES, False),
    **{pair.split("=")[0]: number(pair.split("=")[1]) for pair in NUMBERS.split()},
    **{text: text for text in TEXTS.split()},
    "'1e-4'": "1e-4",
    '"017"': "017",
}


@pytest.mark.parametrize("spelling", list(CORE))
def test_a_plain_scalar_means_what_the_core_schema_says(spelling: str) -> None:
    value = strict_yaml.loads(f"x: {spelling}")["x"]
    assert (type(value), value) == (type(CORE[spelling]), CORE[spelling])


@pytest.mark.parametrize("spelling", [".nan", ".NaN", ".NAN"])
def test_not_a_number(spelling: str) -> None:
    assert math.isnan(strict_yaml.loads(f"[{spelling}]")[0])


@pytest.mark.parametrize(
    ("spelling", "why"),
    [
        ("017", "write 17, or quotes"),
        ("-007", "write -7, or quotes"),
        ("0089", "write 89, or quotes"),
        ("12e4567", "quotes around it"),
        ("-1e999", "too large"),
    ],
)
def test_a_number_that_readers_take_for_different_things_is_refused(
    spelling: str, why: str
) -> None:
    with pytest.raises(ValueError, match=f"line 2 .*{why}"):
        strict_yaml.loads(f"a: 1\nx: {spelling}")
    assert strict_yaml.loads(f"x: '{spelling}'")["x"] == spelling


def test_block_texts_stay_texts() -> None:
    assert strict_yaml.loads("x: |\n  1e-4\ny: >\n  17")["x"] == "1e-4\n"
    assert strict_yaml.loads("x: !!str 1e-4")["x"] == "1e-4"
