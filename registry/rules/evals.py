"""Scores computed again from the outputs, and what they say about a difference.

A trainer's own counts are never trusted: the suite knows the expected answers, the samples hold the
actual ones. Two runs on the same items are compared item by item, which needs far fewer items than
comparing two averages.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from registry.errors import Invalid, Refused

MAX_STOPS = 4
MAX_STOP_CHARACTERS = 64
NORMALISATION = "nfc-1"
"""How new suites compare texts. A suite keeps the name, so that old scores stay interpretable."""


def nfc(text: str) -> str:
    """The text without the differences that nobody can see.

    Those are the Unicode form (NFC), the way a line ends, and white space around the text. NFKC and
    letter case are not among them: they change what is written.
    """
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    return unicodedata.normalize("NFC", lines).strip()


NORMALISATIONS: dict[str, Callable[[str], str]] = {NORMALISATION: nfc}


def check_stop(stop: object) -> list[str]:
    """The stop sequences of a suite's decoding, or Invalid."""
    if (
        isinstance(stop, list)
        and len(stop) <= MAX_STOPS
        and all(isinstance(each, str) and 0 < len(each) <= MAX_STOP_CHARACTERS for each in stop)
        and len({*stop}) == len(stop)
    ):
        return stop
    raise Invalid(
        "bad-decoding",
        f"stop must be a list of at most {MAX_STOPS} different texts of 1 to "
        f"{MAX_STOP_CHARACTERS} characters.",
        'Write for example stop: ["\\n"], or leave it out.',
    )


def cut(text: str, stop: Iterable[str]) -> str:
    """The text up to the first of the stop sequences, which engines leave out too."""
    places = [place for each in stop if (place := text.find(each)) >= 0]
    return text[: min(places)] if places else text


def exact_match(output: str, expected: str) -> bool:
    """Whether the output is the expected answer; both are normalised already."""
    return output == expected


WRITERS = ("AutoModelForCausalLM", "AutoModelForImageTextToText", "AutoModelForMultimodalLM")
"""The automatic classes whose models write text."""


def check_subject(ref: str, loads_as: object) -> None:
    """Check that the version writes text, which a suite compares.

    Raises Refused `writes-no-text` where it is loaded through a class that writes none.
    """
    if loads_as not in (None, *WRITERS):
        raise Refused(
            "writes-no-text",
            f"{ref} is loaded through {loads_as}, which answers with vectors or labels; a suite "
            "compares text.",
            subject=ref,
        )


METRICS: dict[str, Callable[[str, str], bool]] = {"exact_match": exact_match}


@dataclass(frozen=True, slots=True)
class Scores:
    """Whether each answer is right, by item id in the suite's order."""

    by_item: dict[str, bool]

    @property
    def n(self) -> int:
        return len(self.by_item)

    @property
    def correct(self) -> int:
        return sum(self.by_item.values())


@dataclass(frozen=True, slots=True)
class Paired:
    """How many items both runs, one of them or neither answered rightly."""

    n: int
    both: int
    only_adapter: int
    only_base: int
    neither: int


@dataclass(frozen=True, slots=True)
class Scoring:
    """How a suite judges an answer: cut it at the first stop, normalise both texts, compare."""

    metric: str = "exact_match"
    stop: tuple[str, ...] = ()
    normalisation: str = NORMALISATION

    def is_right(self, output: str, expected: str) -> bool:
        same_form = NORMALISATIONS[self.normalisation]
        return METRICS[self.metric](same_form(cut(output, self.stop)), same_form(expected))

    def check_answer(self, prompt: str, expected: str) -> None:
        """Raise Invalid `bad-decoding` where a stop cuts the answer that an item expects.

        Such an item is wrong whatever a model writes, so it measures nothing. The item is named by
        its prompt: expected answers stay in the registry.
        """
        answer = NORMALISATIONS[self.normalisation](expected)
        if not (self.is_right(answer, expected) or self.is_right(expected, expected)):
            stop = next(stop for stop in self.stop if stop in answer)
            raise Invalid(
                "bad-decoding",
                f"The stop {stop!r} cuts the expected answer to {prompt[:60]!r}, so that no output "
                "could be right.",
                "Leave out that stop, or change the answer in the data set.",
            )


