"""Scores from outputs, and the statistics of a difference, held against published worked values."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.artifacts.datasets.rows import Item, item_id
from registry.artifacts.datasets.samples import expected_answers, read_samples
from registry.errors import Invalid, Refused
from registry.rules import evals
from registry.rules.evals import Paired, Scores, difference, mcnemar, pair, wilson

ITEMS = [
    Item(item_id(q), q, a)
    for q, a in (("q1", "Permissive"), ("q2", "Copyleft"), ("q3", " Public Domain\n"))
]


def score(data: bytes, items: list[Item], metric: str = "exact_match") -> Scores:
    return evals.score(read_samples(data), expected_answers(items), evals.Scoring(metric))


def samples(*outputs: tuple[str, object]) -> bytes:
    return b"".join(
        json.dumps({"item": item, "output": output}).encode() + b"\n" for item, output in outputs
    )


def answers(*outputs: str) -> bytes:
    return samples(*((item.id, output) for item, output in zip(ITEMS, outputs, strict=True)))


def test_exact_match_is_the_answer_and_nothing_else() -> None:
    found = score(answers(" Permissive \n", "copyleft", "Public Domain"), ITEMS)
    assert list(found.by_item.values()) == [True, False, True]
    assert (found.n, found.correct) == (3, 2)
    assert score(answers("Permissive.", "", "Public  Domain"), ITEMS).correct == 0


def test_the_suite_decides_what_was_expected_not_the_samples() -> None:
    lying = b"".join(
        json.dumps({"item": item.id, "output": "x", "expected": "x"}).encode() + b"\n"
        for item in ITEMS
    )
    with pytest.raises(Invalid) as error:
        score(lying, ITEMS)
    assert error.value.kind == "samples-malformed"


def test_order_of_the_samples_does_not_matter() -> None:
    shuffled = b"".join(reversed(answers("Permissive", "x", "y").splitlines(keepends=True)))
    assert score(shuffled, ITEMS) == score(answers("Permissive", "x", "y"), ITEMS)


ONE, TWO, THREE = (item.id for item in ITEMS)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (samples((ONE, "a"), (TWO, "b")), "sample-missing-item"),
        (samples((ONE, "a"), (TWO, "b"), (THREE, "c"), (TWO, "b")), "sample-duplicate-item"),
        (samples((ONE, "a"), (TWO, "b"), ("0" * 16, "c")), "sample-unknown-item"),
        (samples((ONE, "a"), (TWO, "b"), (THREE, None)), "samples-malformed"),
        (b"", "samples-malformed"),
        (b"{}\n", "samples-malformed"),
        (b"[]\n", "samples-malformed"),
        (b"not json\n", "samples-malformed"),
        (answers("a", "b", "c") + b"\n", "samples-malformed"),
        (b'{"item":"' + ONE.encode() + b'","output":"a","output":"b"}', "samples-malformed"),
    ],
)
def test_samples_that_do_not_answer_the_suite_are_refused(data: bytes, kind: str) -> None:
    with pytest.raises((Invalid, Refused)) as error:
        score(data, ITEMS)
    assert error.value.kind == kind
    assert error.value.fix
    assert isinstance(error.value, Invalid) == (kind == "samples-malformed")


def test_an_unknown_metric_is_named() -> None:
    with pytest.raises(Invalid, match="bleu"):
        score(answers("a", "b", "c"), ITEMS, "bleu")


@pytest.mark.parametrize(
    ("output", "expected", "same"),
    [
        ("caf\u00e9", "cafe\u0301", True),
        ("cafe\u0301\n", " caf\u00e9", True),
        ("\u1112\u1161\u11ab", "\ud55c", True),
        ("one\r\ntwo", "one\ntwo", True),
        ("one\rtwo", "one\ntwo", True),
        ("\u00a0yes\u2003", "yes", True),
        ("\ufb01ne", "fine", False),  # NFKC would call these equal, and 2\u00b3 and 23
        ("2\u00b3", "23", False),
        ("Yes", "yes", False),
        ("yes.", "yes", False),
        ("one  two", "one two", False),
        ("", "yes", False),
    ],
)
def test_texts_that_look_the_same_are_the_same(output: str, expected: str, same: bool) -> None:
    assert evals.Scoring().is_right(output, expected) is same
    assert evals.Scoring().is_right(expected, output) is same


@pytest.mark.parametrize(
    ("output", "stop", "right"),
    [
        ("mit\nQ: next", ("\n",), True),
        ("mit Q: next\n", ("\n", "Q:"), True),
        ("mit\nQ: next", (), False),
        ("mit\nQ: next", ("Q:",), True),
        ("\nmit", ("\n",), False),  # the model stopped before it answered
        ("mit", ("\n",), True),
        ("mi\nt", ("t",), False),
    ],
)
def test_an_answer_ends_at_the_first_stop(output: str, stop: tuple[str, ...], right: bool) -> None:
    assert evals.Scoring(stop=stop).is_right(output, "mit") is right


@pytest.mark.parametrize(
    ("expected", "stop", "fits"),
    [
        ("a\nb", ("\n",), False),
        ("mit licence", ("x", " "), False),
        ("mit", ("m",), False),
        ("a\r\nb", ("\n",), False),
        ("mit\n", ("\n",), True),  # white space around an answer does not count
        ("\n mit", ("\n",), True),
        ("e\u0301", ("é",), True),  # a model may write the other form
        ("mit", ("\n", "Q:"), True),
        ("a\nb", (), True),
    ],
)
def test_a_stop_that_cuts_the_expected_answer_is_refused(
    expected: str, stop: tuple[str, ...], fits: bool
) -> None:
    scoring = evals.Scoring(stop=stop)
    if fits:
        scoring.check_answer("Which?", expected)
        return
    with pytest.raises(Invalid) as error:
        scoring.check_answer("Which?", expected)
    assert error.value.kind == "bad-decoding"
    assert "'Which?'" in error.value.detail
    assert repr(stop[-1]) in error.value.detail


@pytest.mark.parametrize(
    "stop", [None, "x", [1], [""], ["a", "a"], ["a", "b", "c", "d", "e"], ["x" * 65]]
)
def test_unfit_stop_sequences_are_named(stop: object) -> None:
    with pytest.raises(Invalid) as error:
        evals.check_stop(stop)
    assert error.value.kind == "bad-decoding"


def bits(*rights: bool) -> str:
    return evals.packed(Scores({str(place): right for place, right in enumerate(rights)}))


ADAPTER = bits(True, True, False, False, True)
BASE = bits(False, False, True, False, True)


def test_pairing_counts_by_item() -> None:
    assert pair([ADAPTER], [BASE], 5) == Paired(n=5, both=1, only_adapter=2, only_base=1, neither=1)


def test_of_runs_that_disagree_the_least_favourable_answer_counts() -> None:
    """So nobody gains by running again until it goes well, nor by a base that went badly once."""
    lucky, none, everything = bits(*[True] * 5), bits(*[False] * 5), bits(*[True] * 5)
    assert pair([ADAPTER, lucky], [BASE], 5) == pair([ADAPTER], [BASE], 5)
    assert pair([ADAPTER, none, lucky], [BASE], 5) == pair([none], [BASE], 5)
    assert pair([ADAPTER], [BASE, none], 5) == pair([ADAPTER], [BASE], 5)
    assert pair([ADAPTER], [none, everything], 5) == pair([ADAPTER], [everything], 5)
    assert evals.disagreeing([ADAPTER, lucky], 5) == 2
    assert evals.disagreeing([ADAPTER, ADAPTER], 5) == evals.disagreeing([], 5) == 0


@given(st.lists(st.booleans(), min_size=1, max_size=70))
def test_outcomes_are_packed_in_the_suites_order(rights: list[bool]) -> None:
    packed = bits(*rights)
    assert [bool(int(packed, 16) >> place & 1) for place in range(len(rights))] == rights
    assert pair([packed], [packed], len(rights)).both == sum(rights)


# Newcombe 1998, Statistics in Medicine 17:857-872, Table I, method 3: (correct, n) -> interval.
WILSON = [
    ((81, 263), (0.2553, 0.3662)),
    ((15, 148), (0.0624, 0.1605)),
    ((0, 20), (0.0, 0.1611)),
    ((1, 29), (0.0061, 0.1718)),
]


@pytest.mark.parametrize(("counts", "interval"), WILSON)
def test_wilson_gives_the_published_intervals(
    counts: tuple[int, int], interval: tuple[float, float]
) -> None:
    assert wilson(*counts) == pytest.approx(interval, abs=5e-5)


def test_wilson_at_the_ends() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(0, 7)[0] == 0.0
    assert wilson(7, 7)[1] == 1.0
    low, high = wilson(3, 7, 0.99)
    assert low < wilson(3, 7)[0] < 3 / 7 < wilson(3, 7)[1] < high


# Newcombe 1998, Statistics in Medicine 17:2635-2650, Table III, rows of method 10:
# (both, only the first, only the second, neither) -> 95 % interval of the difference.
NEWCOMBE = [
    ((36, 12, 2, 0), (0.0569, 0.3404)),
    ((20, 12, 2, 16), (0.0562, 0.3292)),
    ((18, 12, 2, 18), (0.0562, 0.3290)),
    ((36, 14, 0, 0), (0.1528, 0.4167)),
    ((35, 14, 0, 1), (0.1461, 0.4175)),
    ((18, 14, 0, 18), (0.1441, 0.3963)),
    ((2, 97, 1, 0), (0.8721, 0.9854)),
    # Fagerland, Lydersen, Laake: Statistical Analysis of Contingency Tables (2017), chapter 8, Cavo
    # et al. 2012, as printed by the authors' R package contingencytables.
    ((59, 6, 16, 80), (-0.1186, -0.0046)),
]


def paired(both: int, only_adapter: int, only_base: int, neither: int) -> Paired:
    return Paired(both + only_adapter + only_base + neither, both, only_adapter, only_base, neither)


@pytest.mark.parametrize(("counts", "interval"), NEWCOMBE)
def test_difference_gives_the_published_intervals(
    counts: tuple[int, int, int, int], interval: tuple[float, float]
) -> None:
    gain, low, high = difference(paired(*counts))
    assert (low, high) == pytest.approx(interval, abs=6e-5)
    assert gain == (counts[1] - counts[2]) / sum(counts)


@settings(max_examples=300)
@given(st.tuples(*[st.integers(0, 60)] * 4), st.sampled_from([0.8, 0.95, 0.99]))
def test_difference_is_sane_everywhere(
    counts: tuple[int, int, int, int], confidence: float
) -> None:
    both, ours, theirs, neither = counts
    gain, low, high = difference(paired(*counts), confidence)
    assert -1 <= low <= gain <= high <= 1
    other_gain, other_low, other_high = difference(paired(both, theirs, ours, neither), confidence)
    assert (other_gain, other_low, other_high) == pytest.approx((-gain, -high, -low))
    wider = difference(paired(*counts), 0.999)
    assert wider[1] <= low + 1e-12
    assert wider[2] >= high - 1e-12


def test_no_items_say_nothing() -> None:
    assert difference(Paired(0, 0, 0, 0, 0)) == (0.0, -1.0, 1.0)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """20 points of true gain at n = 60, seeded; 2,000 draws have a standard error of 0.5 points."""
    rng = random.Random(20261122)
    weights = (0.25, 0.30, 0.10, 0.35)
    covered = 0
    for _ in range(2000):
        drawn = rng.choices(range(4), weights, k=60)
        _, low, high = difference(paired(*(drawn.count(kind) for kind in range(4))))
        covered += low <= 0.2 <= high
    assert 0.93 <= covered / 2000 <= 0.98


@pytest.mark.parametrize(
    ("b", "c", "p"),
    [
        (
            1,
            7,
            0.070313,
            # Fagerland, Lydersen, Laake 2013, BMC Med Res Methodol 13:91: airway
            # hyper-responsiveness
        ),
        (
            6,
            16,
            0.052479,
        ),  # the same authors' package contingencytables, Cavo et al. 2012: complete response
        (0, 0, 1.0),
        (5, 5, 1.0),
        (0, 10, 2 / 1024),
    ],
)
def test_exact_mcnemar(b: int, c: int, p: float) -> None:
    assert mcnemar(b, c) == pytest.approx(p, abs=1e-6)
    assert mcnemar(c, b) == mcnemar(b, c)


def test_mcnemar_of_many_items_neither_overflows_nor_rounds_away() -> None:
    assert mcnemar(5000, 5000) == 1.0
    assert 0.0 < mcnemar(4800, 5200) < 1e-4
