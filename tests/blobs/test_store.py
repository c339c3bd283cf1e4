from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from textwrap import dedent

import pytest

from registry.blobs.store import Blobs, Stored
from registry.errors import Invalid, NotFound, TooLarge, Unavailable, Unverified

BYTES = bytes(range(256)) * 5000
DIGEST = hashlib.sha256(BYTES).hexdigest()
OTHER = "0" * 64


def pieces(data: bytes = BYTES, size: int = 100_000) -> Iterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "a b" / "blobs"


@pytest.fixture(params=["local", "memory", "s3"])
def blobs(request: pytest.FixtureRequest, folder: Path) -> Blobs:
    if request.param == "s3":
        return Blobs(request.getfixturevalue("s3"))
    return Blobs(folder.as_uri() if request.param == "local" else "memory:///")


def files(folder: Path) -> list[Path]:
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def place(folder: Path, digest: str = DIGEST) -> Path:
    return folder / "sha256" / digest[:2] / digest[2:4] / digest


def everything(blobs: Blobs) -> int:
    """How much a sweep of all that lies in the store would find."""
    return blobs.sweep(lambda _: False, timedelta(seconds=-5))


def test_bytes_go_in_and_come_back(blobs: Blobs) -> None:
    assert not blobs.has(DIGEST)
    assert blobs.put(pieces(), expect=DIGEST, limit=len(BYTES)) == Stored(DIGEST, len(BYTES))
    assert blobs.has(DIGEST)
    assert blobs.size(DIGEST) == len(BYTES)
    assert b"".join(blobs.stream(DIGEST)) == BYTES
    assert blobs.verify(DIGEST)
    assert everything(blobs) == 1


def test_no_bytes_are_bytes_too(blobs: Blobs) -> None:
    stored = blobs.put([])
    assert stored == Stored(hashlib.sha256().hexdigest(), 0)
    assert blobs.size(stored.sha256) == 0
    assert list(blobs.stream(stored.sha256)) == []
    assert blobs.read(stored.sha256, 0, 10) == b""
    assert blobs.verify(stored.sha256)


@pytest.mark.parametrize(
    ("start", "length"),
    [
        (0, 0),
        (0, 1),
        (7, 300),
        (len(BYTES) - 3, 3),
        (len(BYTES) - 3, 100),
        (len(BYTES), 5),
        (len(BYTES) + 9, 5),
    ],
)
def test_a_range_is_what_a_slice_would_be(blobs: Blobs, start: int, length: int) -> None:
    blobs.put([BYTES])
    assert blobs.read(DIGEST, start, length) == BYTES[start : start + length]
    assert b"".join(blobs.stream(DIGEST, start, start + length)) == BYTES[start : start + length]
    assert b"".join(blobs.stream(DIGEST, start, chunk=1000)) == BYTES[start:]


def test_a_stream_comes_in_pieces(folder: Path) -> None:
    blobs = Blobs(folder)
    blobs.put([BYTES])
    assert max(map(len, blobs.stream(DIGEST, chunk=10_000))) < 30_000
    with pytest.raises(Invalid, match="start at -1"):
        blobs.stream(DIGEST, -1)


def test_what_is_missing_is_said_at_once(blobs: Blobs) -> None:
    asks: list[Callable[[], object]] = [
        lambda: blobs.size(OTHER),
        lambda: blobs.read(OTHER, 0, 0),
        lambda: blobs.stream(OTHER),
        lambda: blobs.verify(OTHER),
    ]
    for ask in asks:
        with pytest.raises(NotFound) as refusal:
            ask()
        assert refusal.value.kind == "blob-unknown"
        assert OTHER in refusal.value.detail


@pytest.mark.parametrize(
    "bad", ["", "abc", "../" * 20 + "etc", DIGEST.upper(), "sha256:" + DIGEST, DIGEST + "\n"]
)
def test_only_digests_are_addresses(blobs: Blobs, bad: str) -> None:
    asks: list[Callable[[], object]] = [
        lambda: blobs.has(bad),
        lambda: blobs.size(bad),
        lambda: blobs.stream(bad),
        lambda: blobs.put([], bad),
    ]
    for ask in asks:
        with pytest.raises(Invalid) as refusal:
            ask()
        assert refusal.value.kind == "bad-digest"


