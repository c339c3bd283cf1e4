"""Roots worked out by a worker: the same as are registered, also with a chat template that was let
in, and of old bases.
"""

from __future__ import annotations

import json
from dataclasses import replace

import psycopg
import pytest

from registry.artifacts.bundles import judge
from registry.blobs.store import Blobs
from registry.commands import versions
from registry.db import versions as table
from registry.db.store import Store
from registry.errors import Unverified
from registry.queries import verification
from registry.rules.actors import SYSTEM
from registry.views.training_runs import InputFile, InputView
from tests.build import BASE_META, World, a_world, adapter_files, put, register, safetensors
from tests.commands.test_chat_templates import allow, templated
from tests.db.around import plain_url
from trainer.roots import roots


@pytest.fixture
def world(fresh_store: Store, blobs: Blobs, team: str) -> World:
    return a_world(fresh_store, blobs, team)


def leased(world: World, ref: str) -> InputView:
    """A version as a lease names it: an adapter by its tensor root, all else by its base root."""
    with world.store.read(SYSTEM) as session:
        version, line, node = table.by_ref(session, ref)
        root = version.tensor_root if line.kind == "adapter" else version.base_root
        files = [InputFile(*row) for row in table.files(session, version.id)]
        return InputView(node.ref, line.kind, root or "", files)


def test_an_adapter_with_a_template_of_its_own_can_be_measured(world: World) -> None:
    allow(world.store, "dev")
    adapter, base = leased(world, templated(world).ref), leased(world, f"{world.team}/chatty@v1")
    assert roots(adapter, base, world.blobs.read) == (adapter.root, base.root)


def test_a_base_keeps_the_root_it_was_registered_with(world: World) -> None:
    """Before, only a tokenizer.json entered the base root; adapters, reviews and routes name that
    root for good.
    """
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 8}
    module = "model.layers.0.self_attn.q_proj"
    files = [
        put(
            world.blobs,
            "model.safetensors",
            safetensors({f"{module}.weight": (8, 8), "model.norm.weight": (8,)}, 9),
        ),
        put(world.blobs, "config.json", json.dumps(config).encode()),
        put(world.blobs, "vocab.json", b'{"a": 0, "b": 1}'),
        put(world.blobs, "merges.txt", b"#version: 0.2\na b\n"),
        put(world.blobs, "README.md", b"# Tiny\n"),
    ]
    draft = versions.Draft("base", f"{world.team}/old", files, BASE_META)
    ref = register(world.store, world.blobs, world.engineer.actor, draft).ref
    seen = judge.inspect("base", files, world.blobs.read, base=None, meta=BASE_META)
    assert seen.former_base_root not in (None, seen.base_root)
    with psycopg.connect(plain_url(world.store)) as connection:
        connection.execute("alter table version disable trigger user")
        connection.execute(
            "update version set base_root = %s where id = (select id from node where ref = %s)",
            [seen.former_base_root, ref],
        )
        connection.execute("alter table version enable trigger user")
    told = verification.verify(world.store, world.blobs, world.engineer.actor, ref)
    assert told.problems == []
    # A rule of texts that came later: what was registered before must still serve as a base.
    script = put(world.blobs, "README.md", b"<script>acts</script>\n")
    with psycopg.connect(plain_url(world.store)) as connection:
        connection.execute(
            "alter table version_file disable trigger user; alter table blob disable trigger user"
        )
        connection.execute(
            "insert into blob (id, size) values (%s, %s)", [script.sha256, script.size]
        )
        connection.execute(
            "update version_file f set blob_id = %s from node n where n.id = f.version_id and "
            "n.ref = %s "
            "and f.path = 'README.md'",
            [script.sha256, ref],
        )
        connection.execute(
            "alter table version_file enable trigger user; alter table blob enable trigger user"
        )
    old = leased(world, ref)
    assert roots(old, None, world.blobs.read)[1] == seen.former_base_root
    meta = {"domain": "legal", "purpose": "tests", "base_root": seen.former_base_root}
    adapter = register(
        world.store,
        world.blobs,
        world.engineer.actor,
        versions.Draft(
            "adapter",
            f"{world.team}/on-old",
            adapter_files(world.blobs, 3),
            meta,
            ref,
        ),
    )
    assert adapter.status == "registered"
    assert roots(leased(world, adapter.ref), old, world.blobs.read)[1] == seen.former_base_root
    other = replace(old, root="sha256:" + "0" * 64)
    with pytest.raises(Unverified):
        roots(other, None, world.blobs.read)
