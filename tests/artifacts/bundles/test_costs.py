"""What judging the costliest bundles costs, counted: bytes asked of the store, reads, and values
handed to a parser.

Nothing is timed and no process is measured; `make bench` (tests/benches/limits.py) does that.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from registry.artifacts.bundles.files import MAX_PARSED_BYTES
from registry.artifacts.bundles.judge import footprint, inspect
from registry.documents import json_streams
from registry.documents.strict_json import MAX_BUNDLE_VALUES, MAX_BYTES, Allowance
from tests.artifacts.bundle_files import declared
from tests.assets.cases import Files, sound
from tests.assets.worst import WORST, like_gemma
from tests.sampling import sampled

BUNDLES: dict[str, Callable[[], Files]] = {name: make for name, (make, _) in WORST.items()} | {
    "the largest genuine tokenizer": lambda: sound() | {"tokenizer.json": like_gemma()}
}
TELLING = (
    "16 MiB of small objects",
    "16 MiB of escapes",
    "Gemma and all tables beside it",
    "twelve shards of 20,000 tensors",
    "1,000 shards that end as archives",
    "12 MiB of numbers of 4,000 digits",
    "the largest genuine tokenizer",
)
ENDS = 128 << 10
"""Bytes of one file that may be read beside its text or header: its first and its last ones."""
LARGEST = 12 << 20
"""Bytes of the largest file that is read whole: an index of shards."""
READS = 6
"""Of one file, beside the pieces in which a large one is read."""


@pytest.mark.parametrize("name", sampled(BUNDLES, TELLING))
def test_every_byte_is_read_once_and_no_large_file_whole(name: str) -> None:
    """However the bytes are arranged: cost is linear in what is read, and what is read is
    bounded.
    """
    files = BUNDLES[name]()
    listed, read = declared(files)
    asked: list[int] = []

    def counted(sha256: str, start: int, length: int) -> bytes:
        asked.append(length)
        return read(sha256, start, length)

    found = inspect("base", listed, counted, base=None, meta={})
    assert bool(found.defects) == (name in WORST)
    whole = sum(map(len, files.values()))
    assert sum(asked) <= min(whole, MAX_BYTES) + ENDS * len(files)
    assert max(asked) <= LARGEST
    assert len(asked) <= READS * len(files) + whole // json_streams.PIECE
    asked.clear()
    footprint("base", listed, counted)
    assert sum(asked) <= 8 * len(files)  # the lengths of headers, nothing else


def test_the_room_a_bundle_takes_is_counted_before_its_texts_are_read() -> None:
    """At worst a text is read to 24 times its size; only what is read by pieces takes less."""
    small = footprint("base", *declared(sound()))[0]
    text = b'{"a":"' + b"x" * (MAX_PARSED_BYTES - 8) + b'"}'
    whole = footprint("base", *declared(sound() | {"tokenizer.json": text}))[0]
    assert whole - small >= 20 * len(text)
    streamed = footprint("base", *declared(sound() | {"tokenizer.json": like_gemma()}))[0]
    assert streamed - small <= 3 * len(like_gemma())


@pytest.mark.parametrize("name", ["every large file at once", "twelve shards of 20,000 tensors"])
def test_what_the_allowance_refuses_is_never_parsed(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The values of all documents of a bundle together stay within one allowance."""
    parsed: list[int] = []
    spend = Allowance.spend

    def counted(self: Allowance, data: bytes, most: int | None = None) -> None:
        before = self.values
        spend(self, data, most)
        parsed.append(before - self.values)

    monkeypatch.setattr(Allowance, "spend", counted)
    inspect("base", *declared(BUNDLES[name]()), base=None, meta={})
    assert 0 < sum(parsed) <= MAX_BUNDLE_VALUES
