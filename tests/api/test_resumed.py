"""Uploads that go on: what honest senders get after a cut, and what the others do not get."""

from __future__ import annotations

import os
import socket
import threading
from urllib.parse import urlsplit

import httpx
import pytest

from registry.api import bytes as pieces
from tests.api.conftest import Door
from tests.api.test_uploads import sha, speak, stored
from tests.build import World, a_person
from tests.gateway.served import until


def patch(
    door: Door, world: World, data: bytes, start: int, body: bytes, **headers: str
) -> httpx.Response:
    more = {
        "Upload-Offset": str(start),
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    return door.ask(world.engineer, "PATCH", f"/uploads/{sha(data)}", content=body, headers=more)


def offset(door: Door, world: World, data: bytes) -> int | None:
    answer = door.ask(world.engineer, "HEAD", f"/uploads/{sha(data)}")
    assert answer.status_code == 404 or (answer.status_code, answer.headers["upload-complete"]) == (
        204,
        "?0",
    )
    return int(answer.headers["upload-offset"]) if answer.status_code == 204 else None


def head(door: Door, data: bytes, start: int, length: int) -> str:
    return (
        f"PATCH /api/v1/uploads/{sha(data)} HTTP/1.1\r\nUpload-Offset: "
        f"{start}\r\nContent-Length: {length}"
    )


def test_a_cut_upload_goes_on_where_it_stopped(door: Door, world: World) -> None:
    data = os.urandom(300_000)
    assert offset(door, world, data) is None
    speak(
        door, world.engineer, head(door, data, 0, len(data)), b"\r\n" + data[:100_000], close=True
    )
    until(lambda: offset(door, world, data) == 100_000, "what came before the cut is kept")
    assert door.ask(world.engineer, "HEAD", f"/blobs/{sha(data)}").status_code == 404
    answer = patch(door, world, data, 100_000, data[100_000:])
    assert (answer.status_code, answer.json()) == (201, {"sha256": sha(data), "size": len(data)})
    assert (answer.headers["upload-complete"], answer.headers["upload-offset"]) == (
        "?1",
        str(len(data)),
    )
    assert door.ask(world.engineer, "GET", f"/blobs/{sha(data)}").content == data
    assert offset(door, world, data) is None


def test_an_upload_may_come_in_pieces(door: Door, world: World) -> None:
    data = os.urandom(200_000)
    for start in range(0, 150_000, 50_000):
        answer = patch(door, world, data, start, data[start : start + 50_000], Upload_Complete="?0")
        assert (answer.status_code, answer.headers["upload-offset"]) == (204, str(start + 50_000))
        assert answer.headers["upload-complete"] == "?0"
    assert patch(door, world, data, 150_000, data[150_000:]).status_code == 201
    assert (
        patch(door, world, data, 0, data).status_code == 201
    )  # again, whole: the same bytes, the same answer


def test_the_server_may_be_started_again_in_between(
    door: Door, world: World, databases: object
) -> None:
    """Nothing of an upload is in its memory: another application on the same store goes on."""
    from registry.blobs.uploads import Uploads

    data = os.urandom(100_000)
    patch(door, world, data, 0, data[:60_000], Upload_Complete="?0")
    before = door.app.state.uploads
    door.app.state.uploads = Uploads(door.blobs, 1 << 21)
    try:
        assert offset(door, world, data) == 60_000
        assert patch(door, world, data, 60_000, data[60_000:]).status_code == 201
    finally:
        door.app.state.uploads = before


def test_a_wrong_offset_is_a_conflict_that_tells_the_right_one(door: Door, world: World) -> None:
    data = os.urandom(10_000)
    patch(door, world, data, 0, data[:4000], Upload_Complete="?0")
    for wrong in (0, 3999, 4001, 10_000, 10**14):
        answer = patch(door, world, data, wrong, b"")
        limit = wrong == 10**14
        assert (answer.status_code, answer.json()["kind"]) == (
            (413, "body-too-large") if limit else (409, "upload-offset")
        )
        if not limit:
            assert answer.headers["upload-offset"] == "4000"
            assert answer.json()["facts"] == {"offset": 4000}
    assert patch(door, world, data, 4000, data[4000:]).status_code == 201


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Upload-Offset": ""},
        {"Upload-Offset": "-1"},
        {"Upload-Offset": "+0"},
        {"Upload-Offset": "0x0"},
        {"Upload-Offset": "1e3"},
        {"Upload-Offset": "٣"},
        {"Upload-Offset": "9" * 40},
        {"Upload-Offset": "0, 0"},
        {"Upload-Offset": "0", "Upload-Complete": "?2"},
        {"Upload-Offset": "0", "Upload-Complete": "true"},
        {"Upload-Offset": "0", "Content-Range": "bytes 0-3/4"},
        {"Upload-Offset": "0", "Content-Range": "bytes 5-1/*"},
    ],
)
def test_an_offset_that_is_none_is_refused(
    door: Door, world: World, headers: dict[str, str]
) -> None:
    before = stored(door)
    told = {name: value.encode() for name, value in headers.items()}
    kind = door.refused(
        world.engineer, "PATCH", f"/uploads/{sha(b'data')}", content=b"data", headers=told
    )
    assert kind == (422, "bad-offset")
    assert stored(door) == before


