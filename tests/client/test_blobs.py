"""Bytes up and down: asked for first, resumed, verified before they lie in place."""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path

import pytest

from registry.client import Countersign, blobs
from registry.client.sources import choose
from registry.client.versions import bundle_files, nature
from registry.errors import Invalid, Unauthenticated, Unavailable, Unverified
from tests.client.wire import Answer, Seen, Wire, problem

BODY = bytes(range(256)) * 4096
HEX = hashlib.sha256(BODY).hexdigest()


def serve(seen: Seen) -> Answer:
    """A blob store that holds BODY and speaks Range."""
    if seen.method == "HEAD":
        return Answer(200)
    if wanted := seen.headers.get("Range"):
        start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        return Answer(206, BODY[start:]) if start < len(BODY) else problem(416, "invalid")
    return Answer(200, BODY)


def test_known_bytes_are_not_sent(wire: Wire, registry: Countersign, tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(BODY)
    wire.script = serve
    steps: list[int] = []
    sent = registry.put_file(tmp_path / "w", steps.append)
    assert (sent.path, sent.sha256, sent.size) == ("w", HEX, len(BODY))
    assert wire.asked() == [f"HEAD /api/v1/blobs/{HEX}"]
    assert steps == [len(BODY)]


def test_new_bytes_are_streamed_once_and_whole(
    wire: Wire, registry: Countersign, tmp_path: Path
) -> None:
    (tmp_path / "w").write_bytes(BODY * 3)
    wire.script = lambda seen: Answer(404 if seen.method == "HEAD" else 201)
    steps: list[int] = []
    registry.put_file(tmp_path / "w", steps.append)
    assert [seen.method for seen in wire.seen] == ["HEAD", "PUT"]
    assert wire.seen[1].body == BODY * 3
    assert steps == [len(BODY)] * 3


def test_an_interrupted_upload_begins_again_and_counts_right(
    wire: Wire, registry: Countersign, tmp_path: Path
) -> None:
    (tmp_path / "w").write_bytes(BODY)
    puts = [problem(503, "unavailable"), Answer(201)]
    wire.script = lambda seen: Answer(404) if seen.method == "HEAD" else puts.pop(0)
    steps: list[int] = []
    registry.put_file(tmp_path / "w", steps.append)
    assert [seen.method for seen in wire.seen] == ["HEAD", "PUT", "PUT"]
    assert sum(steps) == len(BODY)


def test_a_refusal_to_head_is_told_from_its_status_alone(
    wire: Wire, registry: Countersign, tmp_path: Path
) -> None:
    (tmp_path / "w").write_bytes(BODY)
    wire.script = lambda _: problem(401, "unauthenticated")
    with pytest.raises(Unauthenticated):
        registry.put_file(tmp_path / "w")


def test_a_missing_file_is_named(registry: Countersign, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="is not a file"):
        registry.put_file(tmp_path / "nothing")


def test_a_cut_download_resumes_where_it_stopped(
    wire: Wire, registry: Countersign, tmp_path: Path
) -> None:
    wire.script = lambda seen: (
        serve(seen) if "Range" in seen.headers else Answer(200, BODY, cut=300_000)
    )
    steps: list[int] = []
    registry.get_blob(HEX, tmp_path / "deep" / "w", steps.append)
    assert (tmp_path / "deep" / "w").read_bytes() == BODY
    assert wire.seen[1].headers["Range"] == "bytes=300000-"
    assert sum(steps) == len(BODY)


def test_a_later_process_resumes_too(
    wire: Wire, registry: Countersign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry.client.transport.PATIENCE", 0)
    away = problem(503, "unavailable")
    wire.script = lambda seen: away if "Range" in seen.headers else Answer(200, BODY, cut=300_000)
    with pytest.raises(Unavailable):
        registry.get_blob(HEX, tmp_path / "w")
    assert not (tmp_path / "w").exists()
    wire.script = serve
    steps: list[int] = []
    registry.get_blob(HEX, tmp_path / "w", steps.append)
    assert (tmp_path / "w").read_bytes() == BODY
    assert steps[0] == 300_000
    assert sum(steps) == len(BODY)


def test_a_server_without_ranges_begins_again(
    wire: Wire, registry: Countersign, tmp_path: Path
) -> None:
    wire.script = lambda seen: Answer(200, BODY, cut=None if "Range" in seen.headers else 300_000)
    steps: list[int] = []
    registry.get_blob(HEX, tmp_path / "w", steps.append)
    assert (tmp_path / "w").read_bytes() == BODY
    assert sum(steps) == len(BODY)


def test_a_part_that_is_whole_already_needs_no_more_bytes(
    wire: Wire, registry: Countersign, tmp_path: Path
) -> None:
    (tmp_path / f".w.{HEX[:12]}.part").write_bytes(BODY)
    wire.script = serve
    assert registry.get_blob(HEX, tmp_path / "w").read_bytes() == BODY


@pytest.mark.parametrize("lie", [BODY[:-1] + b"\0", BODY + b"more", b""])
def test_other_bytes_never_lie_in_place(
    wire: Wire, registry: Countersign, tmp_path: Path, lie: bytes
) -> None:
    (tmp_path / "w").write_bytes(b"what was here before")
    wire.script = lambda _: Answer(200, lie)
    with pytest.raises(Unverified) as caught:
        registry.get_blob(HEX, tmp_path / "w")
    assert caught.value.kind == "digest-mismatch"
    assert [path.name for path in tmp_path.iterdir()] == ["w"]
    assert (tmp_path / "w").read_bytes() == b"what was here before"


def test_chunks_bound_the_memory_of_an_upload() -> None:
    assert blobs.CHUNK_BYTES <= 1 << 22


def test_bundle_files_are_named_from_inside_and_sorted(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("z.json", "sub/a.bin", "b.txt"):
        (tmp_path / name).write_text(name)
    assert [inside for _, inside in bundle_files(tmp_path)] == ["b.txt", "sub/a.bin", "z.json"]


def test_what_would_be_left_out_silently_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="has no file"):
        bundle_files(tmp_path)
    with pytest.raises(Invalid, match="is not a folder"):
        bundle_files(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("what", "kind", "words"),
    [
        ("link to a file", "linked-file", "is a link"),
        ("link to a folder", "linked-folder", "is a link"),
        ("link to nothing", "linked-file", "is a link"),
        ("pipe", "not-a-file", "a pipe, neither"),
        ("socket", "not-a-file", "a socket, neither"),
    ],
)
def test_links_pipes_and_sockets_are_refused_by_name_and_never_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, kind: str, words: str
) -> None:
    """A pipe that is opened waits without end: that this test ends is half of what it says."""
    monkeypatch.chdir(tmp_path)  # the name of a socket is short
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "README.md").write_text("Bills.")
    wrong = folder / "config.json"
    if what.startswith("link"):
        (tmp_path / "file").touch()
        wrong.symlink_to(
            tmp_path
            / {"link to a file": "file", "link to a folder": ".", "link to nothing": "none"}[what]
        )
    elif what == "pipe":
        os.mkfifo(wrong)
    else:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind("bundle/config.json")
    with pytest.raises(Invalid, match=words) as refused:
        bundle_files(folder)
    assert refused.value.kind == kind
    assert "config.json" in refused.value.detail
    if what in ("pipe", "socket"):
        with pytest.raises(Invalid, match="neither a file nor a folder"):
            choose("base", folder)


def test_a_device_is_named_as_one() -> None:
    assert nature(Path("/dev/null")) == "a device"
