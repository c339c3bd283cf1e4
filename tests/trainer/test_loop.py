"""The loop: what it learns, what it meters, and that no interruption changes a byte."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from registry.artifacts.datasets.rows import Row
from registry.errors import Invalid, Refused
from registry.proof.merkle import Frontier
from tests.trainer.conftest import short_recipe
from trainer import loop
from trainer.demo import inputs
from trainer.loop import Job, Record

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def unbroken(
    tmp_path_factory: pytest.TempPathFactory, base: Path, rows: list[Row], cpu: object
) -> tuple[dict[int, bytes], Record, list[Record]]:
    """What eight steps without any interruption make: the published weights, the meters, the
    steps.
    """
    published: dict[int, bytes] = {}
    seen: list[Record] = []
    meters = loop.train(
        Job(
            recipe=short_recipe(),
            base=base,
            rows=rows,
            device=cpu,
            work=tmp_path_factory.mktemp("unbroken"),
            on_step=seen.append,
            stopped=lambda: False,
            publish=lambda step, folder, _: published.__setitem__(
                step, (folder / WEIGHTS).read_bytes()
            ),
        )
    )
    assert meters is not None
    return published, meters, seen


def test_the_loss_falls_and_the_meters_say_what_happened(
    unbroken: tuple[dict[int, bytes], Record, list[Record]],
) -> None:
    published, meters, seen = unbroken
    assert list(published) == [4, 8]
    assert [record["step"] for record in seen] == list(range(1, 9))
    assert meters["steps"] == 8
    assert meters["loss_first"] == seen[0]["loss"]
    assert meters["loss_last"] == seen[-1]["loss"] < meters["loss_first"]
    assert meters["tokens"] == seen[-1]["tokens"]
    assert meters["tokens_per_second"] == pytest.approx(
        meters["tokens"] / meters["seconds"], rel=0.01
    )
    assert meters["peak_memory_bytes"] > 50 << 20
    # rank 4 on two layers of 256: q k v o take 4 (256 + 256), gate and up 4 (256 + 512), down 4
    # (512 + 256)
    assert meters["trainable_parameters"] == 2 * 4 * (4 * 512 + 3 * 768)


def test_stopped_and_resumed_is_the_same_to_the_byte(
    tmp_path: Path,
    make_job: Callable[..., Job],
    unbroken: tuple[dict[int, bytes], Record, list[Record]],
) -> None:
    published: dict[int, bytes] = {}
    assert loop.train(make_job(tmp_path, stop_after=2, published=published)) is None
    assert [point.name for point in (tmp_path / "save-points").iterdir()] == ["step-3"]
    seen: list[Record] = []
    meters = loop.train(make_job(tmp_path, seen=seen, published=published))
    assert [record["step"] for record in seen] == [4, 5, 6, 7, 8]
    assert published == unbroken[0]
    assert meters is not None
    for unchanged in ("tokens", "loss_first", "loss_last", "steps", "flops"):
        assert meters[unchanged] == unbroken[1][unchanged]


def test_killed_and_resumed_is_the_same_to_the_byte(
    tmp_path: Path,
    base: Path,
    tiny: Path,
    rows: list[Row],
    unbroken: tuple[dict[int, bytes], Record, list[Record]],
) -> None:
    """SIGKILL in mid-training, in a process of its own as the worker runs it, then once more to the
    end.
    """
    data = inputs.tiny_dataset(tiny)
    job = json.dumps(
        {
            "kind": "training",
            "run": "a-run",
            "recipe": short_recipe().as_dict(),
            "adapter": "acme/letters",
            "base": {
                "ref": "acme/tiny@v1",
                "folder": str(base),
                "repository": "acme/tiny.v1",
                "commit": "c" * 40,
            },
            "dataset": {
                "ref": "acme/letters@v1",
                "file": str(data),
                "root": Frontier(row.leaf for row in rows).text(),
                "sha256": hashlib.sha256(data.read_bytes()).hexdigest(),
            },
        }
    )
    alike = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    for attempt in range(
        20
    ):  # on a busy machine it may be through before it is hit: then once more
        work = tmp_path / str(attempt)
        work.mkdir()
        (work / "job.json").write_text(job)
        command = [sys.executable, "-m", "trainer.job", str(work)]
        first = subprocess.Popen(command, stderr=subprocess.PIPE, env=alike)
        progress = work / "progress.jsonl"
        while first.poll() is None and not (
            progress.exists() and '"step": 5' in progress.read_text()
        ):
            time.sleep(0.01)
        first.kill()
        _, said = first.communicate()
        assert first.returncode in (0, -signal.SIGKILL), said.decode()
        if not (work / "outcome.json").exists():
            break
    assert not (work / "outcome.json").exists()
    subprocess.run(command, check=True, capture_output=True, timeout=900, env=alike)
    outcome = json.loads((work / "outcome.json").read_text())
    assert outcome["meters"]["loss_last"] == unbroken[1]["loss_last"]
    for step, weights in unbroken[0].items():
        assert (work / "published" / f"step-{step}" / WEIGHTS).read_bytes() == weights


def test_killed_after_the_last_save_only_publishes(
    tmp_path: Path,
    make_job: Callable[..., Job],
    unbroken: tuple[dict[int, bytes], Record, list[Record]],
) -> None:
    assert loop.train(make_job(tmp_path)) is not None
    published: dict[int, bytes] = {}
    seen: list[Record] = []
    meters = loop.train(make_job(tmp_path, seen=seen, published=published))
    assert seen == []
    assert published == {8: unbroken[0][8]}
    assert meters is not None
    assert meters["tokens"] == unbroken[1]["tokens"]


def test_a_torn_save_point_is_not_resumed_from(
    tmp_path: Path, make_job: Callable[..., Job]
) -> None:
    assert loop.train(make_job(tmp_path, stop_after=1)) is None
    torn = tmp_path / "save-points" / "checkpoint-4"
    torn.mkdir()
    (torn / "trainer_state.json").write_text("{")
    seen: list[Record] = []
    assert loop.train(make_job(tmp_path, seen=seen)) is not None
    assert seen[0]["step"] == 3


def test_another_seed_makes_other_weights(
    tmp_path: Path,
    make_job: Callable[..., Job],
    unbroken: tuple[dict[int, bytes], Record, list[Record]],
) -> None:
    published: dict[int, bytes] = {}
    loop.train(make_job(tmp_path, short_recipe(seed=8), published=published))
    assert published[8] != unbroken[0][8]


def test_only_the_layers_asked_for_are_adapted(
    tmp_path: Path, make_job: Callable[..., Job]
) -> None:
    from safetensors import safe_open

    loop.train(
        make_job(tmp_path, short_recipe(layers=[1, 1], targets=["q_proj"], steps=1, publish_at=[1]))
    )
    with safe_open(tmp_path / "save-points" / "step-1" / WEIGHTS, "pt") as weights:
        # It is no dict.
        assert {name.split(".lora_")[0] for name in weights.keys()} == {  # noqa: SIM118
            "base_model.model.model.layers.1.self_attn.q_proj"
        }


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"layers": [1, 2]}, "layers-beyond-base"),
        ({"targets": ["c_attn"]}, "targets-missing"),
        ({"max_length": 8}, "row-too-long"),
    ],
)
def test_what_the_base_or_the_rows_do_not_allow_is_named(
    tmp_path: Path, make_job: Callable[..., Job], changes: dict[str, object], kind: str
) -> None:
    with pytest.raises(Invalid) as refusal:
        loop.train(make_job(tmp_path, short_recipe(**changes)))
    assert refusal.value.kind == kind


def test_a_loss_that_is_no_number_ends_the_training(
    tmp_path: Path, make_job: Callable[..., Job], base: Path
) -> None:
    """A base with a broken weight stands for every way to diverge: the loss of the first step is
    already none.
    """
    import shutil
    from dataclasses import replace

    from safetensors.torch import load_file, save_file

    broken = shutil.copytree(base, tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"][0] = float("nan")
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    with pytest.raises(Refused) as refusal:
        loop.train(replace(make_job(tmp_path), base=broken))
    assert refusal.value.kind == "training-diverged"
