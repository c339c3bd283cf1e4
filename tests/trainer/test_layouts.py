"""What training tools leave behind is registered as it is, or refused with a way out that works.

Every command of a refusal is run as it is printed, and what was refused is then accepted.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from registry.client import Countersign, NewVersion
from registry.views.versions import VersionView
from tests.build import ADAPTER_META, BASE_META
from tests.cli.conftest import Result, Run, cli
from tests.trainer import layouts
from tests.trainer.live import Live

__all__ = ["cli"]

WEIGHTS = {"adapter_model.safetensors", "adapter_config.json", "README.md"}
TOKENIZER = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
RESUMED = {
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    "trainer_state.json",
    "training_args.bin",
}
Layout = Callable[[Path, Path], Path]


class Engineer:
    """Someone at a terminal who imports folders for one base, and does what they are told."""

    def __init__(self, live: Live, client: Countersign, base: Path, folder: Path) -> None:
        self.client = client
        self.base = client.add("base", base, NewVersion("acme/qwen", meta=BASE_META)).ref
        self.environment = {
            "COUNTERSIGN_URL": live.url,
            "COUNTERSIGN_TOKEN": live.engineer,
            "COUNTERSIGN_CONFIG_DIR": str(folder / "config"),
        }
        self.meta = folder / "meta.yaml"
        self.meta.write_text(yaml.safe_dump({"licence": "apache-2.0", **ADAPTER_META}))
        self.run: Run

    def bring(self, folder: Path, name: str, *more: str) -> Result:
        return self.type(f"adapter import {shlex.quote(str(folder))}", name, *more)

    def type(self, command: str, name: str, *more: str) -> Result:
        """Type a command as it stands, with the options that said what it is for."""
        described = ("--name", name, "--base", self.base, "--domain", "legal", "--meta", self.meta)
        return self.run(*shlex.split(command), *described, *more)

    def follow(self, refused: Result, name: str) -> VersionView:
        """Type the command that a refusal printed, and give the version that it registered."""
        [command] = commands(refused)
        return self.kept(self.type(command.removeprefix("countersign "), name), name)

    def leave_out(self, refused: Result, folder: Path, name: str) -> VersionView:
        """Import a folder again, as a refusal said, and give the version that it registered."""
        [options] = re.findall(r"import it again with (--leave-out .+)$", refused.err, re.MULTILINE)
        return self.kept(self.bring(folder, name, *shlex.split(options)), name)

    def kept(self, result: Result, name: str) -> VersionView:
        """The version that a command registered."""
        assert result.code == 0, result.err
        return self.client.version(f"{name}@v1")


@pytest.fixture(scope="module")
def hired(live: Live, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engineer]:
    folder = tmp_path_factory.mktemp("layouts")
    with Countersign(live.url, live.engineer) as client:
        yield Engineer(live, client, layouts.write_base(folder / "base"), folder)


@pytest.fixture
def engineer(hired: Engineer, cli: Run, monkeypatch: pytest.MonkeyPatch) -> Engineer:
    for name, value in hired.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NO_COLOR", "1")
    hired.run = cli
    return hired


@pytest.fixture(scope="module")
def base(hired: Engineer) -> Path:
    return hired.meta.parent / "base"


def commands(refused: Result) -> list[str]:
    """The commands that a refusal prints, each to the end of its line."""
    assert refused.code in (2, 3), refused.err
    return re.findall(r"(?:countersign|python -c) .+$", refused.err, re.MULTILINE)


def files(version: VersionView) -> set[str]:
    return {file.path for file in version.files}


def others(folder: Path, version: VersionView) -> set[str]:
    """What of a folder did not become part of a version."""
    return {path.name for path in folder.iterdir()} - files(version)


def check_whole(folder: Path, version: VersionView) -> None:
    """Everything else of the folder is named, and nothing of it is missed."""
    assert version.state == "registered"
    assert version.risks == []
    assert {entry.path for entry in version.left_out} == others(folder, version)
    assert version.effect is not None
    assert (version.effect.parts > 0, version.effect.idle) == (True, 0)


@pytest.mark.parametrize(
    ("layout", "kept", "left"),
    [
        (layouts.peft_alone, WEIGHTS, set()),
        (
            layouts.llama_factory,
            WEIGHTS | TOKENIZER,
            {"checkpoint-2", "all_results.json", "trainer_log.jsonl", "training_loss.png"},
        ),
        (layouts.trainer, WEIGHTS | TOKENIZER, RESUMED),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_folder_is_taken_as_it_is(
    layout: Layout, kept: set[str], left: set[str], engineer: Engineer, base: Path, tmp_path: Path
) -> None:
    folder, name = layout(base, tmp_path / "out"), f"acme/{layout.__name__.replace('_', '-')}"
    version = engineer.kept(engineer.bring(folder, name), name)
    check_whole(folder, version)
    assert files(version) == kept
    assert left <= others(folder, version)


def test_of_trl_both_the_root_and_a_save_point_are_taken(
    engineer: Engineer, base: Path, tmp_path: Path
) -> None:
    root = layouts.trl(base, tmp_path / "out")
    for folder, name in ((root, "acme/trl"), (root / "checkpoint-1", "acme/trl-earlier")):
        version = engineer.kept(engineer.bring(folder, name), name)
        check_whole(folder, version)
        assert files(version) == WEIGHTS | TOKENIZER
    assert {entry.name for entry in root.iterdir()} >= {"checkpoint-1", "training_args.bin"}


def test_a_template_of_llama_factory_is_not_taken_for_the_bases(
    engineer: Engineer, base: Path, tmp_path: Path
) -> None:
    folder = layouts.llama_factory_own_template(base, tmp_path / "out")
    refused = engineer.bring(folder, "acme/templated")
    assert "chat-template-refused" in refused.err
    assert "Remove it, so that the base's is used" in refused.err
    (folder / "chat_template.jinja").unlink()
    version = engineer.kept(engineer.bring(folder, "acme/templated"), "acme/templated")
    check_whole(folder, version)


def test_a_reward_model_goes_without_its_head_only_as_a_declared_risk(
    engineer: Engineer, base: Path, tmp_path: Path
) -> None:
    folder = layouts.llama_factory_reward(base, tmp_path / "out")
    refused = engineer.bring(folder, "acme/reward")
    assert "companion-weights" in refused.err
    version = engineer.leave_out(refused, folder, "acme/reward")
    assert [risk for risk in version.risks if "value_head.safetensors" in risk]
    assert others(folder, version) == {entry.path for entry in version.left_out}
    assert {"vocab.json", "merges.txt", "added_tokens.json"} <= files(version)


def test_of_a_root_without_its_adapter_the_last_save_point_is_named(
    engineer: Engineer, base: Path, tmp_path: Path
) -> None:
    root = layouts.axolotl(base, tmp_path / "outputs of Axolotl")
    refused = engineer.bring(root, "acme/axolotl")
    assert "checkpoint-1195, checkpoint-2390" in refused.err
    version = engineer.follow(refused, "acme/axolotl")
    check_whole(root / "checkpoint-2390", version)
    assert files(version) == WEIGHTS | TOKENIZER
    assert version.meta["source"] == "folder:checkpoint-2390"


def test_a_merge_beside_the_adapter_is_a_checkpoint_of_its_own(
    engineer: Engineer, base: Path, tmp_path: Path
) -> None:
    root = layouts.axolotl_merged(base, tmp_path / "out")
    version = engineer.kept(engineer.bring(root, "acme/finished"), "acme/finished")
    check_whole(root, version)
    assert {"merged", "checkpoint-2390", "config.json"} == others(root, version)
    refused = engineer.type(f"checkpoint import {root}", "acme/merged")
    merged = engineer.follow(refused, "acme/merged")
    assert (merged.state, merged.meta["source"]) == ("registered", "folder:merged")
    assert merged.risks == []


def test_the_regular_expression_of_unsloth_becomes_names(
    engineer: Engineer, base: Path, tmp_path: Path
) -> None:
    folder = layouts.unsloth(base, tmp_path / "lora_model")
    refused = engineer.bring(folder, "acme/unsloth")
    assert "regular expression" in refused.err
    assert "tokenizer" not in refused.err
    [command] = commands(refused)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environ = {**os.environ, "PATH": path}
    subprocess.run(command, shell=True, cwd=folder, env=environ, check=True, timeout=60)
    version = engineer.kept(engineer.bring(folder, "acme/unsloth"), "acme/unsloth")
    check_whole(folder, version)
    assert files(version) == WEIGHTS | TOKENIZER
    assert version.meta["claimed"]["base_model_name_or_path"].startswith("unsloth/")


def test_a_token_that_only_pads_stays_behind(
    engineer: Engineer, base: Path, tmp_path: Path
) -> None:
    folder = layouts.unsloth_new_padding(base, tmp_path / "lora_model")
    refused = engineer.bring(folder, "acme/padded")
    assert "tokens-added" in refused.err
    options = re.findall(r"import (--leave-out) (\S+)\)", refused.err)
    assert {name for _, name in options} == {"tokenizer.json", "tokenizer_config.json"}
    brought = engineer.bring(folder, "acme/padded", *(word for pair in options for word in pair))
    version = engineer.kept(brought, "acme/padded")
    check_whole(folder, version)
    assert files(version) == WEIGHTS | {"chat_template.jinja"}


@pytest.mark.parametrize("inside", ["", "v0-20261130-080000"])
def test_of_a_run_of_ms_swift_its_save_point_is_named(
    inside: str, engineer: Engineer, base: Path, tmp_path: Path
) -> None:
    folder = layouts.ms_swift(base, tmp_path / "output") / inside
    name = f"acme/swift{len(inside)}"
    version = engineer.follow(engineer.bring(folder, name), name)
    point = next((tmp_path / "output").glob("*/checkpoint-10"))
    check_whole(point, version)
    assert files(version) == WEIGHTS
    assert RESUMED | {"args.json", "additional_config.json"} == others(point, version)
