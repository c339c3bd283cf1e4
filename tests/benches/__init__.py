"""Benchmarks by noun, each module with a `run()` that `make bench` calls; nothing here is a
test.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from tests.checkout import repository

RUNS = 7


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def paired(name: str, ours: Callable[[], object], other: Callable[[], object], said: str) -> None:
    """Both in turn, A B A B, so that a machine's mood meets both."""
    pairs = [(timed(ours), timed(other)) for _ in range(RUNS)]
    mine, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(
        f"{name:<44}{mine * 1000:>9.1f} ms   {said} {theirs * 1000:.1f} ms   ratio "
        f"{mine / theirs:.2f}"
    )


def process(*words: str) -> Callable[[], object]:
    return lambda: subprocess.run(
        [sys.executable, *words], cwd=repository(), capture_output=True, check=True
    )