def score(
    answers: Iterable[tuple[str, str]], expected: Mapping[str, str], scoring: Scoring
) -> Scores:
    """Judge every answer (item id, output) against the suite's own answers, `expected` by item id.

    Raises Invalid `unknown-metric`, or Refused for an item that is unknown, answered twice or not
    answered at all: a rate over a chosen part of the suite is not the suite's rate.
    """
    if scoring.metric not in METRICS:
        raise Invalid(
            "unknown-metric",
            f"There is no metric '{scoring.metric[:40]}'.",
            f"Use one of {', '.join(METRICS)}.",
        )
    outputs: dict[str, str] = {}
    for number, (item, output) in enumerate(answers, 1):
        if item not in expected:
            raise Refused(
                "sample-unknown-item",
                f"Line {number} of the samples answers '{item[:40]}', which is no item of "
                "the suite.",
            )
        if item in outputs:
            raise Refused(
                "sample-duplicate-item",
                f"Line {number} of the samples answers {item} a second time.",
            )
        outputs[item] = output
    if missing := [item for item in expected if item not in outputs]:
        raise Refused(
            "sample-missing-item",
            f"{len(missing)} of {len(expected)} items are not answered, the first is {missing[0]}.",
            missing=missing[:20],
        )
    return Scores(
        {item: scoring.is_right(outputs[item], answer) for item, answer in expected.items()}
    )


def packed(scores: Scores) -> str:
    """Which items are right, one bit an item in the suite's order, in hex."""
    bits = sum(right << place for place, right in enumerate(scores.by_item.values()))
    return f"{bits:0{(scores.n + 3) // 4}x}"


def right_items(outcomes: Sequence[str], count: int, *, in_all: bool) -> int:
    """The items that are right in all of these runs, or in any of them, as bits.

    Runs are greedy, so they should agree. Where they do not, nobody may choose the better one.
    """
    bits = (1 << count) - 1 if in_all else 0
    for each in outcomes:
        bits = bits & int(each, 16) if in_all else bits | int(each, 16)
    return bits


def pair(adapter: Sequence[str], base: Sequence[str], count: int) -> Paired:
    """Count all runs of a version against all runs of its base, item by item, from `packed` bits.

    An item counts for the version where every run of it is right, and for the base where any run
    of it is: of runs that disagree, the least favourable answer counts.
    """
    own = right_items(adapter, count, in_all=True)
    other = right_items(base, count, in_all=False)
    both = (own & other).bit_count()
    only_adapter, only_base = own.bit_count() - both, other.bit_count() - both
    return Paired(count, both, only_adapter, only_base, count - both - only_adapter - only_base)


def disagreeing(outcomes: Sequence[str], count: int) -> int:
    """The number of items that some of these runs answer rightly and others wrongly."""
    if not outcomes:
        return 0
    return (
        right_items(outcomes, count, in_all=False) & ~right_items(outcomes, count, in_all=True)
    ).bit_count()


def wilson(correct: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The two-sided score interval of a rate (Wilson 1927); 0..1 when there are no items."""
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    rate = correct / n
    centre = rate + z * z / (2 * n)
    spread = z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # At the ends the interval touches 0 or 1 exactly; rounding must not push it beyond.
    low = 0.0 if correct == 0 else (centre - spread) / scale
    high = 1.0 if correct == n else (centre + spread) / scale
    return low, high


def difference(paired: Paired, confidence: float = 0.95) -> tuple[float, float, float]:
    """The adapter's rate minus the base's, with its interval: (estimate, low, high) in -1..1.

    This is Newcombe's hybrid score interval for paired data, method 10 (Statistics in Medicine
    1998, 17:2635-2650): it joins the Wilson intervals of both rates by their correlation with its
    continuity correction. It keeps its level at small n, where the simple interval does not.
    Without items the interval is all of -1..1.
    """
    n, a, b, c, d = paired.n, paired.both, paired.only_adapter, paired.only_base, paired.neither
    if n == 0:
        return 0.0, -1.0, 1.0
    adapter_rate, base_rate = (a + b) / n, (a + c) / n
    low1, high1 = wilson(a + b, n, confidence)
    low2, high2 = wilson(a + c, n, confidence)
    margins = (a + b) * (c + d) * (a + c) * (b + d)
    cross = a * d - b * c
    corrected = max(cross - n / 2, 0.0) if cross > 0 else float(cross)
    phi = corrected / math.sqrt(margins) if margins else 0.0

    def reach(first: float, second: float) -> float:
        return math.sqrt(max(first * first - 2 * phi * first * second + second * second, 0.0))

    gain = (b - c) / n
    low = gain - reach(adapter_rate - low1, high2 - base_rate)
    high = gain + reach(high1 - adapter_rate, base_rate - low2)
    return gain, max(low, -1.0), min(high, 1.0)


def mcnemar(only_adapter: int, only_base: int) -> float:
    """The exact two-sided p of McNemar's test.

    It is the probability that a fair coin deals the items that only one side answered rightly as
    unevenly as this.
    """
    n = only_adapter + only_base
    # `term` is the binomial coefficient of n and k, updated at each step: calling math.comb each
    # time would take seconds.
    tail = term = 1
    for k in range(min(only_adapter, only_base)):
        term = term * (n - k) // (k + 1)
        tail += term
    return min(1.0, 2 * tail / (1 << n))