def test_a_wrong_digest_leaves_nothing(blobs: Blobs) -> None:
    with pytest.raises(Unverified) as refusal:
        blobs.put(pieces(), expect=OTHER)
    assert refusal.value.kind == "digest-mismatch"
    assert DIGEST in refusal.value.detail
    assert not blobs.has(DIGEST)
    assert not blobs.has(OTHER)
    assert everything(blobs) == 0


def test_what_cannot_be_noted_is_not_published(blobs: Blobs) -> None:
    def away(digest: str) -> None:
        assert digest == DIGEST
        raise Unavailable("database-away", "The database is away.", "Try again.")

    with pytest.raises(Unavailable), blobs.incoming(DIGEST) as incoming:
        for piece in pieces():
            incoming.write(piece)
        incoming.finish(away)
    assert everything(blobs) == 0


def test_a_body_over_the_limit_is_cut_off_early_and_leaves_nothing(blobs: Blobs) -> None:
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield b"x" * 1000

    with pytest.raises(TooLarge) as refusal:
        blobs.put(endless(), limit=10_500)
    assert refusal.value.kind == "body-too-large"
    assert taken == 11
    assert everything(blobs) == 0


@pytest.mark.parametrize("error", [ConnectionResetError, KeyboardInterrupt, GeneratorExit])
def test_a_sender_that_breaks_off_leaves_nothing(blobs: Blobs, error: type[BaseException]) -> None:
    def broken() -> Iterator[bytes]:
        yield BYTES
        raise error

    with pytest.raises(error):
        blobs.put(broken())
    assert not blobs.has(DIGEST)
    assert everything(blobs) == 0


def test_bytes_already_there_are_not_written_again(folder: Path) -> None:
    blobs = Blobs(folder)
    blobs.put(pieces())
    before = place(folder).stat().st_ino
    assert blobs.put([BYTES]) == Stored(DIGEST, len(BYTES))
    assert place(folder).stat().st_ino == before
    assert files(folder) == [place(folder).relative_to(folder)]


def test_damage_is_found_and_a_cut_file_heals_by_sending_it_again(folder: Path) -> None:
    blobs = Blobs(folder)
    blobs.put(pieces())
    with place(folder).open("r+b") as file:
        file.seek(1000)
        file.write(b"!")
    assert not blobs.verify(DIGEST)
    os.truncate(place(folder), 100)
    assert not blobs.verify(DIGEST)
    blobs.put(pieces())
    assert blobs.verify(DIGEST)


def test_only_the_owner_sees_anything(folder: Path) -> None:
    umask = os.umask(0)
    try:
        Blobs(str(folder)).put(pieces())
    finally:
        os.umask(umask)
    modes = {
        path.relative_to(folder.parent): stat.S_IMODE(path.stat().st_mode)
        for path in folder.parent.rglob("*")
    }
    assert set(modes.values()) == {0o700, 0o600}
    assert modes[place(folder).relative_to(folder.parent)] == 0o600


def test_the_sweep_spares_what_is_named_young_or_just_asked_for(folder: Path) -> None:
    blobs = Blobs(folder)
    named, asked, orphan, young = (
        blobs.put([name]).sha256 for name in (b"named", b"asked", b"orphan", b"young")
    )
    abandoned, stranger = folder / "incoming" / "abandoned", folder / "sha256" / "README"
    for path in (abandoned, stranger):
        path.write_text("")
    for path in (
        place(folder, named),
        place(folder, asked),
        place(folder, orphan),
        abandoned,
        stranger,
    ):
        os.utime(path, (0, 0))
    assert blobs.has(asked)
    assert blobs.sweep(lambda digest: digest == named, timedelta(hours=1)) == 2
    assert [blobs.has(one) for one in (named, asked, orphan, young)] == [True, True, False, True]
    assert not abandoned.exists()
    assert stranger.exists()


def test_one_blob_goes_unless_somebody_used_it_since(blobs: Blobs) -> None:
    blobs.put([BYTES])
    now = datetime.now(UTC)
    assert not blobs.remove(DIGEST, now - timedelta(minutes=1))
    assert blobs.verify(DIGEST)
    assert blobs.remove(DIGEST, now + timedelta(minutes=1))
    assert not blobs.has(DIGEST)
    assert not blobs.remove(DIGEST, now + timedelta(minutes=1))


def test_asking_for_a_blob_in_a_folder_keeps_it(folder: Path) -> None:
    blobs = Blobs(folder)
    blobs.put([BYTES])
    os.utime(place(folder), (0, 0))
    moment = datetime.now(UTC) - timedelta(minutes=1)
    assert blobs.has(DIGEST)
    assert not blobs.remove(DIGEST, moment)
    os.utime(place(folder), (0, 0))
    assert blobs.remove(DIGEST, moment)


