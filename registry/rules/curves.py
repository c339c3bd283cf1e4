"""The loss of a run so far, as heartbeats report it: few points, however long the run is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

MAX_POINTS = 200
"""Points that are kept. When there are more, every second one goes, so the whole run stays."""


def extended(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """The progress `now`, with the curve of `before` and the new point of step and loss.

    A step that was reported already replaces its point and those after it: the attempt went back to
    its save point. What a worker itself sends as `curve` does not count.
    """
    points = [[step, loss] for step, loss in before.get("curve", [])]
    progress = {key: value for key, value in now.items() if key != "curve"}
    step, loss = now.get("step"), now.get("loss")
    if isinstance(step, int) and isinstance(loss, int | float) and math.isfinite(loss):
        points = [point for point in points if point[0] < step] + [[step, float(loss)]]
    if len(points) > MAX_POINTS:
        points = points[::2] if len(points) % 2 else points[::2] + points[-1:]
    return progress | {"curve": points} if points else progress


def of(progress: Mapping[str, Any]) -> list[tuple[int, float]]:
    """The points of (step, loss) in a run's progress."""
    return [(step, loss) for step, loss in progress.get("curve", [])]
