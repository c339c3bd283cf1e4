"""The main job, walked by hand once: people at the command line, a trainer over the client, a real
registry.

One story on purpose: each step stands on those before it, as in life. It asks every documented
route of the REST door but those of EXTRA, which have tests of their own.
"""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from registry import verifier
from registry.client import Countersign
from tests.build import ADAPTER_META, BASE_META, DATA_META, RECIPE, dataset_bytes
from tests.cli.conftest import Run
from tests.cli.desk import Desk, Trainer, write_adapter, write_base
from tests.cli.live import Live, live

RIGHT = {"base": 5, "adapter": 50}  # items of 60 answered right
EXTRA = {
    "POST /policies",
    "POST /deprecations",
    "POST /checkpoints",
    "DELETE /tokens/{token_id}",
    "POST /training-runs/{run}/cancel",
    "POST /work/{run}/requeue",
    "POST /work/{run}/fail",
    "POST /reviews/{number}/withdraw",
    "POST /profiles",
    "GET /profiles",
    "GET /profiles/{name}",
    "GET /engines/{ref}",
    "GET /versions",
    "PUT /versions/{ref}/tags/{key}",
    "DELETE /versions/{ref}/tags/{key}",
    "GET /retention/due",
    "GET /retention/classes",
    "POST /retention/classes",
    "POST /retention/settings",
    "GET /keeping/{ref}",
    "GET /holds",
    "POST /holds",
    "POST /holds/{number}/lift",
    "POST /deletions",
    "POST /discards",
    "GET /collections",
    "POST /collections",
    "GET /quotas",
    "POST /quotas",
    "GET /quotas/{team}",
    "GET /profiles/{name}/system-prompt",
    "GET /profiles/{name}/compared-with/{other}",
    "GET /chat-templates/{ref}",
    "HEAD /uploads/{digest}",
    "PATCH /uploads/{digest}",
    "DELETE /uploads/{digest}",
}


def test_the_main_job(
    fresh_database: str,
    cli: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
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
            ("gate", "gateway", "acme"),
            ("root", "admin", None),
        ]:
            desk.hire(name, role, team)
        first, second = _make(desk, registry, tmp_path)
        _decide(desk, second)
        _deliver(desk, registry, first, second)
        _account_for(desk, registry, tmp_path, capsys)
        _withdraw_the_data(desk, second)
        _ask_the_rest(desk, registry)
        monkeypatch.setenv("COUNTERSIGN_DATABASE_URL", fresh_database)
        examined = desk.ask("otto", "doctor", "--home", registry.home)
        assert examined["ok"] is True
        assert examined["rows"]["vote"] == 2
        assert "✓ valid" in desk.run("otto", "doctor", "--home", registry.home).out
        assert desk.ask("otto", "migrate")["revision"]
        _every_route_was_asked(registry)


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

    trainer = Trainer(registry, desk.tokens["gpu"], tmp_path)
    assert trainer.client.lease("gpu-1") is None
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
    assert own.problem()["kind"] == "self-approval"
    for name, state in (("cora", "open"), ("rick", "approved")):
        desk.ask(name, "key", "enroll", "--label", "laptop")
        voted = desk.ask(name, "review", "approve", number, "--reason", "evidence read")
        assert voted["state"] == state
    assert desk.run("otto", "review", "show", number).out.count("evidence read") == 2


def _deliver(desk: Desk, registry: Live, first: str, second: str) -> None:
    """Canary, promote, roll back, promote again, recall the save point, as a gateway sees it."""
    where = ("acme/claims", "--env", "production")
    gateway = Countersign(registry.url, desk.tokens["gate"])
    contract = {"channel", "generation", "stable", "candidate", "weight_bp"}
    route = desk.ask("ada", "canary", "start", second, "--env", "production", "--share", "5")
    assert route.keys() >= contract
    base = route["stable"]
    assert base == "acme/tiny@v1"
    assert (route["generation"], route["candidate"], route["weight_bp"]) == (1, second, 500)
    assert [one["candidate"] for one in desk.ask("ada", "canary", "status")] == [second]
    routing = gateway.routing("production")
    assert routing is not None
    assert gateway.routing("production", routing.etag) is None
    route = desk.ask("ada", "promote", *where)
    assert (route["generation"], route["stable"], route["candidate"]) == (2, second, None)
    changed = gateway.routing("production", routing.etag)
    assert changed is not None
    assert changed.etag != routing.etag
    back = desk.ask("ada", "rollback", *where, "--reason", "a complaint")
    assert back.keys() >= contract
    assert (back["generation"], back["stable"]) == (3, base)
    again = desk.run("ada", "rollback", *where, "--reason", "again", "--json")
    assert (again.code, again.problem()["kind"]) == (3, "nothing-to-roll-back")
    route = desk.ask("ada", "promote", *where, "--reason", "a false alarm")
    assert (route["generation"], route["stable"]) == (4, second)
    recalled = desk.ask("cora", "recall", first, "--reason", "trained half-way")
    assert (recalled["recalled"], recalled["channels"]) == ([first], [])
    history = desk.ask("otto", "history", *where)
    assert all(
        entry.keys() >= {"generation", "version", "from", "to", "actor", "reason"}
        for entry in history
    )
    assert sorted(entry["generation"] for entry in history) == [1, 2, 3, 4]
    served = next(entry for entry in history if entry["version"] == second)
    (then,) = desk.ask("otto", "audit", "as-of", served["from"], "--env", "production")
    assert (then["version"], len(then["approved_by"])) == (second, 2)
    (now,) = desk.ask("otto", "status", "acme/claims")
    assert (now["generation"], now["stable"]) == (4, second)
    gateway.close()


