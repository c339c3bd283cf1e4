"""Many pulls at once, and readers who stop reading: the server's memory stays flat, and everybody
else is served.
"""

from __future__ import annotations

import secrets
import socket
from contextlib import ExitStack
from pathlib import Path

import httpx

from tests.api.conftest import Door
from tests.api.server import serving
from tests.benches.pulls import large, many
from tests.build import a_person

CROWD, MEGABYTES, STALLED = 40, 8, 80


def test_a_crowd_in_flat_memory_and_readers_that_stop(door: Door, tmp_path: Path) -> None:
    engineer = a_person(door.store, "engineer", team=f"t{secrets.token_hex(4)}")
    name = f"{next(iter(engineer.actor.grants)).team}/large"
    size = large(door.store, door.blobs, engineer, name, MEGABYTES)
    token, place = door.token(engineer), f"/{name}/resolve/v1/model.safetensors"
    blobs = (door.settings.private / "blobs").as_uri()
    with serving(
        tmp_path, str(door.settings.database_url), {"COUNTERSIGN_BLOB_URL": blobs}
    ) as server:
        many(server.port, place, token, 2, size)
        before = server.peak()
        many(server.port, place, token, CROWD, size)
        assert server.peak() - before < 48  # MB; whole files would be 320
        request = (
            f"GET {place} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
        )
        with ExitStack() as lines:
            for _ in range(STALLED):  # twice as many as there are threads to answer requests
                line = lines.enter_context(socket.socket())
                line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                line.connect(("127.0.0.1", server.port))
                line.sendall(request)
            many(server.port, place, token, 2, size)
            info = httpx.get(
                f"{server.url}/api/models/{name}",
                headers={"Authorization": f"Bearer {token}"},
                timeout=120,
            )
            assert info.status_code == 200  # they hold their lines all the while
        many(server.port, place, token, 1, size)
        assert server.peak() - before < 64