def test_of_two_senders_at_once_one_wins(door: Door, world: World) -> None:
    data, before = os.urandom(200_000), stored(door)
    port = urlsplit(door.url).port
    with socket.create_connection(("127.0.0.1", port or 0)) as line:
        text = (
            f"{head(door, data, 0, len(data))}\r\nHost: x\r\nAuthorization: Bearer "
            f"{door.token(world.engineer)}\r\n\r\n"
        )
        line.sendall(text.encode() + data[:1000])
        until(lambda: stored(door) != before, "the first one holds it")
        second = patch(door, world, data, 0, b"x" * len(data))
        assert (second.status_code, second.json()["kind"]) == (409, "upload-busy")
        assert door.refused(world.engineer, "DELETE", f"/uploads/{sha(data)}") == (
            409,
            "upload-busy",
        )
        line.sendall(data[1000:])
        assert line.recv(65536).startswith(b"HTTP/1.1 201")
    assert door.ask(world.engineer, "GET", f"/blobs/{sha(data)}").content == data


def test_an_upload_belongs_to_its_account(door: Door, world: World) -> None:
    data = os.urandom(10_000)
    patch(door, world, data, 0, data[:4000], Upload_Complete="?0")
    path = f"/uploads/{sha(data)}"
    assert door.ask(world.trainer, "HEAD", path).status_code == 404
    assert door.refused(world.trainer, "DELETE", path) == (404, "upload-missing")
    assert door.refused(
        world.trainer, "PATCH", path, content=b"", headers={"Upload-Offset": "4000"}
    ) == (
        409,
        "upload-offset",
    )
    gateway = a_person(door.store, "gateway", team=world.team)
    for method in ("PATCH", "DELETE"):
        assert door.refused(gateway, method, path, headers={"Upload-Offset": "0"}) == (
            403,
            "role-missing",
        )
    assert door.ask(gateway, "HEAD", path).status_code == 403
    assert offset(door, world, data) == 4000
    assert door.ask(world.engineer, "DELETE", path).status_code == 204
    assert offset(door, world, data) is None


@pytest.mark.parametrize(
    "bad",
    ["0" * 63, "G" * 64, "A" * 64, "..%2f..%2fetc%2fpasswd", "%2e%2e", "sha256:", "0" * 64 + "%00"],
)
def test_only_a_digest_names_an_upload(door: Door, world: World, bad: str) -> None:
    before = stored(door)
    status, kind = door.refused(
        world.engineer, "PATCH", f"/uploads/{bad}", content=b"x", headers={"Upload-Offset": "0"}
    )
    assert (status, kind) in {(422, "bad-digest"), (404, "route-unknown"), (405, "bad-method")}
    assert stored(door) == before


def test_other_bytes_than_named_leave_nothing(door: Door, world: World) -> None:
    data, before = os.urandom(10_000), stored(door)
    patch(door, world, data, 0, data[:4000], Upload_Complete="?0")
    answer = patch(door, world, data, 4000, data[:6000])
    assert (answer.status_code, answer.json()["kind"]) == (422, "digest-mismatch")
    assert stored(door) == before
    assert patch(door, world, data, 0, data).status_code == 201


