"""Uploads that go on, as the client does them: where it begins, when it tries again, and when it
stops trying.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from registry.client import Countersign, Progress, blobs
from registry.errors import Conflict, TooLarge, Unavailable, Unverified
from tests.client.wire import Answer, Seen, Wire, problem

BODY = bytes(range(256)) * 12_000
HEX = hashlib.sha256(BODY).hexdigest()
BUSY, AWAY = problem(409, "conflict", "upload-busy"), problem(503, "unavailable")


class Heard(Progress):
    """Everything that was told, in order; what is counted must add up."""

    def __init__(self) -> None:
        super().__init__()
        self.total, self.hash, self.kept = 0, 0, list[int]()

    def __call__(self, n: int) -> None:
        self.total += n

    def hashed(self, n: int) -> None:
        self.hash += n

    def resumed(self, n: int) -> None:
        self.kept.append(n)
        self.total += n


class Registry:
    """Plays a registry that has so many bytes, answers each PATCH as told, and after a 201 has the
    blob.
    """

    def __init__(self, has: int, *answers: Answer | int) -> None:
        self.has, self.answers, self.whole = has, list(answers), False

    def __call__(self, seen: Seen) -> Answer:
        if seen.method == "HEAD" and "/blobs/" in seen.path:
            return Answer(200 if self.whole else 404)
        if seen.method == "HEAD":
            return (
                Answer(204, headers={"Upload-Offset": str(self.has)}) if self.has else Answer(404)
            )
        assert seen.method == "PATCH"
        start = int(seen.headers["Upload-Offset"])
        assert start == self.has
        assert seen.body == BODY[start:]
        answer = self.answers.pop(0) if self.answers else Answer(201)
        if isinstance(answer, int):  # cut there
            self.has, answer = answer, AWAY
        self.whole = answer.status == 201
        return answer


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(blobs, "MAX_WHOLE_BYTES", 1000)
    monkeypatch.setattr(blobs, "PAUSES", (0.0, 0.0, 0.0))
    path = tmp_path / "w"
    path.write_bytes(BODY)
    return path


def patches(wire: Wire) -> list[int]:
    return [int(seen.headers["Upload-Offset"]) for seen in wire.seen if seen.method == "PATCH"]


def test_a_large_file_is_one_request_while_nothing_breaks(
    wire: Wire, registry: Countersign, weights: Path
) -> None:
    wire.script, heard = Registry(0), Heard()
    registry.put_file(weights, heard)
    assert wire.asked() == [
        f"HEAD /api/v1/blobs/{HEX}",
        f"HEAD /api/v1/uploads/{HEX}",
        f"PATCH /api/v1/uploads/{HEX}",
    ]
    assert (heard.total, heard.hash, heard.kept) == (len(BODY), len(BODY), [])


def test_a_small_file_stays_one_put(wire: Wire, registry: Countersign, weights: Path) -> None:
    weights.write_bytes(b"x" * 1000)
    wire.script = lambda seen: Answer(404 if seen.method == "HEAD" else 201)
    registry.put_file(weights)
    assert [seen.method for seen in wire.seen] == ["HEAD", "PUT"]


def test_only_the_rest_is_sent_when_an_earlier_try_left_some(
    wire: Wire, registry: Countersign, weights: Path
) -> None:
    wire.script, heard = Registry(2_000_000), Heard()
    registry.put_file(weights, heard)
    assert patches(wire) == [2_000_000]
    assert (heard.total, heard.kept) == (len(BODY), [2_000_000])


def test_a_cut_asks_for_the_offset_and_goes_on(
    wire: Wire, registry: Countersign, weights: Path
) -> None:
    """As often as it takes, while each try gets further: three pauses, four cuts."""
    wire.script, heard = Registry(0, 700_000, 700_001, 1_500_000, 3_000_000), Heard()
    registry.put_file(weights, heard)
    assert patches(wire) == [0, 700_000, 700_001, 1_500_000, 3_000_000]
    assert (heard.total, heard.kept) == (len(BODY), [])


def test_all_may_be_there_and_only_the_end_be_missing(
    wire: Wire, registry: Countersign, weights: Path
) -> None:
    wire.script = Registry(len(BODY))
    registry.put_file(weights)
    assert patches(wire) == [len(BODY)]


def test_an_answer_that_was_lost_sends_nothing_again(
    wire: Wire, registry: Countersign, weights: Path
) -> None:
    play, heard = Registry(0, AWAY), Heard()

    def lost(seen: Seen) -> Answer:
        answer = play(seen)
        play.whole = play.whole or seen.method == "PATCH"
        return answer

    wire.script = lost
    registry.put_file(weights, heard)
    assert patches(wire) == [0]
    assert heard.total == len(BODY)


def test_tries_that_get_no_further_end_with_what_to_do(
    wire: Wire, registry: Countersign, weights: Path
) -> None:
    wire.script = Registry(0, 500_000, *[AWAY] * 9)
    with pytest.raises(Unavailable) as caught:
        registry.put_file(weights)
    assert caught.value.kind == "upload-broken"
    assert f"stopped at 500000 of {len(BODY)} bytes" in caught.value.detail
    assert "Run the same command again" in caught.value.fix
    assert patches(wire) == [0] + [500_000] * (1 + len(blobs.PAUSES))


@pytest.mark.parametrize(("seen_first", "kept"), [(0, [900_000]), (300_000, [300_000, 600_000])])
def test_it_waits_for_another_sender_of_its_own(
    wire: Wire, registry: Countersign, weights: Path, seen_first: int, kept: list[int]
) -> None:
    """A connection that died unseen still holds the upload; all that it had sent counts as there
    before.
    """
    play, heard = Registry(seen_first, BUSY, BUSY), Heard()

    def meanwhile(seen: Seen) -> Answer:
        answer = play(seen)
        if answer is BUSY and len(play.answers) == 0:
            play.has = 900_000
        return answer

    wire.script = meanwhile
    registry.put_file(weights, heard)
    assert patches(wire) == [seen_first, seen_first, 900_000]
    assert (heard.total, heard.kept) == (len(BODY), kept)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (problem(413, "too-large", "unfinished-uploads"), TooLarge),
        (problem(422, "unverified", "digest-mismatch"), Unverified),
        (problem(409, "conflict", "another"), Conflict),
    ],
)
def test_a_refusal_is_not_tried_again(
    wire: Wire, registry: Countersign, weights: Path, answer: Answer, error: type[Exception]
) -> None:
    wire.script = Registry(0, answer)
    with pytest.raises(error):
        registry.put_file(weights)
    assert len(patches(wire)) == 1


def test_a_file_that_shrinks_meanwhile_is_named(
    wire: Wire, registry: Countersign, weights: Path
) -> None:
    def script(seen: Seen) -> Answer:
        weights.write_bytes(b"x")
        return Answer(404)

    wire.script = script
    with pytest.raises(Unverified) as caught:
        registry.put_file(weights)
    assert caught.value.kind == "file-changed"
