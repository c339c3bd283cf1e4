"""The loss of a run so far stays small, whole and finite, whatever a worker reports."""

from __future__ import annotations

from typing import Any

from registry.rules import curves


def reported(*records: dict[str, Any]) -> dict[str, Any]:
    progress: dict[str, Any] = {}
    for record in records:
        progress = curves.extended(progress, record)
    return progress


def test_a_long_run_keeps_few_points_and_both_ends() -> None:
    points = curves.of(reported(*({"step": step, "loss": 1 / step} for step in range(1, 5001))))
    assert len(points) <= curves.MAX_POINTS
    assert points[0] == (1, 1.0)
    assert points[-1] == (5000, 1 / 5000)
    assert [step for step, _ in points] == sorted({step for step, _ in points})


def test_an_attempt_that_goes_back_replaces_what_came_after() -> None:
    progress = reported(*({"step": step, "loss": 1.0} for step in (1, 2, 3, 4)))
    assert curves.of(curves.extended(progress, {"step": 3, "loss": 0.5})) == [
        (1, 1.0),
        (2, 1.0),
        (3, 0.5),
    ]


def test_what_is_no_point_is_left_out() -> None:
    for record in ({}, {"step": 1}, {"step": "1", "loss": 1}, {"step": 1, "loss": float("nan")}):
        assert curves.of(reported({"step": 0, "loss": 2.0}, record)) == [(0, 2.0)]
    assert "curve" not in reported({"done": 3, "curve": "x" * 1000})
