"""Many pulls at once, and readers who stop reading: what is held for them is bounded by how many
they are, and everybody else is served.

`make bench` (tests/benches/pulls.py) prints what 200 pulls at once cost a server process.
"""

from __future__ import annotations

import secrets
import socket
from contextlib import ExitStack
from urllib.parse import urlsplit

import httpx

from registry.api.bytes import FULL_PIECE_READERS, GIVEN, PIECE_BYTES, SMALL_PIECE_BYTES
from tests.api.conftest import Door
from tests.benches.pulls import large, many
from tests.build import a_person
from tests.gateway.served import until

CROWD, MEGABYTES, STALLED = 40, 8, 80


def allowed(readers: int) -> int:
    """Bytes in memory for so many readers: two pieces each, whole ones for the first of them and
    for those who come before these are counted.
    """
    whole = min(readers, 2 * FULL_PIECE_READERS)
    return 2 * (whole * PIECE_BYTES + (readers - whole) * SMALL_PIECE_BYTES)


def test_a_crowd_is_given_pieces_and_readers_that_stop_hold_no_more(door: Door) -> None:
    engineer = a_person(door.store, "engineer", team=f"t{secrets.token_hex(4)}")
    name = f"{next(iter(engineer.actor.grants)).team}/large"
    size = large(door.store, door.blobs, engineer, name, MEGABYTES)
    token, place = door.token(engineer), f"/{name}/resolve/v1/model.safetensors"
    port = urlsplit(door.url).port
    assert port is not None
    GIVEN.peak = 0
    many(port, place, token, CROWD, size)
    assert PIECE_BYTES <= GIVEN.peak <= allowed(CROWD)  # whole files would be 320 MB
    head = f"GET {place} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
    with ExitStack() as lines:
        for _ in range(STALLED):  # twice as many as there are threads to answer requests
            line = lines.enter_context(socket.socket())
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            line.connect(("127.0.0.1", port))
            line.sendall(head.encode())
        many(port, place, token, 2, size)
        info = httpx.get(
            f"{door.url}/api/models/{name}",
            headers={"Authorization": f"Bearer {token}"},
            timeout=120,
        )
        assert info.status_code == 200  # they hold their lines all the while
        assert 0 < GIVEN.now <= GIVEN.peak <= allowed(STALLED + 2)
    until(lambda: GIVEN.now == 0, "what was read for those who left is let go")
    many(port, place, token, 1, size)
