"""Bytes over HTTP: streamed, hashed on the way, bounded, resumable; what breaks off leaves
nothing.
"""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.api.conftest import Door
from tests.build import Person, World, a_person
from tests.gateway.served import until


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def stored(door: Door) -> set[Path]:
    """Every file under the blob store, whole or on its way."""
    folder = door.settings.home / "private" / "blobs"
    return {path for path in folder.rglob("*") if path.is_file()}


def speak(door: Door, person: Person, head: str, body: bytes, *, close: bool) -> bytes:
    """Say something over a bare socket: what no well-behaved client would send."""
    port = urlsplit(door.url).port
    assert port is not None
    with socket.create_connection(("127.0.0.1", port), timeout=60) as line:
        text = f"{head}\r\nHost: x\r\nAuthorization: Bearer {door.token(person)}\r\n".encode()
        line.sendall(text + body)
        if close:
            return b""
        heard = b""
        while piece := line.recv(65536):
            heard += piece
        return heard


def test_bytes_go_in_once_and_come_out_whole(door: Door, world: World) -> None:
    data = os.urandom(300_000)
    path = f"/blobs/{sha(data)}"
    assert door.ask(world.engineer, "HEAD", path).status_code == 404
    answer = door.ask(world.engineer, "PUT", path, content=data)
    assert (answer.status_code, answer.json()) == (201, {"sha256": sha(data), "size": len(data)})
    again = stored(door)
    assert door.ask(world.trainer, "PUT", path, content=data).status_code == 201
    assert stored(door) == again
    whole = door.ask(world.trainer, "GET", path)
    assert (whole.content, whole.headers["etag"], whole.headers["accept-ranges"]) == (
        data,
        f'"{sha(data)}"',
        "bytes",
    )
    head = door.ask(world.engineer, "HEAD", path)
    assert (head.status_code, head.headers["content-length"], head.content) == (
        200,
        str(len(data)),
        b"",
    )


def test_a_download_resumes(door: Door, world: World) -> None:
    data = os.urandom(5000)
    door.upload(world.engineer, data)
    for asked, first, last in (
        ("bytes=1000-", 1000, 4999),
        ("bytes=0-0", 0, 0),
        ("bytes=4999-", 4999, 4999),
        ("bytes=10-99999", 10, 4999),
    ):
        part = door.ask(world.engineer, "GET", f"/blobs/{sha(data)}", headers={"Range": asked})
        assert (part.status_code, part.content) == (206, data[first : last + 1])
        assert part.headers["content-range"] == f"bytes {first}-{last}/5000"
    for asked in ("bytes=5000-", "bytes=20-10", f"bytes={10**30}-"):
        beyond = door.client.get(
            f"/api/v1/blobs/{sha(data)}",
            headers={"Range": asked, "Authorization": f"Bearer {door.token(world.engineer)}"},
        )
        assert (beyond.status_code, beyond.headers["content-range"]) == (416, "bytes */5000")
    last = door.ask(world.engineer, "GET", f"/blobs/{sha(data)}", headers={"Range": "bytes=-5"})
    assert (last.status_code, last.content) == (206, data[-5:])
    for odd in (
        "bytes=0-1,5-6",
        "chunks=1-2",
        "bytes=a-b",
    ):  # what is not understood is not followed: the whole thing
        assert (
            door.ask(world.engineer, "GET", f"/blobs/{sha(data)}", headers={"Range": odd}).content
            == data
        )


def test_a_download_is_for_the_bytes_one_has_or_for_none(door: Door, world: World) -> None:
    data = os.urandom(5000)
    path, etag = f"/blobs/{door.upload(world.engineer, data)['sha256']}", f'"{sha(data)}"'
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        answer = door.ask(world.engineer, "GET", path, headers={"If-None-Match": known})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
    assert (
        door.ask(world.engineer, "GET", path, headers={"If-None-Match": '"other"'}).content == data
    )
    part = door.ask(world.engineer, "GET", path, headers={"Range": "bytes=9-", "If-Range": etag})
    assert (part.status_code, part.content) == (206, data[9:])
    other = door.ask(
        world.engineer, "GET", path, headers={"Range": "bytes=9-", "If-Range": '"other"'}
    )
    assert (other.status_code, other.content) == (200, data)


def test_nothing_comes_of_nothing(door: Door, world: World) -> None:
    assert door.upload(world.engineer, b"") == {"sha256": sha(b""), "size": 0}
    assert door.ask(world.engineer, "GET", f"/blobs/{sha(b'')}").content == b""


