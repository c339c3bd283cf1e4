"""A curve as the points of an inline SVG: drawn here, so that it needs no script."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 640, 200
LEFT, TOP, RIGHT, BOTTOM = 48, 8, 8, 24
MAX_TICKS = 5


@dataclass(frozen=True, slots=True)
class Curve:
    """A drawn curve: its line, its ticks as (place, label), and its first and last values."""

    line: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    first: float
    last: float
    last_step: int
    width: int = WIDTH
    height: int = HEIGHT


def curve(points: Sequence[tuple[int, float]]) -> Curve:
    """The curve of (step, value), on axes that begin and end at round numbers."""
    steps, values = [step for step, _ in points], [value for _, value in points]
    x_ticks = ticks(min(steps), max(steps))
    y_ticks = ticks(min(values), max(values))
    low_x, high_x = min(steps), max(steps)
    low_y, high_y = min(y_ticks[0], *values), max(y_ticks[-1], *values)

    def x(step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (step - low_x) / ((high_x - low_x) or 1)

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high_y - value) / ((high_y - low_y) or 1)

    return Curve(
        " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in points),
        [(round(x(tick), 1), f"{tick:g}") for tick in x_ticks if low_x <= tick <= high_x],
        [(round(y(tick), 1), f"{tick:g}") for tick in y_ticks],
        values[0],
        values[-1],
        steps[-1],
    )


def ticks(low: float, high: float) -> list[float]:
    """Round numbers from at most `low` to at least `high`: multiples of 1, 2 or 5 times ten."""
    if not high > low:
        return [low]
    rough = (high - low) / MAX_TICKS
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(number * step, 10) for number in range(first, last + 1)]
