"""`deprecate` at a terminal: for an adapter, its base and a data set; then training under a name
that is a version's.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from registry import verifier
from tests.build import ADAPTER_META, BASE_META, DATA_META, RECIPE, dataset_bytes
from tests.cli.conftest import Run
from tests.cli.live import Live, live
from tests.cli.test_main_job import Desk, write_adapter, write_base


@pytest.fixture
def registry(fresh_database: str, tmp_path: Path) -> Iterator[Live]:
    with live(fresh_database, tmp_path / "home") as served:
        yield served


def test_what_should_not_be_newly_used(
    cli: Run, registry: Live, fresh_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(cli, registry, tmp_path / "desk", monkeypatch)
    desk.hire("nora", "engineer", "legal")
    desk.hire("alex", "auditor", "audit")
    write_base(tmp_path / "tiny")
    write_adapter(tmp_path / "claims", 1)
    (tmp_path / "rows.jsonl").write_bytes(dataset_bytes())
    for name, meta in (("base", BASE_META), ("adapter", ADAPTER_META), ("data", DATA_META)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(meta))
    add = ("--name", "legal/tiny", "--meta", tmp_path / "base.yaml")
    desk.ask("nora", "base", "add", tmp_path / "tiny", *add)
    add = ("--name", "legal/claims", "--base", "legal/tiny@v1", "--domain", "legal")
    desk.ask(
        "nora", "adapter", "add", tmp_path / "claims", *add, "--meta", tmp_path / "adapter.yaml"
    )
    add = ("--name", "legal/notices", "--meta", tmp_path / "data.yaml")
    desk.ask("nora", "dataset", "add", tmp_path / "rows.jsonl", *add)

    reason = ("--reason", "Use the next one.")
    refused = desk.run("alex", "adapter", "deprecate", "legal/claims@v1", *reason)
    assert (refused.code, "needs the role engineer" in refused.err) == (4, True)
    said = desk.run("nora", "adapter", "deprecate", "legal/claims@v1", *reason)
    assert said.code == 0
    assert "Use the next one." in said.out
    again = desk.run("nora", "adapter", "deprecate", "legal/claims@v1", *reason)
    assert (again.code, "is deprecated already" in again.err) == (3, True)
    for kind, name in (("base", "legal/tiny@v1"), ("dataset", "legal/notices@v1")):
        assert desk.ask("nora", kind, "deprecate", name, *reason)["ref"] == name
        assert desk.ask("nora", kind, "show", name)["state"] == "deprecated"
    shown = desk.run("alex", "adapter", "show", "legal/claims@v1")
    assert ("deprecated" in shown.out, "Use the next one." in shown.out) == (True, True)
    found = desk.ask("nora", "search", "--state", "deprecated", "--kind", "adapter")
    assert [hit["ref"] for hit in found] == ["legal/claims@v1"]

    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE))
    train = ("--base", "legal/tiny@v1", "--data", "legal/notices@v1", "--domain", "legal")
    train += ("--meta", tmp_path / "adapter.yaml")
    named = desk.run(
        "nora",
        "train",
        "--adapter",
        "legal/claims.v3",
        *train,
        "--recipe",
        tmp_path / "recipe.yaml",
    )
    assert (named.code, "cannot name a line" in named.err) == (2, True)
    desk.ask("nora", "train", "--adapter", "legal/claims", *train, "--recipe", recipe)

    registry.sequence()
    pack = tmp_path / "pack.zip"
    assert desk.run("alex", "audit", "export", "--out", pack).code == 0
    assert verifier.main([str(pack), "--key", str(registry.home / "log.pub")]) == 0
    monkeypatch.setenv("COUNTERSIGN_DATABASE_URL", fresh_database)
    checked = cli("doctor", "--home", registry.home, "--json")
    assert (checked.code, '"problems": []' in checked.out) == (0, True)
