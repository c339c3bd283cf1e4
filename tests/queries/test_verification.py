"""`verify` reads everything again: what was damaged or changed is named, and what is sound is said
to be.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from registry.blobs.store import Blobs
from registry.db import versions as rows
from registry.db.store import Store
from registry.queries.verification import verify
from registry.rules.actors import SYSTEM
from registry.views.versions import VerifiedView
from tests.build import World, a_world, adapter_files, put
from tests.commands.test_chat_templates import PLAIN, templated
from tests.commands.test_descents import checkpoint, lowered
from tests.commands.test_drafts import WHOLE, add
from tests.db.around import plain_url


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damaged")


@pytest.fixture(scope="module")
def world(store: Store, folder: Path) -> World:
    return a_world(store, Blobs(folder.as_uri()), "damaged")


@pytest.fixture(scope="module")
def refs(world: World) -> dict[str, str]:
    """One sound version of every kind."""
    return {
        "base": world.base.ref,
        "dataset": world.dataset.ref,
        "adapter": add(world, adapter_files(world.blobs, 31), WHOLE, world.base.ref, "sound").ref,
        "checkpoint": checkpoint(world, lowered(world), "half", world.base.ref).ref,
        "templated": templated(world, PLAIN).ref,
    }


def looked(world: World, ref: str) -> VerifiedView:
    return verify(world.store, world.blobs, world.engineer.actor, ref)


EXPECTED = {
    "base": {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "manifest",
        "form",
        "tokenizer",
        "tensor root",
        "base root",
        "facts",
    },
    "dataset": {"rows.jsonl", "record root"},
    "adapter": {
        "adapter_config.json",
        "adapter_model.safetensors",
        "manifest",
        "fit to its base",
        "tensor root",
        "base root",
        "facts",
    },
    "checkpoint": {"form", "tensor root", "base root"},
    "templated": {"chat_template.jinja", "chat template", "fit to its base"},
}


@pytest.mark.parametrize("kind", sorted(EXPECTED))
def test_what_is_sound_is_said_to_be_check_by_check(
    world: World, refs: dict[str, str], kind: str
) -> None:
    found = looked(world, refs[kind])
    assert (found.ok, found.problems) == (True, [])
    assert EXPECTED[kind] <= {one.check for one in found.checks}
    assert {one.outcome for one in found.checks} == {"ok"}
    if kind == "checkpoint":
        [descent] = [one for one in found.checks if one.check.startswith("descent from")]
        assert descent.detail == "verified: 2 by cast; 0 things cannot be computed"


def place(world: World, folder: Path, ref: str, path: str) -> Path:
    """Where a file's bytes lie on the disk."""
    with world.store.read(SYSTEM) as session:
        version = rows.by_ref(session, ref)[0]
        [sha256] = [sha for name, sha, _ in rows.files(session, version.id) if name == path]
    [found] = list(folder.rglob(sha256))
    return found


def altered(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


DAMAGE: dict[str, Callable[[bytes], bytes | None]] = {
    "corrupt": altered,
    "missing": lambda _: None,
    "truncated": lambda data: data[:-3],
    "longer": lambda data: data + b" ",
}


@pytest.mark.parametrize("kind", ["base", "adapter", "checkpoint"])
@pytest.mark.parametrize("damage", sorted(DAMAGE))
@pytest.mark.parametrize("part", ["weights", "text"])
def test_damaged_bytes_are_named(
    world: World, folder: Path, refs: dict[str, str], kind: str, damage: str, part: str
) -> None:
    adapter = kind == "adapter"
    path = {
        "weights": "adapter_model.safetensors" if adapter else "model.safetensors",
        "text": "adapter_config.json" if adapter else "config.json",
    }[part]
    file = place(world, folder, refs[kind], path)
    whole = file.read_bytes()
    changed = DAMAGE[damage](whole)
    try:
        file.chmod(0o600)
        file.unlink()
        if changed is not None:
            file.write_bytes(changed)
        found = looked(world, refs[kind])
    finally:
        file.unlink(missing_ok=True)
        file.write_bytes(whole)
    assert not found.ok
    outcomes = {one.check: one.outcome for one in found.checks}
    assert outcomes[path] == "fault", outcomes
    assert outcomes["manifest"] == "ok"
    assert any(path in problem for problem in found.problems)
    assert [
        one
        for one in found.checks
        if one.outcome == "fault"
        and one.check.endswith((".json", ".safetensors"))
        and one.check != path
    ] == []


def test_an_adapter_s_base_is_looked_at_too(
    world: World, folder: Path, refs: dict[str, str]
) -> None:
    file = place(world, folder, refs["base"], "model.safetensors")
    whole = file.read_bytes()
    try:
        file.write_bytes(b"\xff" * 8 + whole[8:])
        found = looked(world, refs["adapter"])
    finally:
        file.write_bytes(whole)
    outcomes = {one.check: one.outcome for one in found.checks}
    assert (outcomes[f"base {refs['base']}"], outcomes["fit to its base"]) == ("fault", "skipped")
    assert not found.ok


CHANGES = {
    "tensor root": "update version set tensor_root = 'sha256:' || repeat('0', 64) where id = %s",
    "base root": "update version set base_root = 'sha256:' || repeat('0', 64) where id = %s",
    "manifest": "update version_file set path = 'NOTICE' where path = 'README.md' and version_id "
    "= %s",
    "facts": "update version set facts = jsonb_set(facts, '{tensors}', '7') where id = %s",
    "descent": "update lineage_edge set grade = 'claimed' where relation = 'quantised_from' and "
    "child_id = %s",
}


def test_a_changed_row_is_found(fresh_store: Store, tmp_path: Path, team: str) -> None:
    """By whoever owns the tables, with every guard switched off."""
    made = a_world(fresh_store, Blobs(tmp_path.as_uri()), team)
    refs = {"descent": checkpoint(made, lowered(made), "half", made.base.ref).ref}
    for number, what in enumerate(sorted(CHANGES)):
        if what != "descent":
            files = [
                *adapter_files(made.blobs, 40 + number),
                put(made.blobs, "README.md", b"# Sound\n"),
            ]
            refs[what] = add(made, files, WHOLE, made.base.ref, f"sound{number}").ref
    for what, ref in refs.items():
        assert looked(made, ref).ok, what
    with psycopg.connect(plain_url(fresh_store)) as connection:
        for table in ("version", "version_file", "lineage_edge"):
            connection.execute(f"alter table {table} disable trigger user")
        for what, ref in refs.items():
            with fresh_store.read(SYSTEM) as session:
                version = rows.by_ref(session, ref)[0]
            assert connection.execute(CHANGES[what], (version.id,)).rowcount == 1
    for what, ref in refs.items():
        found = looked(made, ref)
        assert [
            one.check.partition(" from ")[0] for one in found.checks if one.outcome == "fault"
        ] == [what]