def test_bytes_that_do_not_match_leave_nothing(door: Door, world: World) -> None:
    before = stored(door)
    data = os.urandom(100_000)
    assert door.refused(world.engineer, "PUT", f"/blobs/{sha(b'other')}", content=data) == (
        422,
        "digest-mismatch",
    )
    assert stored(door) == before


def test_too_much_is_refused_before_and_on_the_way(door: Door, world: World) -> None:
    before = stored(door)
    data = bytes(door.settings.max_blob_bytes + 1)
    assert door.refused(world.engineer, "PUT", f"/blobs/{sha(data)}", content=data) == (
        413,
        "body-too-large",
    )

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(data), 65536):
            yield data[start : start + 65536]

    assert door.refused(world.engineer, "PUT", f"/blobs/{sha(data)}", content=pieces()) == (
        413,
        "body-too-large",
    )
    assert stored(door) == before
    fits = bytes(door.settings.max_blob_bytes)
    assert door.ask(world.engineer, "PUT", f"/blobs/{sha(fits)}", content=fits).status_code == 201


def test_a_json_body_too_large_is_refused_by_its_length_alone(door: Door, world: World) -> None:
    body = {"text": "x" * door.settings.max_json_bytes}
    assert door.refused(world.engineer, "POST", "/policies", body) == (413, "body-too-large")


def test_a_json_body_must_say_its_length(door: Door, world: World) -> None:
    def pieces() -> Iterator[bytes]:
        yield b'{"ref": "a/b", '
        yield b'"environment": "dev", "share_bp": 1}'

    kind = door.refused(
        world.engineer,
        "POST",
        "/canaries",
        content=pieces(),
        headers={"content-type": "application/json"},
    )
    assert kind == (413, "length-missing")


def test_an_upload_that_breaks_off_leaves_nothing(door: Door, world: World) -> None:
    before = stored(door)
    data = os.urandom(200_000)
    head = f"PUT /api/v1/blobs/{sha(data)} HTTP/1.1"
    speak(
        door,
        world.engineer,
        head,
        f"Content-Length: {len(data)}\r\n\r\n".encode() + data[:70_000],
        close=True,
    )
    chunk = f"{70_000:x}\r\n".encode() + data[:70_000] + b"\r\n"
    speak(door, world.engineer, head, b"Transfer-Encoding: chunked\r\n\r\n" + chunk, close=True)
    until(lambda: stored(door) == before, "what broke off is gone")
    assert door.ask(world.engineer, "HEAD", f"/blobs/{sha(data)}").status_code == 404
    assert door.ask(world.engineer, "PUT", f"/blobs/{sha(data)}", content=data).status_code == 201


@pytest.mark.parametrize(
    "lie",
    [
        b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"Content-Length: -5\r\n\r\nhello",
        b"Content-Length: x\r\n\r\nhello",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_lies_about_the_length_are_refused(door: Door, world: World, lie: bytes) -> None:
    heard = speak(
        door,
        world.engineer,
        "POST /api/v1/canaries HTTP/1.1",
        b"Connection: close\r\n" + lie,
        close=False,
    )
    assert heard == b"" or heard.startswith((b"HTTP/1.1 400", b"HTTP/1.1 413", b"HTTP/1.1 422")), (
        heard
    )


def test_many_uploads_at_once(door: Door, world: World) -> None:
    from concurrent.futures import ThreadPoolExecutor

    count = (
        80  # more than the threads of the server's own pool, and more than may be stored at once
    )
    parts = [os.urandom(50_000) for _ in range(count)]
    with ThreadPoolExecutor(count) as pool:
        done = list(
            pool.map(
                lambda data: (
                    door.ask(world.engineer, "PUT", f"/blobs/{sha(data)}", content=data).status_code
                ),
                parts,
            )
        )
    assert done == [201] * count
    assert all(
        door.ask(world.engineer, "HEAD", f"/blobs/{sha(data)}").status_code == 200 for data in parts
    )


def test_who_may_not_upload_is_told_so(door: Door, world: World) -> None:
    gateway = a_person(door.store, "gateway", team=world.team)
    assert door.refused(gateway, "PUT", f"/blobs/{sha(b'x')}", content=b"x") == (
        403,
        "role-missing",
    )
    assert door.refused(None, "PUT", f"/blobs/{sha(b'x')}", content=b"x") == (401, "token-missing")
    for bad in ("0" * 63, "G" * 64, "A" * 64, "sha256:" + "0" * 63):
        assert door.refused(world.engineer, "PUT", f"/blobs/{bad}", content=b"x") == (
            422,
            "bad-digest",
        )
