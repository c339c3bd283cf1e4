"""What of a long matrix `make test` runs: a few telling cases, and the rest in `make test-slow`."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def sampled(cases: Iterable[Any], telling: Collection[Any]) -> list[Any]:
    """The cases of a parametrised test: the telling ones are marked `sample`, the others `slow`.

    `make test` leaves out what is slow; `make test-slow` runs both, so that it has the whole
    matrix. A case that is a tuple gives several arguments.
    """
    every = list(cases)
    assert set(telling) <= set(every), "a telling case is one of the cases"
    return [
        pytest.param(
            *(case if isinstance(case, tuple) else (case,)),
            marks=pytest.mark.sample if case in telling else pytest.mark.slow,
        )
        for case in every
    ]
