"""Weights beside an adapter, and adapters and merges that do nothing, through REST and the CLI."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from registry.cli import main
from registry.client import Countersign
from registry.queries import gates
from registry.queries.gates import Proposal
from registry.views.evals import RuleView
from tests.api.conftest import Door
from tests.build import MODULE, World, a_world, adapter_files

META = "purpose: to test\nlicence: apache-2.0\n"


class Desk:
    """An engineer at a command line, with a trainer's output folder."""

    def __init__(self, world: World, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.world, self.folder, self._capsys = world, folder, capsys
        folder.mkdir()
        for file in adapter_files(world.blobs, seed=77):
            (folder / file.path).write_bytes(world.blobs.read(file.sha256, 0, file.size))
        (folder.parent / "meta.yaml").write_text(META)

    def run(self, *words: object) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        return int(ended.value.code or 0), self._capsys.readouterr().out

    def bring(self, verb: str, name: str, *more: object, meta: bool = True) -> tuple[int, Any]:
        described = ("--meta", self.folder.parent / "meta.yaml") if meta else ()
        code, out = self.run(
            *("adapter", verb, self.folder, "--name", f"{self.world.team}/{name}", "--base"),
            *(self.world.base.ref, "--domain", "legal", *described, *more, "--json"),
        )
        return code, json.loads(out)


@pytest.fixture
def desk(
    door: Door,
    team: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Desk:
    world = a_world(door.store, door.blobs, team)
    monkeypatch.setenv("COUNTERSIGN_URL", door.url)
    monkeypatch.setenv("COUNTERSIGN_TOKEN", door.token(world.engineer))
    return Desk(world, tmp_path / "output", capsys)


def shown(door: Door, desk: Desk, ref: str) -> Any:
    with Countersign(door.url, door.token(desk.world.engineer)) as client:
        return client.version(ref)


def rules(door: Door, desk: Desk, ref: str) -> dict[str, RuleView]:
    world = desk.world
    proposal = Proposal(ref, "production", world.use_case)
    verdict = gates.check(door.store, door.blobs, world.engineer.actor, proposal)
    return {rule.rule: rule for rule in verdict.rules}


def test_a_value_head_is_refused_until_its_maker_says_to_go_without(door: Door, desk: Desk) -> None:
    (desk.folder / "value_head.safetensors").write_bytes(b"never sent")
    (desk.folder / "2_Dense").mkdir()
    (desk.folder / "2_Dense" / "model.safetensors").write_bytes(b"never sent")
    (desk.folder / "-it's extra.pt").write_bytes(b"never sent")
    (desk.folder / "optimizer.pt").write_bytes(b"\x80\x04.")
    (desk.folder / "checkpoint-2").mkdir()
    (desk.folder / "checkpoint-2" / "model.safetensors").write_bytes(b"x")
    for verb in ("add", "import"):
        code, answer = desk.bring(verb, "reward")
        defects = {each["file"]: each for each in answer["defects"]}
        assert code == 3 and answer["status"] == "refused"
        assert defects["value_head.safetensors"]["rule"] == "companion-weights"
        assert ("optimizer.pt" in defects) == (verb == "add")
    companions = {"value_head.safetensors", "2_Dense/model.safetensors", "-it's extra.pt"}
    assert set(defects) == companions
    options = [each["fix"].partition("import it again with ")[2] for each in defects.values()]
    asked = shlex.split(" ".join(options))

    # A draft that says so still says so once it is complete, through whichever verb.
    code, draft = desk.bring("import", "reward", *asked, meta=False)
    assert (code, draft["status"]) == (0, "draft")
    for name in {"optimizer.pt", *companions}:
        (desk.folder / name).unlink()
    for folder in ("2_Dense", "checkpoint-2"):
        for path in (desk.folder / folder).iterdir():
            path.unlink()
        (desk.folder / folder).rmdir()
    code, added = desk.bring("add", "reward")
    assert (code, added["status"]) == (0, "registered")
    version = shown(door, desk, added["ref"])
    kept = {entry.path: entry for entry in version.left_out}
    assert set(kept) == companions
    assert kept["value_head.safetensors"].size == len(b"never sent")
    assert sum("registered without" in risk for risk in version.risks) == 3
    out = desk.run("adapter", "show", added["ref"])[1]
    assert "value_head.safetensors" in out and "value head of a reward model" in out
    assert rules(door, desk, added["ref"])["companions"].outcome == "fail"


def test_what_was_left_out_stays_with_the_version(door: Door, desk: Desk) -> None:
    for name in ("optimizer.pt", "training_args.bin", "rng_state_0.pth", "args.json"):
        (desk.folder / name).write_bytes(b"12345")
    code, added = desk.bring("import", "plain")
    assert (code, added["status"], added["findings"]) == (0, "registered", [])
    version = shown(door, desk, added["ref"])
    assert [(entry.path, entry.size, entry.companion) for entry in version.left_out] == [
        (name, 5, None)
        for name in ("args.json", "optimizer.pt", "rng_state_0.pth", "training_args.bin")
    ]
    assert version.risks == [] and "companions" not in rules(door, desk, added["ref"])

    # The same bytes, now with a head beside them: they are there without saying so.
    (desk.folder / "value_head.bin").write_bytes(b"x")
    code, again = desk.bring("import", "plain", "--leave-out", "value_head.bin")
    assert (code, again["status"], again["ref"]) == (0, "found", added["ref"])
    [finding] = again["findings"]
    assert finding["field"] == "left_out" and "does not say so" in finding["detail"]


def test_rest_refuses_what_its_body_says_was_left_out(door: Door, desk: Desk) -> None:
    world = desk.world
    files = [
        {"path": file.path, "sha256": file.sha256, "size": file.size}
        for file in adapter_files(world.blobs, seed=78)
    ]
    body = {
        "name": f"{world.team}/direct",
        "base": world.base.ref,
        "files": files,
        "left_out": [{"path": "mm_projector.bin", "size": 3, "why": "a pickle"}],
    }
    answer = door.ask(world.engineer, "POST", "/adapters", body)
    assert answer.status_code == 422, answer.text
    assert "companion-weights" in {each["rule"] for each in answer.json()["defects"]}


def test_an_adapter_of_zeros_is_told_and_fails_its_gate(door: Door, desk: Desk) -> None:
    weights = desk.folder / "adapter_model.safetensors"
    arrays = load_file(weights)
    [name] = [name for name in arrays if "lora_B" in name]
    save_file(arrays | {name: np.zeros_like(arrays[name])}, weights)
    code, added = desk.bring("add", "idle")
    assert (code, added["status"]) == (0, "registered")
    [finding] = added["findings"]
    assert (finding["field"], finding["blocks"]) == ("effect", False)
    assert "zero" in finding["detail"]
    effect = shown(door, desk, added["ref"]).effect
    assert (effect.state, effect.parts, effect.idle, effect.measured) == ("none", 1, 1, None)
    assert effect.idle_examples == [MODULE]
    assert rules(door, desk, added["ref"])["effect"].outcome == "fail"
    assert "0 of 1 adapted parts changed" in desk.run("adapter", "show", added["ref"])[1]


def test_a_merge_that_is_its_base_is_told(door: Door, desk: Desk) -> None:
    world, folder = desk.world, desk.folder.parent / "merged"
    with Countersign(door.url, door.token(world.engineer)) as client:
        client.pull(world.base.ref, folder)
    meta = ("--meta", desk.folder.parent / "meta.yaml", "--json", "--name")
    code, out = desk.run("checkpoint", "add", folder, *meta, f"{world.team}/merged")
    added = json.loads(out)
    assert (code, added["status"]) == (0, "registered")
    [finding] = added["findings"]
    assert finding["field"] == "effect" and world.base.ref in finding["detail"]
    assert shown(door, desk, added["ref"]).effect.same_as == world.base.ref
    arrays = load_file(folder / "model.safetensors")
    save_file({name: array + 1 for name, array in arrays.items()}, folder / "model.safetensors")
    other = json.loads(desk.run("checkpoint", "add", folder, *meta, f"{world.team}/other")[1])
    assert other["findings"] == []
    assert shown(door, desk, other["ref"]).effect.state == "weights"
