"""Room for what strangers sent: as much as there is, in the order in which it is asked for, and a
short line.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from registry.artifacts.bundles.memory import Room
from registry.errors import Unavailable
from tests.gateway.served import until


def test_what_fits_goes_together_and_more_than_all_is_all() -> None:
    room = Room(10)
    with room.take(6), room.take(4):
        pass
    with room.take(11):
        pass


def test_a_large_one_is_not_passed_by_the_small_ones_after_it() -> None:
    room, order = Room(10), list[str]()

    def enter(name: str, size: int) -> None:
        with room.take(size):
            order.append(name)

    with ThreadPoolExecutor() as crowd:
        with room.take(6):
            large = crowd.submit(enter, "large", 8)
            until(lambda: room.waiting == 1, "the large one waits", 30)
            later = crowd.submit(enter, "small", 1)
            until(lambda: room.waiting == 2, "so does the small one", 30)
            assert order == []
        large.result()
        later.result()
    assert order == ["large", "small"]


def test_who_keeps_less_makes_room() -> None:
    room = Room(10, patience=0)
    with room.take(10) as reservation:
        with pytest.raises(Unavailable) as refused, room.take(1):
            pass
        assert (refused.value.kind, refused.value.facts) == (
            "judging-busy",
            {"retry_after": 2, "sent": False},
        )
        reservation.shrink(9)
        reservation.shrink(10)  # never more than it has
        with room.take(1):
            pass
    with room.take(10):
        pass


def test_a_line_too_long_is_told_at_once() -> None:
    room = Room(1, line=1)
    with ThreadPoolExecutor() as crowd:
        with room.take(1):
            waits = crowd.submit(lambda: room.take(1).__enter__().shrink(0))
            until(lambda: room.waiting == 1, "one waits", 30)
            with pytest.raises(Unavailable, match="already waiting to be judged"), room.take(1):
                pass
        waits.result()


def test_what_fails_inside_gives_its_room_back() -> None:
    room = Room(1, patience=0)
    with pytest.raises(ZeroDivisionError), room.take(1):
        _ = 1 / 0
    with room.take(1):
        pass
