"""Adapters of every method through the real command: their configuration is kept as we write it,
and found again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from registry.artifacts.methods.anatomies import anatomy
from registry.artifacts.methods.configs import FILE
from registry.artifacts.weights.tensors import File
from registry.blobs.store import Blobs
from registry.commands import evals, versions
from registry.db.store import Store
from registry.errors import BundleRejected, Refused
from registry.queries import pulls
from registry.queries import versions as asked
from registry.queries.verification import verify
from registry.rules.refs import commit, repository
from registry.views.versions import AddedView, VersionView
from tests.artifacts.methods.test_methods import LEAST, read
from tests.build import (
    ADAPTER_META,
    BASE_META,
    World,
    a_base,
    a_person,
    a_world,
    adapter_files,
    put,
    register,
    safetensors,
)

META = {**ADAPTER_META, "domain": "legal"}
SHAPES: dict[str, tuple[int, ...]] = {
    "model.layers.0.self_attn.q_proj.weight": (8, 8),
    "model.norm.weight": (8,),
}
NUMBERS = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
MORE: dict[str, dict[str, Any]] = {
    "PREFIX_TUNING": {"token_dim": 8, "num_attention_heads": 1, "num_layers": 1},
    "PROMPT_TUNING": {"token_dim": 8, "num_attention_heads": 1, "num_layers": 1},
    "LN_TUNING": {"target_modules": ["norm"]},
}


@pytest.fixture
def world(store: Store, blobs: Blobs, team: str) -> World:
    return a_world(store, blobs, team)


def add(
    world: World, files: Sequence[File], base: str | None, name: str = "tuned", **meta: Any
) -> AddedView:
    draft = versions.Draft("adapter", f"{world.team}/{name}", list(files), META | meta, base)
    return register(world.store, world.blobs, world.engineer.actor, draft)


def seen(world: World, ref: str) -> VersionView:
    return asked.version(world.store, world.engineer.actor, ref)


def config_of(world: World, view: VersionView) -> dict[str, Any]:
    [file] = [file for file in view.files if file.path == FILE]
    found: dict[str, Any] = json.loads(b"".join(world.blobs.stream(file.sha256)))
    return found


def line_of(world: World) -> str:
    return world.base.ref.partition("@")[0]


def pulled(view: VersionView) -> list[File]:
    """The files as a pull of them gives them."""
    return [File(file.path, file.sha256, file.size) for file in view.files]


def renamed(world: World, files: Sequence[File], **changes: Any) -> list[File]:
    """The same adapter with other words in its configuration."""
    [config] = [
        json.loads(b"".join(world.blobs.stream(file.sha256))) for file in files if file.path == FILE
    ]
    made = put(world.blobs, FILE, json.dumps(config | changes, indent=4).encode())
    return [made if file.path == FILE else file for file in files]


@pytest.fixture
def normed(world: World) -> str:
    """A base whose config.json says its sizes."""
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], **NUMBERS}
    files = [
        put(world.blobs, "model.safetensors", safetensors(SHAPES)),
        put(world.blobs, "config.json", json.dumps(config).encode()),
    ]
    draft = versions.Draft("base", f"{world.team}/normed", files, BASE_META)
    return register(world.store, world.blobs, world.engineer.actor, draft).ref


@pytest.mark.parametrize("kind", LEAST)
def test_each_method_is_registered_rewritten_and_found_again(
    world: World, normed: str, kind: str
) -> None:
    view = seen(world, normed)
    config = read(kind, **MORE.get(kind, {}))
    tensors = config.method.predict(config.values, anatomy(SHAPES, NUMBERS)).tensors
    raw = {"peft_type": kind, **LEAST[kind], **MORE.get(kind, {}), "peft_version": "0.21.2"}
    files = [
        put(world.blobs, "adapter_model.safetensors", safetensors(tensors)),
        put(world.blobs, FILE, json.dumps(raw).encode()),
    ]
    added = add(world, files, normed)
    assert added.status == "registered"
    made = seen(world, added.ref)
    kept = config_of(world, made)
    assert kept["base_model_name_or_path"] == f"{world.team}/normed.v1"
    assert kept["revision"] == commit(view.manifest_digest)
    assert (kept["inference_mode"], "peft_version" in kept) == (True, False)
    assert made.facts["method"] == config.method.name
    assert made.facts["uploaded_config"] == f"sha256:{files[1].sha256}"
    for again in (files, pulled(made), renamed(world, files, base_model_name_or_path="/elsewhere")):
        assert (add(world, again, normed).status, add(world, again, normed).ref) == (
            "found",
            added.ref,
        )
    verified = verify(world.store, world.blobs, world.engineer.actor, added.ref)
    assert (verified.ok, verified.problems) == (True, [])


def test_what_was_trained_through_the_body_alone_says_so_and_writes_no_text(
    world: World, normed: str
) -> None:
    stem = "base_model.model.layers.0.self_attn.q_proj"
    raw = {"peft_type": "LORA", **LEAST["LORA"], "task_type": "FEATURE_EXTRACTION"}
    tensors: dict[str, tuple[int, ...]] = {
        f"{stem}.lora_A.weight": (4, 8),
        f"{stem}.lora_B.weight": (8, 4),
    }
    files = [
        put(world.blobs, "adapter_model.safetensors", safetensors(tensors)),
        put(world.blobs, FILE, json.dumps(raw).encode()),
    ]
    added = add(world, files, normed)
    assert (added.status, seen(world, added.ref).facts["loads_as"]) == ("registered", "AutoModel")
    with pytest.raises(Refused) as refusal:
        evals.queue(world.store, world.blobs, world.engineer.actor, added.ref, world.suite)
    assert refusal.value.kind == "writes-no-text"


def test_a_pull_serves_what_was_written(world: World) -> None:
    """An engineer's client gets the file that names the base as the Hub dialect serves it."""
    added = add(world, adapter_files(world.blobs), world.base.ref)
    one = pulls.revision(world.store, world.engineer.actor, world.team, "tuned", "v1")
    [config] = [file for file in one.files if file.path == FILE]
    kept = json.loads(b"".join(world.blobs.stream(config.sha256)))
    base = pulls.revision(
        world.store,
        world.engineer.actor,
        world.team,
        kept["base_model_name_or_path"].partition("/")[2],
        kept["revision"],
    )
    assert (base.ref, kept["base_model_name_or_path"]) == (
        world.base.ref,
        repository(world.base.ref),
    )
    assert one.commit == commit(added.digest)


