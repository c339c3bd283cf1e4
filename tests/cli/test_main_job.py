"""The main job through the command line on a real registry: a token and a key a person, only
training is played.

One story on purpose: each step stands on those before it, as in life.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from registry.client import Countersign
from registry.proof.keys import Context, SigningKey
from tests.build import (
    ADAPTER_META,
    BASE_META,
    DATA_META,
    MODULE,
    RECIPE,
    dataset_bytes,
    safetensors,
)
from tests.cli.conftest import Result, Run
from tests.cli.live import Live, live

RIGHT = {"base": 5, "adapter": 50}  # items of 60 answered right


class Desk:
    """People at their terminals: each with a token and a configuration folder of his own."""

    def __init__(self, cli: Run, registry: Live, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.cli, self.registry, self.folder, self.patch = cli, registry, folder, patch
        self.tokens: dict[str, str] = {}

    def hire(self, name: str, role: str, team: str) -> None:
        for variable in ("COUNTERSIGN_URL", "COUNTERSIGN_TOKEN"):
            self.patch.delenv(variable, raising=False)
        made = self.cli(
            "token",
            "create",
            "--account",
            name,
            "--role",
            role,
            "--team",
            team,
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
                work.training.adapter,
                base=work.training.base.ref,
                domain="legal",
                meta=ADAPTER_META,
                training_run=work.id,
                attempt=work.attempt,
                step=step,
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
                    {"item": item["id"], "output": item["expected"] if n < right else "wrong"}
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


@pytest.mark.database
def test_the_main_job(
    fresh_database: str, cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with live(fresh_database, tmp_path / "home") as registry:
        desk = Desk(cli, registry, tmp_path, monkeypatch)
        for name, role, team in [
            ("ada", "engineer", "acme"),
            ("dan", "engineer", "acme"),
            ("gpu", "trainer", "acme"),
            ("cora", "reviewer", "compliance"),
            ("rick", "reviewer", "risk"),
            ("otto", "auditor", "audit"),
        ]:
            desk.hire(name, role, team)
        first, second = _make(desk, registry, tmp_path)
        _decide(desk, second)
        _deliver(desk, registry, first, second)
        _account_for(desk, registry, tmp_path)
        monkeypatch.setenv("COUNTERSIGN_DATABASE_URL", fresh_database)
        examined = desk.ask("otto", "doctor", "--home", registry.home)
        assert examined["ok"] is True
        assert examined["rows"]["vote"] == 2
        assert "✓ valid" in desk.run("otto", "doctor", "--home", registry.home).out
        assert desk.ask("otto", "migrate")["revision"]


def _make(desk: Desk, registry: Live, tmp_path: Path) -> tuple[str, str]:
    """Register, train, evaluate."""
    write_base(tmp_path / "base")
    draft = desk.ask("ada", "base", "add", tmp_path / "base", "--name", "acme/tiny")
    assert draft["status"] == "draft"
    assert {finding["field"] for finding in draft["findings"]} == {"licence", "source"}

    documents = {"base": BASE_META, "data": DATA_META, "recipe": RECIPE, "adapter": ADAPTER_META}
    for name, content in documents.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content))
    base = desk.ask(
        "ada",
        "base",
        "add",
        tmp_path / "base",
        "--name",
        "acme/tiny",
        "--meta",
        tmp_path / "base.yaml",
    )
    assert base.keys() == {"ref", "digest", "root", "status", "findings", "defects"}
    assert (base["ref"], base["status"]) == ("acme/tiny@v1", "registered")
    again = desk.ask(
        "ada",
        "base",
        "add",
        tmp_path / "base",
        "--name",
        "acme/tiny",
        "--meta",
        tmp_path / "base.yaml",
    )
    assert (again["ref"], again["status"]) == ("acme/tiny@v1", "found")
    assert desk.ask("ada", "verify", "acme/tiny@v1")["ok"] is True

    (tmp_path / "rows.jsonl").write_bytes(dataset_bytes())
    data = desk.ask(
        "dan",
        "dataset",
        "add",
        tmp_path / "rows.jsonl",
        "--name",
        "acme/rows",
        "--meta",
        tmp_path / "data.yaml",
    )
    assert desk.ask("otto", "dataset", "show", data["ref"])["splits"] == {"train": 40, "test": 60}
    desk.ask(
        "ada",
        "eval",
        "suite",
        "add",
        "acme/gold",
        "--dataset",
        data["ref"],
        "--split",
        "test",
        "--template",
        "plain",
        "--max-new-tokens",
        4,
    )
    desk.ask(
        "ada",
        "usecase",
        "add",
        "acme/claims",
        "--purpose",
        "Sort claims",
        "--owner",
        "ada",
        "--risk-tier",
        "limited",
        "--suite",
        "acme/gold",
    )
    write_adapter(tmp_path / "misfit", seed=1, width=4)
    refused = desk.run(
        "ada",
        "adapter",
        "add",
        tmp_path / "misfit",
        "--name",
        "acme/claims",
        "--base",
        base["ref"],
        "--domain",
        "legal",
        "--meta",
        tmp_path / "adapter.yaml",
        "--json",
    )
    assert refused.code == 3
    assert refused.json()["status"] == "refused"
    assert len(refused.json()["defects"]) >= 2
    assert all(
        defect.keys() == {"file", "where", "rule", "detail", "fix"}
        for defect in refused.json()["defects"]
    )

    run = desk.ask(
        "ada",
        "train",
        "--adapter",
        "acme/claims",
        "--base",
        base["ref"],
        "--data",
        data["ref"],
        "--recipe",
        tmp_path / "recipe.yaml",
        "--domain",
        "legal",
        "--meta",
        tmp_path / "adapter.yaml",
    )
    assert run["state"] == "queued"
    trainer = Trainer(registry, desk.tokens["gpu"], tmp_path)
    with trainer.client:
        first, second = trainer.train()
        assert desk.ask("ada", "run", "show", run["id"])["state"] == "succeeded"
        for subject, right in ((base["ref"], RIGHT["base"]), (second, RIGHT["adapter"])):
            queued = desk.ask("ada", "eval", "run", subject, "--suite", "acme/gold")
            trainer.evaluate(right)
            shown = desk.ask("ada", "eval", "show", queued["id"])
            assert shown["metrics"][0]["value"] == pytest.approx(right / 60)
        pulled = trainer.client.pull(second, tmp_path / "pulled")
    assert {path.name for path in (tmp_path / "pulled").iterdir()} == {
        file.path for file in pulled.files
    }
    return first, second


def _decide(desk: Desk, second: str) -> None:
    """Submit, be refused as one's own judge, and be approved by two."""
    where = ("--env", "production", "--usecase", "acme/claims")
    assert desk.ask("ada", "gate", "check", second, *where)["outcome"] == "pass"
    early = desk.run(
        "ada", "canary", "start", second, "--env", "production", "--share", "5", "--json"
    )
    assert early.code == 3
    opened = desk.ask("ada", "submit", second, *where, "--note", "first")
    assert opened.keys() >= {"review", "evidence_root"}
    number = opened["review"]
    desk.ask("ada", "key", "enroll", "--label", "laptop")
    own = desk.run("ada", "review", "approve", number, "--reason", "mine is good", "--json")
    assert own.code in (3, 4)
    for name in ("cora", "rick"):
        desk.ask(name, "key", "enroll", "--label", "laptop")
        voted = desk.ask(name, "review", "approve", number, "--reason", "evidence read")
    assert voted["state"] == "approved"
    assert desk.run("otto", "review", "show", number).out.count("evidence read") == 2


