"""A quantised checkpoint through the real door: by the command line as people type it, and on the
console's page.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from registry.cli import main
from registry.client import Countersign
from tests.api.conftest import Door
from tests.build import MODULE, a_world


def test_added_shown_and_traced(
    door: Door,
    team: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
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
    add = (
        "checkpoint",
        "add",
        folder,
        "--quantised-of",
        world.base.ref,
        "--meta",
        meta,
        "--json",
        "--name",
    )

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


SCALES = {"qzeros": np.full((1, 1), 0x77777777, np.int32), "scales": np.ones((1, 8), np.float16)}
CALIBRATED: dict[str, tuple[dict[str, np.ndarray[Any, Any]], dict[str, object], str]] = {
    "gptq": (
        {
            "qweight": np.full((1, 8), 0x76543210, np.int32),
            **SCALES,
            "g_idx": np.zeros(8, np.int32),
        },
        {"quant_method": "gptq", "bits": 4, "group_size": 8, "desc_act": False, "sym": True},
        "quantize_config.json",
    ),
    "awq": (
        {"qweight": np.full((8, 1), 0x76543210, np.int32), **SCALES},
        {"quant_method": "awq", "bits": 4, "group_size": 8, "version": "gemm", "zero_point": True},
        "quant_config.json",
    ),
}
"""How AutoGPTQ and AutoAWQ lay out a linear layer of 8 inputs and 8 outputs: eight values of four
bits in each int32, along the inputs or along the outputs; zeros and scales a group. Their settings
stand in config.json and in a file of their own.
"""


@pytest.mark.parametrize("method", CALIBRATED)
def test_a_calibrated_one_stays_a_claim_wherever_it_is_told(
    door: Door,
    team: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    method: str,
) -> None:
    """GPTQ and AWQ depend on data and order, so nobody can work them out again; of the console, see
    tests/web/test_descents.py.
    """
    parts, settings, beside = CALIBRATED[method]
    world = a_world(door.store, door.blobs, team)
    monkeypatch.setenv("COUNTERSIGN_URL", door.url)
    monkeypatch.setenv("COUNTERSIGN_TOKEN", door.token(world.engineer))

    def run(*words: object) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        return int(ended.value.code or 0), capsys.readouterr().out

    folder = tmp_path / method
    with Countersign(door.url, door.token(world.engineer)) as client:
        client.pull(world.base.ref, folder)
    weights, config = folder / "model.safetensors", folder / "config.json"
    norm = load_file(weights)["model.norm.weight"].astype(np.float16)
    save_file(
        {f"{MODULE}.{part}": value for part, value in parts.items()} | {"model.norm.weight": norm},
        weights,
    )
    config.write_text(
        json.dumps(
            json.loads(config.read_text()) | {"quantization_config": settings, "dtype": "float16"}
        )
    )
    (folder / beside).write_text(json.dumps(settings))
    (tmp_path / "meta.yaml").write_text(
        "licence: apache-2.0\npurpose: to be served on small devices\n"
    )
    said = ("--quantised-of", world.base.ref, "--meta", tmp_path / "meta.yaml", "--json", "--name")

    # Sent as it lies there, it is refused by name, and told how to go on.
    code, out = run("checkpoint", "add", folder, *said, f"{team}/{method}")
    [defect] = json.loads(out)["defects"]
    assert (code, defect["file"], defect["rule"]) == (3, beside, "file-not-allowed")
    assert "import" in defect["fix"]
    code, out = run("checkpoint", "import", folder, *said, f"{team}/{method}")
    taken = json.loads(out)
    assert (code, taken["status"], [one["path"] for one in taken["left_out"]]) == (
        0,
        "registered",
        [beside],
    )
    claim = (
        f"{world.base.ref}, claimed only: 1 parts could not be verified, such as {MODULE}.weight"
    )
    assert claim in run("checkpoint", "show", taken["ref"])[1]
    code, out = run("verify", taken["ref"])
    assert code == 0
    assert "claimed: " in out
    assert "1 things cannot be computed" in out
    [edge] = json.loads(run("lineage", taken["ref"], "--json")[1])["edges"]
    assert (edge["relation"], edge["grade"]) == ("quantised_from", "claimed")

    # A qweight that cannot hold the base's 64 values contradicts the claim.
    save_file(
        {f"{MODULE}.{part}": value for part, value in parts.items() if part != "qweight"}
        | {f"{MODULE}.qweight": np.zeros((1, 3), np.int32), "model.norm.weight": norm},
        weights,
    )
    code, out = run("checkpoint", "import", folder, *said, f"{team}/{method}-cut")
    [defect] = json.loads(out)["defects"]
    assert (code, defect["rule"], defect["where"]) == (3, "descent-false", f"{MODULE}.weight")
    assert "1.5 bits" in defect["detail"]
