"""`import` through the command line on a real registry: what it registers, lists and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.build import BASE_META
from tests.cli.conftest import Run
from tests.cli.desk import Desk, write_adapter
from tests.cli.live import live
from tests.client.test_imports import COMMIT, snapshot


def test_a_snapshot_and_an_output_folder_become_versions(
    fresh_database: str, cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with live(fresh_database, tmp_path / "home") as registry:
        desk = Desk(cli, registry, tmp_path, monkeypatch)
        desk.hire("ada", "engineer", "acme")
        model = snapshot(tmp_path)
        base = desk.ask("ada", "base", "import", model, "--name", "acme/tiny")
        assert (base["status"], base["source"]) == ("registered", f"huggingface:acme/tiny@{COMMIT}")
        assert base["meta"]["licence"] == "apache-2.0"
        again = desk.ask("ada", "base", "import", model, "--name", "acme/tiny")
        assert (again["status"], again["ref"]) == ("found", base["ref"])

        # A snapshot whose settings name code that transformers has built in.
        config = json.loads((tmp_path / "plain" / "config.json").read_text()) | {
            "auto_map": {"AutoModel": "x.Y"}
        }
        (tmp_path / "plain" / "config.json").write_text(json.dumps(config))
        refused = desk.run(
            "ada", "base", "import", tmp_path / "plain", "--name", "acme/phi", "--json"
        )
        assert refused.code == 3
        assert ["--without-code" in one["fix"] for one in refused.json()["defects"]] == [True]
        taken = desk.ask(
            "ada", "base", "import", tmp_path / "plain", "--name", "acme/phi", "--without-code"
        )
        assert (taken["status"], taken["meta"]["changed"]) == (
            "registered",
            ["config.json: auto_map"],
        )
        assert taken["root"] == base["root"]

        output = tmp_path / "output"
        write_adapter(output, seed=3)
        (output / "training_args.bin").write_bytes(b"\x80\x04.")
        (tmp_path / "meta.yaml").write_text(yaml.safe_dump({"purpose": "to be tested"}))
        shown = desk.run(
            "ada",
            "adapter",
            "import",
            output,
            "--name",
            "acme/claims",
            "--base",
            "acme/tiny@v1",
            "--domain",
            "legal",
            "--meta",
            tmp_path / "meta.yaml",
        )
        assert shown.code == 0, shown.err
        assert "acme/claims@v1" in shown.out
        assert "training_args.bin" in shown.out
        assert "pickled" in shown.out
        version = desk.ask("ada", "adapter", "show", "acme/claims@v1")
        assert version["meta"]["source"] == "folder:output"
        assert version["meta"]["purpose"] == "to be tested"

        # A large file of the cache that is not what the cache says: found while it is sent, nothing
        # is registered.
        weights = model / "snapshots" / COMMIT / "model.safetensors"
        data = weights.read_bytes()
        weights.resolve().write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        broken = desk.run("ada", "base", "import", model, "--name", "acme/broken", "--json")
        assert (broken.code, broken.problem()["kind"]) == (8, "snapshot-damaged")
        assert desk.ask("ada", "base", "ls", "-q", "broken") == []
        assert BASE_META["licence"]

        for arguments, kind, code in (
            (["mlflow:abc"], "no-mlflow", 2),
            (["mlflow:abc", "--mlflow", "http://127.0.0.1:9"], "mlflow-unreachable", 7),
            (["mlflow:abc", "--mlflow", registry.url], "mlflow-run-unknown", 5),
        ):
            refused = desk.run(
                "ada", "adapter", "import", *arguments, "--name", "acme/claims", "--json"
            )
            assert (refused.code, refused.problem()["kind"]) == (code, kind), refused.err