def test_a_blob_used_while_the_sweep_thinks_stays(folder: Path) -> None:
    blobs = Blobs(folder)
    digest = blobs.put([b"reused"]).sha256
    os.utime(place(folder, digest), (0, 0))

    def somebody_comes(asked: str) -> bool:
        blobs.put([b"reused"])
        return False

    assert blobs.sweep(somebody_comes, timedelta(hours=1)) == 0
    assert blobs.verify(digest)


def test_many_writers_of_the_same_bytes(blobs: Blobs) -> None:
    found: list[Stored] = []
    threads = [threading.Thread(target=lambda: found.append(blobs.put(pieces()))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [Stored(DIGEST, len(BYTES))] * 8
    assert blobs.verify(DIGEST)
    assert everything(blobs) == 1


@pytest.mark.parametrize(
    "url", ["", "ftp://host/x", "file://host/x", "https://user:pass@host/x", "file:relative"]
)
def test_a_url_that_is_no_blob_store(url: str) -> None:
    with pytest.raises(Invalid) as refusal:
        Blobs(url)
    assert refusal.value.kind == "bad-blob-url"
    assert "pass" not in str(refusal.value)


def test_a_store_that_cannot_be_used_is_unavailable(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.parent.mkdir()
    folder.write_text("a file where the folder should be")
    with pytest.raises(Unavailable) as refusal:
        Blobs(folder)
    assert refusal.value.kind == "blobs-unreachable"
    # Nobody listens on port 9 of the loopback: an object store that is away.
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    for name, value in {
        "ALLOW_HTTP": "true",
        "ACCESS_KEY_ID": "a",
        "SECRET_ACCESS_KEY": "b",
        "REGION": "c",
    }.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    away = Blobs("s3://bucket/prefix")
    with pytest.raises(Unavailable):
        away.has(DIGEST)


def test_a_full_disk_is_unavailable_and_leaves_nothing(folder: Path) -> None:
    """A real refusal to write: the file size limit of a child process."""
    child = dedent("""
        import resource, signal, sys
        from registry.blobs.store import Blobs
        from registry.errors import Unavailable
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        blobs = Blobs(sys.argv[1])
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            blobs.put(b"x" * 30_000 for _ in range(9))
        except Unavailable as error:
            print(error.kind)
    """)
    answer = subprocess.run(
        [sys.executable, "-c", child, str(folder)], check=True, capture_output=True, text=True
    )
    assert answer.stdout == "blobs-full\n"
    assert files(folder) == []


class Chunk(bytearray):
    """Counts how many of its kind are alive."""

    alive = 0

    def __init__(self, size: int) -> None:
        super().__init__(size)
        Chunk.alive += 1

    def __del__(self) -> None:
        Chunk.alive -= 1


def test_no_more_than_a_chunk_is_held_whatever_the_size(folder: Path) -> None:
    """`make bench` prints the megabytes of a server that takes and gives 1 GB."""
    blobs, held = Blobs(folder), list[int]()

    def chunks(count: int) -> Iterator[Chunk]:
        for _ in range(count):
            yield Chunk(1 << 20)
            held.append(Chunk.alive)

    stored = blobs.put(chunks(32))
    assert stored.size == 32 << 20
    assert (len(held), max(held)) == (32, 1)
    assert {len(piece) for piece in blobs.stream(stored.sha256)} == {1 << 20}
    assert blobs.verify(stored.sha256)


def test_an_object_store_gives_out_its_bytes_itself(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Signed from the credentials alone: nothing listens at that endpoint."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "eu-central-1",
        "AWS_ENDPOINT": "http://127.0.0.1:9",
        "AWS_ALLOW_HTTP": "true",
    }.items():
        monkeypatch.setenv(name, value)
    digest = "ab" * 32
    place = Blobs("s3://bucket/prefix").presign(digest, 300)
    assert place is not None
    assert place.startswith(f"http://127.0.0.1:9/bucket/prefix/sha256/ab/ab/{digest}?")
    assert "X-Amz-Expires=300" in place
    assert "X-Amz-Signature=" in place
    assert "secret" not in place
    assert Blobs(tmp_path).presign(digest, 300) is None
    assert Blobs("memory:///").presign(digest, 300) is None