def test_the_limit_of_a_file_counts_all_its_parts(door: Door, world: World) -> None:
    most, before = door.settings.max_blob_bytes, stored(door)
    data = os.urandom(64) + bytes(most)
    half = most // 2
    assert patch(door, world, data, 0, data[:half], Upload_Complete="?0").status_code == 204
    declared = patch(door, world, data, half, data[half:])
    assert (declared.status_code, declared.json()["kind"]) == (413, "body-too-large")
    chunked = door.ask(
        world.engineer,
        "PATCH",
        f"/uploads/{sha(data)}",
        headers={"Upload-Offset": str(half)},
        content=(data[at : at + 65536] for at in range(half, len(data), 65536)),
    )
    assert (chunked.status_code, chunked.json()["kind"]) == (413, "body-too-large")
    assert stored(door) == before


def test_what_an_account_leaves_unfinished_is_bounded(door: Door, world: World) -> None:
    engineer = a_person(door.store, "engineer", team=world.team)
    left = [os.urandom(700_000) for _ in range(3)]
    for data in left[:2]:
        headers = {"Upload-Offset": "0", "Upload-Complete": "?0"}
        assert (
            door.ask(
                engineer, "PATCH", f"/uploads/{sha(data)}", content=data, headers=headers
            ).status_code
            == 204
        )
    answer = door.ask(
        engineer, "PATCH", f"/uploads/{sha(left[2])}", content=left[2] + b"...", headers=headers
    )
    assert (answer.status_code, answer.json()["kind"]) == (413, "unfinished-uploads")
    assert int(answer.headers["retry-after"]) == 3600
    for data in left:
        door.ask(engineer, "DELETE", f"/uploads/{sha(data)}")


def test_lies_in_chunks_keep_what_was_true(door: Door, world: World) -> None:
    """A chunk whose length is a lie ends the connection; what came before it is kept and goes
    on.
    """
    data = os.urandom(150_000)
    begin = (
        f"PATCH /api/v1/uploads/{sha(data)} HTTP/1.1\r\nUpload-Offset: "
        "0\r\nTransfer-Encoding: chunked"
    )
    chunk = f"{70_000:x}\r\n".encode() + data[:70_000]
    speak(door, world.engineer, begin, b"\r\n" + chunk + b"\r\nzz\r\n", close=True)
    until(lambda: (offset(door, world, data) or 0) in (0, 70_000), "the lie has ended it")
    reached = offset(door, world, data) or 0
    until(
        lambda: patch(door, world, data, reached, data[reached:]).status_code == 201, "it goes on"
    )
    assert door.ask(world.engineer, "GET", f"/blobs/{sha(data)}").content == data


def test_slow_senders_hold_up_nobody(
    door: Door, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them than there are turns: each is cut when its time is over, keeps what it sent, and
    the next comes.
    """
    port = urlsplit(door.url).port or 0
    token = door.token(world.engineer)
    kept = os.urandom(1000)
    silent = [(f"PUT /api/v1/blobs/{sha(kept)} HTTP/1.1\r\nContent-Length: 1000", b"")] * (
        pieces.MAX_BODIES + 6
    )

    def begun(senders: list[tuple[str, bytes]]) -> list[socket.socket]:
        lines = []
        for begin, sent in senders:
            lines.append(socket.create_connection(("127.0.0.1", port), timeout=120))
            lines[-1].sendall(
                f"{begin}\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode() + sent
            )
        return lines

    monkeypatch.setattr(
        pieces, "WAIT_SECONDS", 600.0
    )  # longer than anybody waits for the answer to a question
    holding = begun(silent)
    assert door.ask(world.engineer, "GET", "/me").status_code == 200
    for line in holding:
        line.close()
    monkeypatch.setattr(pieces, "WAIT_SECONDS", 1.0)
    lines = begun([(head(door, kept, 0, 1000), kept[:10]), *silent])
    data = os.urandom(5000)
    assert door.ask(world.trainer, "PUT", f"/blobs/{sha(data)}", content=data).status_code == 201
    assert {line.recv(65536)[:12] for line in lines} == {b"HTTP/1.1 503"}
    for line in lines:
        line.close()
    assert offset(door, world, kept) == 10


def test_a_reader_that_goes_away_ends_the_reading(door: Door, world: World) -> None:
    data = os.urandom(door.settings.max_blob_bytes)
    path = f"/blobs/{door.upload(world.engineer, data)['sha256']}"
    before = threading.active_count()
    for _ in range(20):
        speak(door, world.engineer, f"GET /api/v1{path} HTTP/1.1", b"\r\n", close=True)
    assert door.ask(world.engineer, "GET", path).content == data
    assert threading.active_count() <= before + 40
