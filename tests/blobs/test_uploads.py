"""Unfinished uploads, in a folder, in memory and on S3: they go on, stay apart, stay bounded, and
never show.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from registry.blobs import uploads as module
from registry.blobs.store import Blobs, Stored
from registry.blobs.uploads import Uploads
from registry.errors import Conflict, Invalid, NotFound, TooLarge, Unavailable, Unverified

BYTES = os.urandom(64 << 10) * 300  # three parts of an object store
DIGEST = hashlib.sha256(BYTES).hexdigest()
ME, OTHER = "0f3d1c52-6a77-4f1e-9a55-3f0c2b1d7e10", "5b8e2f9a-1c44-4d0b-8c3e-7a6d9f0e4b21"
LIMIT = 1 << 30


@pytest.fixture(params=["local", "memory", "s3"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    if request.param == "s3":
        return Blobs(request.getfixturevalue("s3"))
    return Blobs(tmp_path / "blobs" if request.param == "local" else "memory:///")


@pytest.fixture
def uploads(blobs: Blobs) -> Uploads:
    return Uploads(blobs, LIMIT)


def send(
    uploads: Uploads,
    start: int,
    end: int,
    *,
    account: str = ME,
    data: bytes = BYTES,
    finish: bool = False,
) -> Stored | None:
    digest = hashlib.sha256(data).hexdigest()
    with uploads.sending(account, digest, start, LIMIT) as sending:
        for at in range(start, end, 1 << 20):
            sending.write(data[at : min(at + (1 << 20), end)])
        return sending.finish() if finish else None


def nothing_is_left(blobs: Blobs) -> bool:
    return blobs.sweep(lambda _: True, timedelta(seconds=-5)) == 0


def test_an_upload_goes_on_where_it_was_cut(blobs: Blobs, uploads: Uploads) -> None:
    cuts = [0, 1, 700_001, 9 << 20, len(BYTES) - 1]
    for start, end in itertools.pairwise(cuts):
        send(uploads, start, end)
        assert uploads.offset(ME, DIGEST) == end
        assert not blobs.has(DIGEST)
    assert send(uploads, cuts[-1], len(BYTES), finish=True) == Stored(DIGEST, len(BYTES))
    assert blobs.verify(DIGEST)
    assert nothing_is_left(blobs)
    with pytest.raises(NotFound):
        uploads.offset(ME, DIGEST)


def test_another_process_goes_on_too(blobs: Blobs, uploads: Uploads) -> None:
    """What was hashed is forgotten with the process that hashed it; the bytes are read again."""
    send(uploads, 0, 9_000_000)
    later = Uploads(blobs, LIMIT)
    assert send(later, later.offset(ME, DIGEST), len(BYTES), finish=True) == Stored(
        DIGEST, len(BYTES)
    )
    assert blobs.verify(DIGEST)


def test_what_cannot_be_noted_is_kept_and_not_shown(blobs: Blobs, uploads: Uploads) -> None:
    """The database is away when the last byte came: none of them is sent again for that."""

    def away(digest: str) -> None:
        assert digest == DIGEST
        assert not blobs.has(DIGEST)
        raise Unavailable("database-away", "The database is away.", "Try again.")

    with pytest.raises(Unavailable), uploads.sending(ME, DIGEST, 0, LIMIT) as sending:
        sending.write(BYTES)
        sending.finish(away)
    assert not blobs.has(DIGEST)
    assert uploads.offset(ME, DIGEST) == len(BYTES)
    told: list[str] = []
    with uploads.sending(ME, DIGEST, len(BYTES), LIMIT) as sending:
        assert sending.finish(told.append) == Stored(DIGEST, len(BYTES))
    assert told == [DIGEST]
    assert blobs.verify(DIGEST)
    assert nothing_is_left(blobs)


def test_a_hasher_is_not_believed_about_a_file_others_wrote(tmp_path: Path) -> None:
    """The size alone is no proof: the same number of other bytes may have come through another
    process.
    """
    blobs = Blobs(tmp_path)
    uploads, other = Uploads(blobs, LIMIT), Uploads(blobs, LIMIT)
    send(uploads, 0, 1 << 20)
    other.discard(ME, DIGEST)
    with other.sending(ME, DIGEST, 0, LIMIT) as sending:
        sending.write(b"x" * (1 << 20))
    with pytest.raises(Unverified):
        send(uploads, 1 << 20, len(BYTES), finish=True)
    assert not blobs.has(DIGEST)


@pytest.mark.parametrize("there", [0, 1000])
@pytest.mark.parametrize("asked", [1, 999, 1001, 10**14])
def test_a_wrong_offset_is_told_the_right_one(uploads: Uploads, there: int, asked: int) -> None:
    send(uploads, 0, there)
    with pytest.raises(Conflict) as refusal:
        send(uploads, asked, asked)
    assert (refusal.value.kind, refusal.value.facts["offset"]) == ("upload-offset", there)
    assert str(there) in refusal.value.fix
    send(uploads, there, there + 5)
    assert uploads.offset(ME, DIGEST) == there + 5


def test_of_two_senders_one_wins(blobs: Blobs, uploads: Uploads) -> None:
    with uploads.sending(ME, DIGEST, 0, LIMIT) as first:
        first.write(BYTES[:1000])
        for sender in (uploads, Uploads(blobs, LIMIT)) if blobs.folder else (uploads,):
            with pytest.raises(Conflict) as refusal:
                send(sender, 1000, 2000)
            assert refusal.value.kind == "upload-busy"
        with pytest.raises(Conflict):
            uploads.discard(ME, DIGEST)
        first.write(BYTES[1000:])
        assert first.finish().sha256 == DIGEST
    assert blobs.verify(DIGEST)


def test_two_registries_on_one_object_store_never_mix_bytes(s3: str) -> None:
    """Neither knows of the other: the store itself makes each part only once."""
    blobs = Blobs(s3)
    one, two = Uploads(blobs, LIMIT), Uploads(Blobs(s3), LIMIT)
    with pytest.raises(Conflict), one.sending(ME, DIGEST, 0, LIMIT) as slow:
        slow.write(BYTES[:500])
        send(two, 0, 9 << 20)
        slow.write(b"?" * (9 << 20))
    assert two.offset(ME, DIGEST) == 9 << 20
    assert send(two, 9 << 20, len(BYTES), finish=True) == Stored(DIGEST, len(BYTES))


def test_many_senders_at_once_publish_the_bytes_once(blobs: Blobs, uploads: Uploads) -> None:
    said: list[str] = []

    def sender() -> None:
        try:
            said.append(str(send(uploads, 0, len(BYTES), finish=True)))
        except Conflict as refusal:
            said.append(refusal.kind)

    threads = [threading.Thread(target=sender) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(said) <= {str(Stored(DIGEST, len(BYTES))), "upload-busy"}
    assert len(set(said) - {"upload-busy"}) == 1
    assert blobs.verify(DIGEST)
    assert nothing_is_left(blobs)


def test_an_account_sees_only_its_own(blobs: Blobs, uploads: Uploads) -> None:
    send(uploads, 0, 1000)
    with pytest.raises(NotFound):
        uploads.offset(OTHER, DIGEST)
    send(uploads, 0, 7, account=OTHER)
    assert uploads.offset(ME, DIGEST) == 1000
    uploads.discard(OTHER, DIGEST)
    with pytest.raises(NotFound):
        uploads.discard(OTHER, DIGEST)
    assert send(uploads, 1000, len(BYTES), finish=True)


@pytest.mark.parametrize("account", ["", "..", "../" * 12, "a/b", ME.upper(), ME + "\n", "None"])
def test_only_accounts_and_digests_name_an_upload(uploads: Uploads, account: str) -> None:
    asks: list[Callable[[], object]] = [
        lambda: uploads.offset(account, DIGEST),
        lambda: uploads.discard(account, DIGEST),
        lambda: uploads.offset(ME, f"../{DIGEST[3:]}"),
        lambda: send(uploads, 0, 1, account=account),
    ]
    for ask in asks:
        with pytest.raises(Invalid):
            ask()


def test_other_bytes_than_named_are_given_up_whole(blobs: Blobs, uploads: Uploads) -> None:
    send(uploads, 0, 1000)
    with pytest.raises(Unverified) as refusal, uploads.sending(ME, DIGEST, 1000, LIMIT) as sending:
        sending.write(b"other")
        sending.finish()
    assert refusal.value.kind == "digest-mismatch"
    assert not blobs.has(DIGEST)
    assert nothing_is_left(blobs)
    assert send(uploads, 0, len(BYTES), finish=True)


def test_an_upload_over_the_limit_is_given_up(blobs: Blobs, uploads: Uploads) -> None:
    with pytest.raises(TooLarge) as refusal, uploads.sending(ME, DIGEST, 0, 1500) as sending:
        sending.write(BYTES[:1000])
        sending.write(BYTES[1000:2000])
    assert refusal.value.kind == "body-too-large"
    assert nothing_is_left(blobs)


def test_what_an_account_leaves_unfinished_is_bounded(
    blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploads = Uploads(blobs, 3000)
    names = [os.urandom(1500) for _ in range(4)]
    send(uploads, 0, 1400, data=names[0])
    send(uploads, 0, 1400, data=names[1])
    with pytest.raises(TooLarge) as refusal:
        send(uploads, 0, 1400, data=names[2])
    assert (refusal.value.kind, refusal.value.facts["retry_after"]) == ("unfinished-uploads", 3600)
    send(uploads, 0, 1400, data=names[2], account=OTHER)
    assert send(uploads, 1400, 1500, data=names[0], finish=True)  # to finish one is what makes room
    send(uploads, 0, 1400, data=names[2])
    monkeypatch.setattr(module, "MAX_UPLOADS", 2)
    with pytest.raises(TooLarge) as refusal:
        send(uploads, 0, 1, data=names[3])
    assert "left 2 uploads unfinished" in refusal.value.detail


def test_forgotten_uploads_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = Blobs(tmp_path)
    uploads = Uploads(blobs, LIMIT)
    monkeypatch.setattr(module, "MAX_UPLOADS", 2)
    old, young, new = (os.urandom(1500) for _ in range(3))
    for data in (old, young):
        send(uploads, 0, 10, data=data)
    os.utime(tmp_path / "incoming" / ME / hashlib.sha256(old).hexdigest(), (0, 0))
    send(uploads, 0, 10, data=new)
    with pytest.raises(NotFound):
        uploads.offset(ME, hashlib.sha256(old).hexdigest())
    assert uploads.offset(ME, hashlib.sha256(young).hexdigest()) == 10


def test_the_sweep_takes_old_uploads_and_they_begin_again(blobs: Blobs, uploads: Uploads) -> None:
    send(uploads, 0, 17 << 20)
    assert blobs.sweep(lambda _: True, timedelta(hours=1)) == 0
    assert uploads.offset(ME, DIGEST) == 17 << 20
    assert blobs.sweep(lambda _: True, timedelta(seconds=-5)) == (1 if blobs.folder else 3)
    with pytest.raises(NotFound):
        uploads.offset(ME, DIGEST)
    assert send(uploads, 0, len(BYTES), finish=True)


def test_a_sweep_cut_short_leaves_no_hole_that_stays(s3: str) -> None:
    blobs = Blobs(s3)
    uploads = Uploads(blobs, LIMIT)
    send(uploads, 0, 17 << 20)
    blobs.store.delete(
        f"incoming/{ME}/{DIGEST}/{0:020d}"
    )  # the worst: the first part gone, the others there
    assert uploads.offset(ME, DIGEST) == 0
    assert send(uploads, 0, len(BYTES), finish=True) == Stored(DIGEST, len(BYTES))
    assert nothing_is_left(blobs)


def test_a_sweep_under_an_open_upload_hurts_nobody(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    uploads = Uploads(blobs, LIMIT)
    with uploads.sending(ME, DIGEST, 0, LIMIT) as sending:
        sending.write(BYTES)
        assert blobs.sweep(lambda _: True, timedelta(hours=1)) == 0  # it was used just now
        assert sending.finish().sha256 == DIGEST
    assert blobs.verify(DIGEST)


def test_nobody_goes_on_writing_in_what_was_published(tmp_path: Path) -> None:
    """Opened before it was published, locked after: the path no longer is this file, so it is left
    alone.
    """
    from registry.blobs.drafts import FileDraft

    path = tmp_path / "incoming" / ME / DIGEST
    first = FileDraft(tmp_path, path)
    first.write(BYTES)
    with pytest.raises(Conflict):
        FileDraft(tmp_path, path)
    late = os.open(path, os.O_RDWR)
    first.publish(DIGEST, present=False)
    first.discard()
    os.close(late)
    assert Blobs(tmp_path).verify(DIGEST)
    assert FileDraft(tmp_path, path).size() == 0


def test_an_empty_try_leaves_nothing(blobs: Blobs, uploads: Uploads) -> None:
    send(uploads, 0, 0)
    assert nothing_is_left(blobs)
    empty = hashlib.sha256().hexdigest()
    with uploads.sending(ME, empty, 0, LIMIT) as sending:
        assert sending.finish() == Stored(empty, 0)
    assert blobs.size(empty) == 0
