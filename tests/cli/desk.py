"""People at their terminals and a trainer that plays training: who walks through the command line's
stories.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from registry.client import Countersign, NewVersion
from registry.proof.keys import Context, SigningKey
from tests.build import ADAPTER_META, MODULE, RECIPE, safetensors
from tests.cli.conftest import Result, Run
from tests.cli.live import Live


class Desk:
    """People, each with a token and a configuration folder of their own."""

    def __init__(self, cli: Run, registry: Live, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.cli, self.registry, self.folder, self.patch = cli, registry, folder, patch
        self.tokens: dict[str, str] = {}

    def hire(self, name: str, role: str, team: str | None) -> None:
        for variable in ("COUNTERSIGN_URL", "COUNTERSIGN_TOKEN"):
            self.patch.delenv(variable, raising=False)
        made = self.cli(
            "token",
            "create",
            "--account",
            name,
            "--role",
            role,
            *(("--team", team) if team else ()),
            "--home",
            self.registry.home,
            "--json",
        )
        assert made.code == 0, made.err
        self.tokens[name] = made.json()["token"]

    def run(self, name: str, *arguments: object) -> Result:
        self.patch.setenv("COUNTERSIGN_URL", self.registry.url)
        self.patch.setenv("COUNTERSIGN_TOKEN", self.tokens[name])
        self.patch.setenv("COUNTERSIGN_CONFIG_DIR", str(self.folder / name))
        return self.cli(*arguments)

    def ask(self, name: str, *arguments: object) -> Any:
        result = self.run(name, *arguments, "--json")
        assert result.code == 0, result.err
        return result.json()


class Trainer:
    """What a worker does over REST, with tiny bytes in place of training."""

    def __init__(self, registry: Live, token: str, folder: Path) -> None:
        self.client = Countersign(registry.url, token)
        self.folder = folder
        self.key = SigningKey.generate()
        self.client.enroll_key(self.key.public_text, "gpu", self.sign("enrol"))

    def sign(self, context: Context) -> Any:
        return lambda document: self.key.sign_document(document, context)

    def train(self) -> list[str]:
        work = self.client.lease("gpu-1")
        assert work is not None
        assert work.training is not None
        assert self.client.beat(work.id, work.attempt, {"step": 1, "steps": 4}) is False
        outputs = []
        for step in RECIPE["publish_at"]:
            bundle = self.folder / f"step-{step}"
            write_adapter(bundle, seed=step)
            added = self.client.add(
                "adapter",
                bundle,
                NewVersion(
                    work.training.adapter,
                    base=work.training.base.ref,
                    domain="legal",
                    meta=ADAPTER_META,
                    training_run=work.id,
                    attempt=work.attempt,
                    step=step,
                ),
            )
            outputs.append({"step": step, "ref": added.ref, "manifest_digest": added.digest})
        report = {
            "run": str(work.id),
            "attempt": work.attempt,
            "recipe_digest": work.training.recipe_digest,
            "base_root": work.training.base.root,
            "dataset_root": work.training.dataset.root,
            "outputs": outputs,
            "meters": {"seconds": 1.5, "steps": 4},
            "environment": {"torch": "none"},
            "mlflow": None,
        }
        self.client.finish(work.id, work.attempt, report, self.sign("training-report"))
        return [str(output["ref"]) for output in outputs]

    def evaluate(self, right: int) -> None:
        work = self.client.lease("gpu-1")
        assert work is not None
        task = work.evaluation
        assert task is not None
        fetched = self.client.get_blob(task.items.sha256, self.folder / "items")
        items = [json.loads(line) for line in fetched.read_text().splitlines()]
        samples = self.folder / "samples.jsonl"
        samples.write_text(
            "".join(
                json.dumps(
                    {"item": item["id"], "output": answer(item["prompt"]) if n < right else "wrong"}
                )
                + "\n"
                for n, item in enumerate(items)
            )
        )
        subject = self.client.version(task.subject.ref)
        report = {
            "run": str(work.id),
            "attempt": work.attempt,
            "suite_digest": task.suite_digest,
            "subject_root": subject.tensor_root,
            "base_root": subject.base_root,
            "samples_sha256": self.client.put_file(samples).sha256,
            "metrics": {"exact_match": {"correct": right, "n": len(items)}},
            "meters": {},
            "environment": {},
        }
        self.client.finish(work.id, work.attempt, report, self.sign("eval-report"))


def answer(prompt: str) -> str:
    """What the rows of `tests.build.dataset_bytes` expect; items come without it."""
    return "yes" if int(prompt.split()[-1]) % 2 else "no"


def write_base(folder: Path) -> None:
    folder.mkdir()
    tensors: dict[str, tuple[int, ...]] = {f"{MODULE}.weight": (8, 8), "model.norm.weight": (8,)}
    (folder / "model.safetensors").write_bytes(safetensors(tensors))
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 8}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text('{"version":"1.0","model":{}}')


def write_adapter(folder: Path, seed: int, width: int = 8) -> None:
    folder.mkdir()
    tensors: dict[str, tuple[int, ...]] = {
        f"base_model.model.{MODULE}.lora_A.weight": (2, width),
        f"base_model.model.{MODULE}.lora_B.weight": (width, 2),
    }
    (folder / "adapter_model.safetensors").write_bytes(safetensors(tensors, seed))
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": 2,
        "lora_alpha": 4,
        "target_modules": ["q_proj"],
        "bias": "none",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