def test_a_draft_gets_its_base_into_its_configuration_when_it_has_one(world: World) -> None:
    """By the files that came, or by the draft's own as they were kept meanwhile."""
    for seed, again in ((1, "as they came"), (2, "as they were kept")):
        files = adapter_files(world.blobs, seed)
        drafted = add(world, files, None)
        assert drafted.status == "draft"
        view = seen(world, drafted.ref)
        assert config_of(world, view)["base_model_name_or_path"] is None
        added = add(world, files if again == "as they came" else pulled(view), world.base.ref)
        assert added.status == "registered"
        made = seen(world, added.ref)
        assert made.id == view.id
        kept = config_of(world, made)
        assert kept["base_model_name_or_path"] == repository(world.base.ref)
        assert made.manifest_digest == added.digest != drafted.digest
        assert add(world, files, world.base.ref).ref == added.ref
        assert verify(world.store, world.blobs, world.engineer.actor, added.ref).ok


def test_a_draft_stays_one_draft_whichever_base_it_is_said_to_have(world: World) -> None:
    other = a_base(world.store, world.blobs, world.engineer, world.team, "second", seed=3)
    files = adapter_files(world.blobs)
    drafts = [
        add(world, files, base, domain="") for base in (world.base.ref, None, other.ref, other.ref)
    ]
    assert {one.status for one in drafts} == {"draft"}
    assert len({one.ref for one in drafts}) == 1
    assert len({one.digest for one in drafts}) == 3
    view = seen(world, drafts[0].ref)
    assert (view.base, config_of(world, view)["base_model_name_or_path"]) == (
        other.ref,
        f"{world.team}/second.v1",
    )
    assert add(world, files, world.base.ref).status == "registered"


def test_another_base_of_ours_is_not_the_base(world: World) -> None:
    """Two bases of the same shapes: what the configuration says must be what is bound, where it
    names one of ours.
    """
    other = a_base(world.store, world.blobs, world.engineer, world.team, "other", seed=3)
    files = adapter_files(world.blobs)
    for name, revision in (
        (f"{world.team}/other", None),
        (f"{world.team}/other", "v1"),
        (other.ref, None),
        (f"{world.team}/other.v1", "main"),
        (f"{world.team}/other", commit(other.digest)),
    ):
        with pytest.raises(BundleRejected) as refusal:
            add(
                world,
                renamed(world, files, base_model_name_or_path=name, revision=revision),
                world.base.ref,
            )
        assert [defect.rule for defect in refusal.value.defects] == ["base-mismatch"]
        assert name in refusal.value.defects[0].detail
    for harmless in (
        line_of(world),
        repository(world.base.ref),
        "/srv/base",
        "meta-llama/Llama-3.2-1B",
        f"{world.team}/nonesuch",
        "a\0/b",
    ):
        added = add(world, renamed(world, files, base_model_name_or_path=harmless), world.base.ref)
        assert added.ref == f"{world.team}/tuned@v1"


def test_a_name_in_a_team_that_may_not_be_seen_tells_nothing(world: World) -> None:
    stranger = a_person(world.store, "engineer", team="secretive")
    a_base(world.store, world.blobs, stranger, "secretive", "secret", seed=4)
    files = renamed(world, adapter_files(world.blobs), base_model_name_or_path="secretive/secret")
    assert add(world, files, world.base.ref).status == "registered"