def _deliver(desk: Desk, registry: Live, first: str, second: str) -> None:
    """Canary, promote, roll back, promote again, recall the save point."""
    contract = {"channel", "generation", "stable", "candidate", "weight_bp"}
    route = desk.ask("ada", "canary", "start", second, "--env", "production", "--share", "5")
    assert route.keys() >= contract
    assert (route["candidate"], route["weight_bp"]) == (second, 500)
    assert [one["candidate"] for one in desk.ask("ada", "canary", "status")] == [second]
    assert desk.ask("ada", "promote", "acme/claims", "--env", "production")["stable"] == second
    back = desk.ask(
        "ada", "rollback", "acme/claims", "--env", "production", "--reason", "a complaint"
    )
    assert back.keys() >= contract
    assert back["stable"] != second
    recalled = desk.ask("cora", "recall", first, "--reason", "trained half-way")
    assert first in recalled["recalled"]
    assert second not in recalled["recalled"]
    history = desk.ask("otto", "history", "acme/claims", "--env", "production")
    assert all(
        entry.keys() >= {"generation", "version", "from", "to", "actor", "reason"}
        for entry in history
    )
    numbers = sorted(entry["generation"] for entry in history)
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))  # gapless
    served = next(entry for entry in history if entry["version"] == second)
    (then,) = desk.ask("otto", "audit", "as-of", served["from"], "--env", "production")
    assert then["version"] == second
    (now,) = desk.ask("otto", "status", "acme/claims")
    assert now["generation"] == max(entry["generation"] for entry in history)
    with Countersign(registry.url, desk.tokens["otto"]) as client:
        routing = client.routing("production")
        assert routing is not None
        assert client.routing("production", routing.etag) is None


def _account_for(desk: Desk, registry: Live, tmp_path: Path) -> None:
    """Ask what an auditor asks; the auditor changes nothing."""
    registry.sequence()
    assert desk.ask("otto", "audit", "verify")["ok"] is True
    acts = {event["action"] for event in desk.ask("otto", "audit", "log", "--limit", 500)}
    assert {"review:vote", "rollout:promote", "channel:roll-back", "version:recall"} <= acts
    assert desk.run("otto", "audit", "tree-head").out.startswith("countersign.local/")
    desk.ask("otto", "audit", "export", "--out", tmp_path / "pack.zip")
    assert (tmp_path / "pack.zip").read_bytes()[:2] == b"PK"
    assert {
        edge["relation"] for edge in desk.ask("otto", "lineage", "acme/claims@v2")["edges"]
    } >= {"adapts"}
    assert desk.run("otto", "recall", "acme/claims@v2", "--reason", "curious").code == 4
    assert desk.run("otto", "adapter", "show", "acme/claims@v9").code == 5
    commands = """base ls; adapter ls; adapter ls acme/claims; adapter show acme/claims@v2;
        dataset ls; usecase ls; eval suite ls; eval ls; run ls; review ls; status;
        history acme/claims --env production; policy ls; people ls; policy show production;
        key ls; audit log; audit verify; lineage acme/claims@v2; verify acme/claims@v2"""
    for command in commands.split(";"):
        for extra in ([], ["--json"]):
            result = desk.run("otto", *command.split(), *extra)
            assert result.code == 0, (command, result.err)
            assert result.out, command