def _prove(desk: Desk, registry: Live, tmp_path: Path) -> None:
    """Keep a tree head, and later prove from it that the log only grew."""
    head, key = tmp_path / "head.note", ("--key", registry.home / "log.pub")
    note = desk.run("otto", "audit", "tree-head").out
    assert note.startswith("countersign.local/")
    head.write_text(note)
    (event,) = desk.ask("otto", "audit", "log", "--limit", 1)
    entry = ("audit", "proof", "entry", event["seq"], *key)
    assert desk.ask("otto", *entry, "--leaf", event["leaf"])["leaf"] == event["leaf"]
    wrong = desk.run("otto", *entry, "--leaf", "sha256:" + "0" * 64)
    assert wrong.code == 8
    assert "does not show entry" in wrong.err
    assert desk.run("otto", "audit", "proof", "entry", 10**6, *key).code == 2
    assert desk.run("otto", "recall", "acme/claims@v2", "--reason", "curious").code == 4
    registry.sequence()
    grown = desk.ask("otto", "audit", "proof", "growth", head, *key)
    assert grown["size"] > grown["old_size"] == int(note.split("\n")[1])
    (tmp_path / "other.pub").write_text("nothing")
    unknown = desk.run("otto", "audit", "proof", "growth", head, "--key", tmp_path / "other.pub")
    assert (unknown.code, "trusted" in unknown.err) == (8, True)


def _account_for(
    desk: Desk, registry: Live, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ask what an auditor asks; the auditor changes nothing."""
    registry.sequence()
    assert desk.ask("otto", "audit", "verify")["ok"] is True
    acts = {event["action"] for event in desk.ask("otto", "audit", "log", "--limit", 500)}
    assert {"review:vote", "rollout:promote", "channel:roll-back", "version:recall"} <= acts
    _prove(desk, registry, tmp_path)
    pack, key = tmp_path / "pack.zip", tmp_path / "log.pub"
    desk.ask("otto", "audit", "export", "--out", pack)
    assert zipfile.ZipFile(pack).testzip() is None
    key.write_text(registry.log_key + "\n")
    capsys.readouterr()
    assert verifier.main([str(pack), "--key", str(key), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["size"] > 20
    assert {
        edge["relation"] for edge in desk.ask("otto", "lineage", "acme/claims@v2")["edges"]
    } >= {"adapts"}
    assert desk.run("otto", "recall", "acme/claims@v2", "--reason", "curious").code == 4
    assert desk.run("otto", "adapter", "show", "acme/claims@v9").code == 5
    commands = """base ls; adapter ls; adapter ls acme/claims; adapter show acme/claims@v2;
        dataset ls; usecase ls; usecase show acme/claims; eval suite ls; eval ls; run ls;
        review ls; status;
        history acme/claims --env production; policy ls; people ls; policy show production;
        key ls; audit log; audit verify; lineage acme/claims@v2; verify acme/claims@v2"""
    for command in commands.split(";"):
        for extra in ([], ["--json"]):
            result = desk.run("otto", *command.split(), *extra)
            assert result.code == 0, (command, result.err)
            assert result.out, command


def _withdraw_the_data(desk: Desk, second: str) -> None:
    """What was tuned on recalled data is recalled with it; its channel goes back to the base."""
    why = ("--reason", "Ada leaves the team.")
    changed = desk.ask("ada", "usecase", "update", "acme/claims", "--owner", "nora", *why)
    assert (changed["version"], changed["suite"], changed["owner"]) == (2, "acme/gold@v1", "nora")
    recalled = desk.ask("ada", "recall", "dataset:acme/rows@v1", "--reason", "consent withdrawn")
    assert recalled["recalled"] == sorted(["dataset:acme/rows@v1", second])
    [moved] = recalled["channels"]
    assert (moved["generation"], moved["stable"]) == (5, "acme/tiny@v1")
    history = desk.ask("otto", "history", "acme/claims", "--env", "production")
    assert sorted(entry["generation"] for entry in history) == [1, 2, 3, 4, 5]


def _ask_the_rest(desk: Desk, registry: Live) -> None:
    """What no verb above asks for: people let in over REST."""
    with httpx.Client(base_url=f"{registry.url}/api/v1") as client:

        def ask(who: str, method: str, path: str, body: Any = None) -> Any:
            headers = {"Authorization": f"Bearer {desk.tokens[who]}"}
            answer = client.request(method, path, headers=headers, json=body)
            assert answer.is_success, answer.text
            return answer.json()

        person = {"name": "nina", "roles": ["engineer"], "team": "acme"}
        assert ask("root", "POST", "/accounts", person)["name"] == "nina"
        token = {"account": "nina", "roles": ["engineer"], "team": "acme", "days": 1}
        desk.tokens["nina"] = ask("root", "POST", "/tokens", token)["token"]
        assert ask("nina", "GET", "/me")["name"] == "nina"
        assert "nina" in {one["name"] for one in ask("root", "GET", "/accounts")}
        assert all(one["token"] is None for one in ask("root", "GET", "/tokens"))


def _every_route_was_asked(registry: Live) -> None:
    documented = httpx.get(f"{registry.url}/api/v1/openapi.json").json()["paths"]
    routes = {(method.upper(), path) for path, methods in documented.items() for method in methods}
    extra = {(method, f"/api/v1{path}") for method, path in (one.split(" ") for one in EXTRA)}
    assert extra <= routes
    missed = set()
    for method, path in routes - extra:
        whole = re.sub(r"\{(?!ref)\w+\}", "[^/]+", path).replace("{ref}", ".+")
        if not any(how == method and re.fullmatch(whole, where) for how, where in registry.asked):
            missed.add(f"{method} {path}")
    assert missed == set()
