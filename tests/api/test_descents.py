"""A quantised checkpoint through the real door: by the command line as people type it, and on the console's page."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from registry.cli import main
from registry.client import Countersign
from tests.api.conftest import Door
from tests.build import MODULE, a_world


def test_added_shown_and_traced(
    door: Door, team: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world = a_world(door.store, door.blobs, team)
    monkeypatch.setenv("COUNTERSIGN_URL", door.url)
    monkeypatch.setenv("COUNTERSIGN_TOKEN", door.token(world.engineer))
    meta = tmp_path / "meta.yaml"
    meta.write_text("licence: apache-2.0\npurpose: to be served on small devices\n")

    def run(*words: object) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        return int(ended.value.code or 0), capsys.readouterr().out

    folder = tmp_path / "half"
    with Countersign(door.url, door.token(world.engineer)) as client:
        client.pull(world.base.ref, folder)
    weights = folder / "model.safetensors"
    arrays = {name: value.astype(np.float16) for name, value in load_file(weights).items()}
    save_file(arrays, weights)
    add = ("checkpoint", "add", folder, "--quantised-of", world.base.ref, "--meta", meta, "--json", "--name")

    code, said = run(*add, f"{team}/half")
    assert (code, json.loads(said)["status"]) == (0, "registered")
    ref = json.loads(said)["ref"]
    assert "verified from the bytes (cast)" in run("checkpoint", "show", ref)[1]
    [edge] = json.loads(run("lineage", ref, "--json")[1])["edges"]
    assert (edge["relation"], edge["grade"]) == ("quantised_from", "verified")
    assert "descent from" in run("verify", ref)[1]

    arrays[f"{MODULE}.weight"][0, 0] += np.float16(1)
    save_file(arrays, weights)
    code, said = run(*add, f"{team}/altered")
    assert (code, [one["rule"] for one in json.loads(said)["defects"]]) == (3, ["descent-false"])

    parts = {f"{MODULE}.qweight": np.ones((1, 8), np.int32), "model.norm.weight": arrays["model.norm.weight"]}
    save_file(parts, weights)
    code, said = run(*add, f"{team}/gptq")
    shown = run("checkpoint", "show", json.loads(said)["ref"])[1]
    assert "claimed only: 1 things could not be worked out" in shown
