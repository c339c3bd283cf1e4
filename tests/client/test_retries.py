from __future__ import annotations

import pytest

from registry.client.retries import Retry
from registry.errors import Unavailable

AWAY = Retry(lambda error: isinstance(error, OSError), patience=10.0, first=0.5, longest=4.0)
EXACT = Retry(AWAY.is_passing, patience=10.0, first=0.5, longest=4.0, jitter=0.0)


def test_pauses_double_to_the_longest() -> None:
    pauses = [EXACT.pause(failures, 0.0, OSError()) for failures in (1, 2, 3, 4, 5, 10_000)]
    assert pauses == [0.5, 1.0, 2.0, 4.0, 4.0, 4.0]


def test_jitter_only_lengthens_and_is_bounded() -> None:
    pauses = [AWAY.pause(2, 0.0, OSError()) or 0.0 for _ in range(200)]
    assert all(1.0 <= pause <= 1.1 for pause in pauses)
    assert len(set(pauses)) > 100


def test_attempts_end_with_the_patience() -> None:
    assert EXACT.pause(4, 6.0, OSError()) == 4.0
    assert EXACT.pause(4, 6.1, OSError()) is None
    assert Retry(AWAY.is_passing, 0.0, 0.5, 4.0).pause(1, 0.0, OSError()) is None


def test_a_failure_that_does_not_pass_is_raised_at_once() -> None:
    assert EXACT.pause(1, 0.0, ValueError()) is None
    waits: list[float] = []

    def attempt() -> None:
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        EXACT.call(attempt, wait=waits.append)
    assert waits == []


def test_the_server_decides_the_pause() -> None:
    policy = Retry(lambda _: True, patience=10.0, first=0.5, longest=4.0)
    busy = Unavailable("bodies-busy", "It is busy.", "Wait.", retry_after=7)
    assert policy.pause(1, 0.0, busy) == 7.0
    assert policy.pause(1, 4.0, busy) is None


def test_the_call_is_repeated_and_told() -> None:
    failures, heard = [OSError("first"), OSError("second")], list[tuple[str, float]]()
    waits: list[float] = []

    def attempt() -> str:
        if failures:
            raise failures.pop(0)
        return "done"

    def on_wait(error: Exception, pause: float) -> None:
        heard.append((str(error), pause))

    assert EXACT.call(attempt, wait=waits.append, on_wait=on_wait) == "done"
    assert heard == [("first", 0.5), ("second", 1.0)]
    assert waits == [0.5, 1.0]


def test_a_wait_that_raises_ends_the_attempts() -> None:
    def wait(_: float) -> None:
        raise InterruptedError("told to stop")

    def attempt() -> None:
        raise OSError("away")

    with pytest.raises(InterruptedError):
        EXACT.call(attempt, wait=wait)
