"""A newcomer lets go of what he tried out: told why not, then how; the auditor's pack and the
doctor agree in the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from registry import verifier
from tests.build import ADAPTER_META, BASE_META
from tests.cli.conftest import Run
from tests.cli.desk import Desk, write_adapter, write_base
from tests.cli.live import Live, live


@pytest.fixture
def registry(fresh_database: str, tmp_path: Path) -> Iterator[Live]:
    with live(fresh_database, tmp_path / "home") as served:
        yield served


def test_letting_go(
    cli: Run, registry: Live, fresh_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(cli, registry, tmp_path / "desk", monkeypatch)
    for name, role, team in (
        ("nora", "engineer", "legal"),
        ("carla", "reviewer", "compliance"),
        ("ravi", "reviewer", "risk"),
        ("ada", "admin", "it"),
        ("alex", "auditor", "audit"),
    ):
        desk.hire(name, role, team)
    write_base(tmp_path / "base")
    write_adapter(tmp_path / "tried", 1)
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(BASE_META))
    (tmp_path / "adapter.yaml").write_text(yaml.safe_dump(ADAPTER_META))
    desk.ask(
        "nora",
        "base",
        "add",
        tmp_path / "base",
        "--name",
        "legal/tiny",
        "--meta",
        tmp_path / "base.yaml",
    )

    # Kept by the class that holds where nobody said another; the message says until when.
    refused = desk.run("nora", "base", "delete", "legal/tiny@v1", "--reason", "Tidy up.")
    assert refused.code == 3
    assert "kept until" in refused.err

    assert [one["name"] for one in desk.ask("nora", "retention", "ls")][:2] == ["short", "standard"]
    refused = desk.run(
        "nora", "retention", "set", "legal/tried", "--class", "short", "--reason", "A trial."
    )
    assert (refused.code, "administrator" in refused.err) == (3, True)
    assert desk.ask(
        "ada", "retention", "set", "legal/tried", "--class", "short", "--reason", "A trial."
    )["shortened"]
    add = (
        "adapter",
        "add",
        tmp_path / "tried",
        "--name",
        "legal/tried",
        "--base",
        "legal/tiny@v1",
        "--domain",
        "legal",
        "--meta",
        tmp_path / "adapter.yaml",
    )
    assert desk.ask("nora", *add)["ref"] == "legal/tried@v1"

    assert [one["ref"] for one in desk.ask("nora", "retention", "due")] == ["legal/tried@v1"]

    hold = desk.ask(
        "carla", "hold", "place", "legal/tried", "--case", "Matter 5512", "--reason", "An order."
    )
    refused = desk.run("nora", "adapter", "delete", "legal/tried@v1", "--reason", "Tidy up.")
    assert (refused.code, f"Legal hold {hold['number']}" in refused.err) == (3, True)
    assert "Nothing is due." in desk.run("nora", "retention", "due").err
    assert "Matter 5512" in desk.run("alex", "hold", "ls", "--over", "legal/tried@v1").out
    assert desk.run("carla", "hold", "lift", hold["number"], "--reason", "Settled.").code == 3
    assert desk.run("ravi", "hold", "lift", hold["number"], "--reason", "Settled.").code == 0
    assert "No hold is in force." in desk.run("alex", "hold", "ls").err

    gone = desk.run("nora", "adapter", "delete", "legal/tried@v1", "--reason", "Tidy up.")
    assert gone.code == 0
    assert "deleted" in gone.out
    shown = desk.run("nora", "adapter", "show", "legal/tried@v1")
    assert (shown.code, "was deleted" in shown.err) == (5, True)
    pulled = desk.run("nora", "retention", "show", "legal/tried@v1")
    assert "Tidy up." in pulled.out
    tree = desk.run("nora", "lineage", "legal/tried@v1")
    assert (tree.code, "legal/tiny@v1" in tree.out) == (0, True)

    weights = len((tmp_path / "tried" / "adapter_model.safetensors").read_bytes())
    plan = desk.ask("ada", "gc", "--dry-run", "--grace-hours", "0")
    assert (plan["unnamed"], plan["dry_run"]) == (2, True)
    assert plan["bytes"] > weights
    assert desk.run("nora", "gc").code == 4
    done = desk.run("ada", "gc", "--grace-hours", "0")
    assert "Collected" in done.out
    assert desk.ask("ada", "gc", "--dry-run", "--grace-hours", "0")["bytes"] == 0

    # The same files may come back, under a number of their own.
    assert desk.ask("nora", *add)["ref"] == "legal/tried@v2"
    used = desk.ask("ada", "quota", "set", "legal", "--versions", "2", "--reason", "A small disk.")
    assert (used["used_versions"], used["max_versions"]) == (2, 2)
    write_adapter(tmp_path / "more", 2)
    over = desk.run(
        "nora",
        "adapter",
        "add",
        tmp_path / "more",
        "--name",
        "legal/more",
        "--base",
        "legal/tiny@v1",
        "--domain",
        "legal",
        "--meta",
        tmp_path / "adapter.yaml",
    )
    assert (over.code, "3 versions of at most 2" in over.err) == (3, True)
    assert "legal" in desk.run("nora", "quota", "ls").out
    assert desk.run("nora", "quota", "show", "legal").code == 0
    made = desk.ask(
        "ada", "retention", "add", "claims-7y", "--days", "2557", "--reason", "The insurer."
    )
    assert made["keep_days"] == 2557

    registry.sequence()
    pack = tmp_path / "pack.zip"
    assert desk.run("alex", "audit", "export", "--out", pack).code == 0
    assert verifier.main([str(pack), "--key", str(registry.home / "log.pub")]) == 0
    monkeypatch.setenv("COUNTERSIGN_DATABASE_URL", fresh_database)
    checked = cli("doctor", "--home", registry.home, "--json")
    assert checked.code == 0
    assert '"problems": []' in checked.out
