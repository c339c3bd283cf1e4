"""Scores computed again from the outputs, and what they say about a difference.

A trainer's own counts are never trusted: the suite knows the expected answers, the samples hold the
actual ones. Two runs on the same items are compared item by item, which needs far fewer items than
comparing two averages.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import NormalDist

from registry.errors import Invalid, Refused


def exact_match(output: str, expected: str) -> bool:
    """Whether the output is the expected answer; white space around either does not count."""
    return output.strip() == expected.strip()


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


def score(
    answers: Iterable[tuple[str, str]], expected: Mapping[str, str], metric: str = "exact_match"
) -> Scores:
    """Judge every answer (item id, output) against the suite's own answers, `expected` by item id.

    Raises Invalid `unknown-metric`, or Refused for an item that is unknown, answered twice or not
    answered at all: a rate over a chosen part of the suite is not the suite's rate.
    """
    if metric not in METRICS:
        raise Invalid(
            "unknown-metric",
            f"There is no metric '{metric[:40]}'.",
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
        {item: METRICS[metric](outputs[item], answer) for item, answer in expected.items()}
    )


def pair(adapter: Mapping[str, bool], base: Mapping[str, bool]) -> Paired:
    """Count two runs against each other.

    Raises Refused `not-paired` unless both answered exactly the same items.
    """
    if adapter.keys() != base.keys():
        raise Refused(
            "not-paired",
            f"{len(adapter.keys() ^ base.keys())} items were answered in only one of the "
            "two eval runs.",
        )
    both = sum(right and base[item] for item, right in adapter.items())
    only_adapter = sum(adapter.values()) - both
    only_base = sum(base.values()) - both
    return Paired(
        len(adapter), both, only_adapter, only_base, len(adapter) - both - only_adapter - only_base
    )


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
