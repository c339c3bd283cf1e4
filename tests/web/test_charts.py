"""A curve fits its frame and ends at round numbers."""

from __future__ import annotations

import pytest

from registry.web.charts import HEIGHT, WIDTH, curve, ticks


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.37, 2.6, [0, 0.5, 1, 1.5, 2, 2.5, 3]),
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (1, 1, [1]),
        (990, 1010, [990, 995, 1000, 1005, 1010]),
    ],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == expected


@pytest.mark.parametrize("values", [[2.0, 1.0, 0.5], [1.0, 1.0], [1e-9, 1e9]])
def test_every_point_is_inside(values: list[float]) -> None:
    drawn = curve(list(enumerate(values, 1)))
    for point in drawn.line.split(" "):
        x, y = map(float, point.split(","))
        assert 0 <= x <= WIDTH
        assert 0 <= y <= HEIGHT
