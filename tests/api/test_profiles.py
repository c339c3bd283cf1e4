"""Serving profiles through the real door, by the real client and the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.cli import main
from registry.client import Countersign
from registry.errors import Invalid
from tests.api.conftest import Door
from tests.build import World, a_world, train


@pytest.fixture
def world(door: Door, team: str) -> World:
    made = a_world(door.store, door.blobs, team)
    train(made)
    return made


@pytest.fixture
def registry(door: Door, world: World) -> Iterator[Countersign]:
    with Countersign(door.url, door.token(world.engineer)) as client:
        yield client


def test_by_the_client(registry: Countersign, world: World, tmp_path: Path) -> None:
    ref = world.versions[-1]
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("One word.")
    parts = {
        "engine": "vllm",
        "build": "0.32.0",
        "system_prompt": f"sha256:{registry.put_file(prompt).sha256}",
    }
    made = registry.define_profile(ref, parts)
    assert (made.status, registry.define_profile(ref, parts).status) == ("defined", "found")
    [shown] = registry.profiles(ref)
    assert shown == registry.profile(made.digest) == registry.profile(str(made.id))
    assert {one.engine for one in registry.engines(ref)} == {
        "vllm",
        "sglang",
        "tgi",
        "transformers",
    }
    assert registry.system_prompt(made.digest).text == "One word."
    other = registry.define_profile(ref, {**parts, "dtype": "float16"})
    assert [
        one.part for one in registry.compare_profiles(made.digest, other.digest).differences
    ] == ["dtype"]
    with pytest.raises(Invalid, match="beams"):
        registry.define_profile(ref, {**parts, "decoding": {"beams": 2}})


def test_by_the_command_line(
    door: Door,
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COUNTERSIGN_URL", door.url)
    monkeypatch.setenv("COUNTERSIGN_TOKEN", door.token(world.engineer))
    decoding = tmp_path / "decoding.yaml"
    decoding.write_text("temperature: 0.5\nmax_tokens: 8\n")

    def say(*words: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main(["profile", *words])
        out = capsys.readouterr().out
        assert not ended.value.code
        return out

    ref = world.versions[-1]
    made = json.loads(
        say(
            "add",
            ref,
            "--engine",
            "vllm",
            "--build",
            "0.32.0",
            "--decoding",
            str(decoding),
            "--json",
        )
    )
    assert made["digest"] in say("ls", ref)
    assert "0.5" in say("show", made["digest"])
    assert "transformers" in say("engines", ref)
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("One word.\nNever guess.\n")
    other = json.loads(
        say(
            "add",
            ref,
            "--engine",
            "vllm",
            "--build",
            "0.32.0",
            "--system-prompt",
            str(prompt),
            "--json",
        )
    )
    assert "Never guess." in say("show", other["digest"])
    assert "+Never guess." in say("diff", made["digest"], other["digest"])
    assert json.loads(say("diff", made["digest"], made["digest"], "--json"))["differences"] == []
