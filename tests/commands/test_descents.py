"""Checkpoints quantised of another version: verified from the bytes, openly claimed, or refused."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import numpy as np
import psycopg
import pytest
from safetensors.numpy import load, save

from registry.blobs.store import Blobs
from registry.commands import profiles, recalls, versions
from registry.db import profiles as table
from registry.db import versions as rows
from registry.db.store import Store
from registry.errors import BundleRejected, Conflict, Invalid, Refused
from registry.queries import versions as asked
from registry.rules.actors import SYSTEM
from registry.views.versions import AddedView
from tests.build import MODULE, World, a_world, adapter_files, put, register
from tests.commands.test_drafts import WHOLE, add, parents
from tests.db.around import as_app

META = {"licence": "apache-2.0", "purpose": "to be served on small devices"}


@pytest.fixture(scope="module")
def world(store: Store, blobs: Blobs) -> World:
    return a_world(store, blobs, "quantised")


def base_bytes(world: World) -> dict[str, bytes]:
    with world.store.read(SYSTEM) as session:
        version = rows.by_ref(session, world.base.ref)[0]
        return {
            path: world.blobs.read(sha, 0, size)
            for path, sha, size in rows.files(session, version.id)
        }


def lowered(world: World) -> bytes:
    """The base's weights in half precision."""
    arrays = load(base_bytes(world)["model.safetensors"])
    return save({name: value.astype(np.float16) for name, value in arrays.items()})


def checkpoint(world: World, weights: bytes, name: str, of: str | None, **config: Any) -> AddedView:
    held = base_bytes(world)
    document = json.loads(held["config.json"]) | config
    files = [
        put(world.blobs, path, data)
        for path, data in (
            held | {"model.safetensors": weights, "config.json": json.dumps(document).encode()}
        ).items()
    ]
    draft = versions.Draft("checkpoint", f"{world.team}/{name}", files, META, quantised_of=of)
    return register(world.store, world.blobs, world.engineer.actor, draft)


def test_a_verified_quantisation_may_stand_in_for_its_base(world: World) -> None:
    added = checkpoint(world, lowered(world), "half", world.base.ref, torch_dtype="float16")
    assert added.status == "registered"
    assert parents(world, added.ref) == [("quantised_from", world.base.ref, "verified")]
    found = asked.version(world.store, world.engineer.actor, added.ref)
    assert found.facts["descent"]["recipes"] == {"cast": 2}
    assert found.facts["descent"]["of"] == world.base.ref
    with world.store.read(SYSTEM) as session:
        base = rows.by_ref(session, world.base.ref)[0]
        assert table.verified_quantisation(session, found.id, base.id)
    adapter = add(world, adapter_files(world.blobs, 21), WHOLE, world.base.ref, "served")
    made = profiles.define(
        world.store,
        world.blobs,
        world.engineer.actor,
        profiles.ProfileRequest(
            adapter.ref,
            {"engine": "transformers", "build": "5.23.0", "dtype": "float16"},
            added.ref,
        ),
    )
    assert made.status == "defined"


def test_one_altered_weight_is_refused_by_name(world: World) -> None:
    arrays = load(lowered(world))
    arrays[f"{MODULE}.weight"] = arrays[f"{MODULE}.weight"].copy()
    arrays[f"{MODULE}.weight"][5, 2] += np.float16(0.5)
    with pytest.raises(BundleRejected) as refused:
        checkpoint(world, save(arrays), "altered", world.base.ref)
    assert [(one.rule, one.where) for one in refused.value.defects] == [
        ("descent-false", f"{MODULE}.weight")
    ]
    assert "[5, 2]" in refused.value.defects[0].detail
    # Without the claim it is a checkpoint like any other.
    assert checkpoint(world, save(arrays), "altered", None).status == "registered"


def test_what_cannot_be_worked_out_is_openly_claimed(world: World) -> None:
    arrays = load(base_bytes(world)["model.safetensors"])
    del arrays[f"{MODULE}.weight"]
    parts = {"qweight": np.ones((1, 8), np.int32), "scales": np.ones((1, 8), np.float16)}
    held = save(arrays | {f"{MODULE}.{part}": value for part, value in parts.items()})
    added = checkpoint(world, held, "gptq", world.base.ref)
    assert parents(world, added.ref) == [("quantised_from", world.base.ref, "claimed")]
    facts = asked.version(world.store, world.engineer.actor, added.ref).facts["descent"]
    assert (facts["grade"], facts["unchecked_count"]) == ("claimed", 1)
    adapter = add(world, adapter_files(world.blobs, 22), WHOLE, world.base.ref, "unserved")
    with pytest.raises(Refused) as refused:
        profiles.define(
            world.store,
            world.blobs,
            world.engineer.actor,
            profiles.ProfileRequest(
                adapter.ref, {"engine": "transformers", "build": "5.23.0"}, added.ref
            ),
        )
    assert refused.value.kind == "unfit-base"


def test_a_descent_is_said_at_birth_and_of_something_fit(world: World) -> None:
    weights = lowered(world)
    checkpoint(world, weights, "late", None)
    with pytest.raises(Conflict) as late:
        checkpoint(world, weights, "late", world.base.ref)
    assert late.value.kind == "descent-late"
    adapter = add(world, adapter_files(world.blobs, 23), WHOLE, world.base.ref, "parent")
    with pytest.raises(Refused) as unfit:
        checkpoint(world, weights, "of-an-adapter", adapter.ref)
    assert unfit.value.kind == "unfit-parent"
    with pytest.raises(Invalid) as wrong:
        draft = versions.Draft("base", f"{world.team}/b", [], {}, quantised_of=world.base.ref)
        register(world.store, world.blobs, world.engineer.actor, draft)
    assert wrong.value.kind == "not-quantised"


def test_a_quantisation_falls_with_what_it_came_from(store: Store, blobs: Blobs, team: str) -> None:
    world = a_world(store, blobs, team)
    added = checkpoint(world, lowered(world), "half", world.base.ref)
    recalls.recall(store, world.engineer.actor, world.base.ref, "Its licence was withdrawn.")
    assert asked.version(store, world.engineer.actor, added.ref).state == "recalled"
    with pytest.raises(Refused):
        checkpoint(world, lowered(world), "again", world.base.ref)


@pytest.mark.parametrize(
    ("what", "statement", "told"),
    [
        (
            "a claim made verified",
            "select %(new)s, c.id, c.seq, p.id, p.seq, 'quantised_from', 'verified', now() "
            "from node c, node p where c.ref = %(plain)s and p.ref = %(base)s",
            "judged by nobody",
        ),
        (
            "an adapter",
            "select %(new)s, c.id, c.seq, p.id, p.seq, 'quantised_from', 'claimed', now() "
            "from node c, node p where c.ref = %(adapter)s and p.ref = %(base)s",
            "cannot be a quantisation",
        ),
    ],
)
def test_postgresql_refuses_a_descent_that_was_not_judged_so(
    world: World, what: str, statement: str, told: str
) -> None:
    plain = checkpoint(world, lowered(world), f"plain-{len(what)}", None)
    adapter = add(
        world,
        adapter_files(world.blobs, 60 + len(what)),
        WHOLE,
        world.base.ref,
        f"plain-adapter-{len(what)}",
    )
    names = {"new": uuid4(), "plain": plain.ref, "adapter": adapter.ref, "base": world.base.ref}
    with as_app(world.store) as connection, pytest.raises(psycopg.Error, match=told) as refused:
        connection.execute(f"insert into lineage_edge {statement}", names)
    assert refused.value.sqlstate == "CS010"
