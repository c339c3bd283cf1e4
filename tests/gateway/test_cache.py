"""Bundles on disk: whole or not at all, and never other bytes under a digest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from registry.client import Countersign
from registry.documents.canonical import digest
from registry.errors import Unverified
from registry.gateway.cache import Cache, inside
from registry.views.rollouts import ArmView
from registry.views.versions import FileView
from tests.gateway.door import TOKEN, Door
from tests.gateway.served import Served


@pytest.fixture
def door() -> Door:
    return Door()


@pytest.fixture
def registry(door: Door) -> Iterator[Countersign]:
    server = Served(door.app)
    with Countersign(server.url, TOKEN) as client:
        yield client
    server.stop()


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    made = Cache(tmp_path / "cache")
    yield made
    made.close()


def test_a_bundle_is_pulled_once_and_lies_under_its_digest(
    cache: Cache, door: Door, registry: Countersign
) -> None:
    arm = door.version("acme/claims@v1", "one")
    place = cache.pull(registry, arm)
    assert place == cache.root / arm.digest.removeprefix("sha256:")
    assert (place / "note.txt").read_text() == "one"
    door.blobs.clear()
    assert cache.pull(registry, arm) == place
    assert not list(cache.root.glob(".partial*"))


def test_half_a_bundle_is_never_seen_and_is_resumed(
    cache: Cache, door: Door, registry: Countersign
) -> None:
    arm = door.version("acme/claims@v1", "one")
    missing = door.blobs.pop(arm.files[-1].sha256)
    with pytest.raises(Exception, match="The door says no"):
        cache.pull(registry, arm)
    assert not cache.place(arm).exists()
    door.blobs = {arm.files[-1].sha256: missing}
    assert (cache.pull(registry, arm) / "note.txt").read_text() == "one"


@pytest.mark.parametrize("spoil", ["change", "add", "remove", "link"])
def test_spoilt_bytes_are_thrown_away_and_fetched_anew(
    cache: Cache, door: Door, registry: Countersign, spoil: str
) -> None:
    arm = door.version("acme/claims@v1", "one")
    place = cache.pull(registry, arm)
    note = place / "note.txt"
    if spoil == "change":
        note.write_text("two")
    elif spoil == "add":
        (place / "more.txt").write_text("more")
    else:
        note.unlink()
    if spoil == "link":
        (cache.root / "elsewhere").write_text("one")
        note.symlink_to(cache.root / "elsewhere")
    assert cache.pull(registry, arm) == place
    assert sorted(path.name for path in place.iterdir()) == sorted(file.path for file in arm.files)
    assert note.read_text() == "one"
    assert not note.is_symlink()


def test_a_manifest_that_is_not_its_digest_is_refused(
    cache: Cache, door: Door, registry: Countersign
) -> None:
    one, two = door.version("acme/claims@v1", "one"), door.version("acme/claims@v2", "two")
    with pytest.raises(Unverified) as refusal:
        cache.pull(registry, replace(one, files=two.files))
    assert refusal.value.kind == "manifest-mismatch"
    assert not cache.place(one).exists()


@pytest.mark.parametrize(
    "path", ["../x", "/etc/x", "a/../../x", "", ".", "a\\b", "a//b", "./a", "a/"]
)
def test_a_path_that_leaves_its_folder_is_refused(
    cache: Cache, registry: Countersign, door: Door, path: str
) -> None:
    file = FileView(path, "a" * 64, 1)
    arm = ArmView(
        "acme/x@v1", "adapter", digest([{"path": path, "sha256": "a" * 64, "size": 1}]), "", [file]
    )
    with pytest.raises(Unverified) as refusal:
        cache.pull(registry, arm)
    assert refusal.value.kind == "manifest-mismatch"


def test_plain_paths_are_inside() -> None:
    assert inside("a.json")
    assert inside("deep/er/a.json")
