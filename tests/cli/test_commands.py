"""What commands make of answers: the shapes and exit codes other programs rely on."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from registry.cli import following
from registry.proof import keys
from tests.cli.conftest import Run
from tests.client.test_transport import ME
from tests.client.wire import Answer, Seen, Wire, problem

UUID = ME["id"]
NOW = "2026-01-02T03:04:05Z"
ROUTE = {
    "channel": "production",
    "environment": "production",
    "generation": 4,
    "stable": "acme/claims@v1",
    "candidate": None,
    "weight_bp": 0,
}
ADDED = {
    "ref": "acme/claims@v1",
    "digest": "sha256:d",
    "root": "sha256:r",
    "status": "registered",
    "findings": [],
    "defects": [],
}
TOKEN: dict[str, Any] = {
    "id": "t1",
    "account": "ada",
    "grants": [],
    "created_at": NOW,
    "expires_at": NOW,
    "revoked_at": None,
    "token": "cs_t1_secret",
}
DEFECT = {
    "file": "adapter_model.safetensors",
    "where": "layer 3",
    "rule": "tensor-fits",
    "detail": "d",
    "fix": "m",
}
EVAL_RUN: dict[str, Any] = {
    "id": UUID,
    "subject": "acme/claims@v1",
    "suite": "acme/gold@v1",
    "state": "queued",
    "attempt": 0,
    "progress": {},
    "metrics": [],
    "samples_sha256": None,
    "error": None,
    "created_at": NOW,
    "finished_at": None,
}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    return folder


def test_add_prints_its_six_fields(wire: Wire, cli: Run, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "meta.yaml").write_text("purpose: Sort claims\n")
    wire.script = lambda seen: Answer(201, ADDED) if seen.method == "POST" else Answer(200)
    result = cli(
        "adapter",
        "add",
        bundle,
        "--name",
        "acme/claims",
        "--base",
        "acme/tiny@v1",
        "--domain",
        "claims",
        "--meta",
        tmp_path / "meta.yaml",
        "--json",
    )
    assert (result.code, result.json()) == (0, ADDED)
    body = wire.seen[-1].json()
    assert (body["base"], body["domain"], body["meta"]) == (
        "acme/tiny@v1",
        "claims",
        {"purpose": "Sort claims"},
    )


def test_a_draft_is_no_failure_and_lists_its_findings(wire: Wire, cli: Run, bundle: Path) -> None:
    draft = {
        **ADDED,
        "status": "draft",
        "findings": [{"field": "licence", "detail": "is missing", "fix": "Say it."}],
    }
    wire.script = lambda seen: Answer(201, draft) if seen.method == "POST" else Answer(200)
    result = cli("base", "add", bundle, "--name", "acme/tiny")
    assert result.code == 0
    assert "○ draft" in result.out
    assert "licence  is missing  Say it." in result.out


@pytest.mark.parametrize("noun", ["base", "adapter", "checkpoint", "dataset"])
def test_a_refused_bundle_is_a_document_and_exit_3(
    wire: Wire, cli: Run, bundle: Path, noun: str
) -> None:
    refusal = problem(422, "rejected", "bundle-rejected", defects=[DEFECT, {**DEFECT, "file": "b"}])
    wire.script = lambda seen: refusal if seen.method == "POST" else Answer(200)
    if noun in ("base", "checkpoint"):
        (bundle / "adapter_config.json").rename(bundle / "config.json")
    what = bundle / "adapter_config.json" if noun == "dataset" else bundle
    result = cli(noun, "add", what, "--name", "acme/claims", "--json")
    assert result.code == 3
    assert result.json() == {
        "ref": None,
        "digest": None,
        "root": None,
        "status": "refused",
        "findings": [],
        # The registry sees a data set's bytes; the person knows the file by its own name.
        "defects": [{**DEFECT, "file": what.name}] * 2
        if noun == "dataset"
        else [DEFECT, {**DEFECT, "file": "b"}],
    }
    assert result.problem()["kind"] == "bundle-rejected"
    people = cli(noun, "add", what, "--name", "acme/claims")
    assert (people.code, people.out) == (3, "")
    file = what.name if noun == "dataset" else "adapter_model.safetensors"
    assert f"{file} layer 3: d (tensor-fits)" in people.err
    assert ("1 more like it: layer 3" in people.err) == (noun == "dataset")


@pytest.mark.parametrize(
    ("share", "basis_points"), [("5", 500), ("0.01", 1), ("12.5%", 1250), ("100", 10000)]
)
def test_a_share_is_sent_in_basis_points(
    wire: Wire, cli: Run, share: str, basis_points: int
) -> None:
    wire.script = lambda _: Answer(201, ROUTE)
    result = cli(
        "canary", "start", "acme/claims@v1", "--env", "production", "--share", share, "--json"
    )
    assert result.code == 0
    assert wire.seen[0].json()["share_bp"] == basis_points
    assert ROUTE.items() <= result.json().items()


@pytest.mark.parametrize("share", ["0", "-5", "100.01", "0.001", "five", "", "nan", "inf", "1e-9"])
def test_what_is_no_share_is_usage_and_never_sent(wire: Wire, cli: Run, share: str) -> None:
    assert (
        cli("canary", "start", "acme/claims@v1", "--env", "production", f"--share={share}").code
        == 2
    )
    assert wire.seen == []


@pytest.mark.parametrize(("verb", "path"), [("promote", "promotions"), ("rollback", "rollbacks")])
def test_moving_a_channel_prints_its_route(wire: Wire, cli: Run, verb: str, path: str) -> None:
    wire.script = lambda _: Answer(200, ROUTE)
    result = cli(
        verb, "acme/claims", "--env", "production", "--channel", "eu", "--reason", "why", "--json"
    )
    assert ROUTE.items() <= result.json().items()
    assert wire.asked() == [f"POST /api/v1/{path}"]
    assert wire.seen[0].json() == {
        "name": "acme/claims",
        "environment": "production",
        "channel": "eu",
        "reason": "why",
    }


def test_history_has_the_names_of_the_contract(wire: Wire, cli: Run) -> None:
    generation = {
        "generation": 1,
        "version": "acme/tiny@v1",
        "candidate": None,
        "weight_bp": 0,
        "kind": "first",
        "valid_from": NOW,
        "valid_to": None,
        "actor": "ada",
        "reason": "start",
    }
    wire.script = lambda _: Answer(200, [generation])
    (entry,) = cli("history", "acme/claims", "--env", "production", "--json").json()
    named = {
        "generation": 1,
        "version": "acme/tiny@v1",
        "from": NOW,
        "to": None,
        "actor": "ada",
        "reason": "start",
    }
    assert named.items() <= entry.items()


@pytest.mark.parametrize(("outcome", "code"), [("pass", 0), ("fail", 3), ("inconclusive", 3)])
def test_no_data_is_never_a_pass(wire: Wire, cli: Run, outcome: str, code: int) -> None:
    rules = [{"rule": "superiority", "outcome": outcome, "detail": "n = 0", "numbers": {}}]
    verdict = {
        "outcome": outcome,
        "policy": "production@v1",
        "policy_digest": "sha256:p",
        "rules": rules,
    }
    wire.script = lambda _: Answer(200, verdict)
    result = cli(
        "gate",
        "check",
        "acme/claims@v1",
        "--env",
        "production",
        "--usecase",
        "acme/claims",
        "--json",
    )
    assert (result.code, result.json()) == (code, verdict)
    if code:
        assert result.problem()["kind"] == f"gate-{outcome}"


@pytest.mark.parametrize(("ok", "code"), [(True, 0), (False, 8)])
def test_what_does_not_verify_is_exit_8(wire: Wire, cli: Run, ok: bool, code: int) -> None:
    problems = [] if ok else ["leaf 3 differs"]
    verified = {
        "ref": "acme/claims@v1",
        "ok": ok,
        "files": 1,
        "bytes": 2,
        "manifest_digest": "d",
        "root": None,
        "problems": problems,
    }
    check = {
        "ok": ok,
        "events": 4,
        "size": 4,
        "root": "r",
        "heads": 1,
        "votes": 0,
        "problems": problems,
    }
    wire.script = lambda seen: Answer(200, check if "audit" in seen.path else verified)
    for command in (
        ["verify", "acme/claims@v1"],
        ["adapter", "verify", "acme/claims@v1"],
        ["audit", "verify"],
    ):
        result = cli(*command, "--json")
        assert (result.code, result.json()["ok"]) == (code, ok)


def test_a_token_makes_its_account_only_if_it_is_missing(wire: Wire, cli: Run) -> None:
    known: list[dict[str, Any]] = []

    def script(seen: Seen) -> Answer:
        if seen.method == "GET":
            return Answer(200, known)
        return Answer(201, TOKEN if seen.path.endswith("/tokens") else {**ME, "grants": []})

    wire.script = script
    arguments = [
        "token",
        "create",
        "--account",
        "ada",
        "--role",
        "engineer",
        "--role",
        "reviewer",
        "--team",
        "acme",
    ]
    assert cli(*arguments, "--json").json()["token"] == "cs_t1_secret"
    assert [line.rpartition("/")[2] for line in wire.asked()] == ["accounts", "accounts", "tokens"]
    assert wire.seen[1].json() == {"name": "ada", "roles": ["engineer", "reviewer"], "team": "acme"}
    wire.seen.clear()
    known.append(
        {**ME, "grants": [{"role": role, "team": "acme"} for role in ("engineer", "reviewer")]}
    )
    result = cli(*arguments)
    assert result.out == "cs_t1_secret\n"
    assert [line.rpartition("/")[2] for line in wire.asked()] == ["accounts", "tokens"]


def test_without_an_address_the_key_file_of_the_home_does(
    wire: Wire, cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COUNTERSIGN_URL")
    monkeypatch.delenv("COUNTERSIGN_TOKEN")
    home = tmp_path / "home"
    arguments = ["token", "create", "--account", "ada", "--role", "engineer", "--home", home]
    assert cli(*arguments).code == 2
    (home / "private").mkdir(parents=True)
    (home / "private" / "admin.token").write_text("admin-token\n")
    stopped = cli(*arguments)
    assert stopped.code == 7
    assert f"countersign up --home {home}" in stopped.err
    (home / "private" / "url").write_text(wire.url + "\n")
    wire.script = lambda seen: Answer(
        200, TOKEN if seen.path.endswith("/tokens") else [] if seen.method == "GET" else ME
    )
    assert cli(*arguments).code == 0
    assert {seen.headers["Authorization"] for seen in wire.seen} == {"Bearer admin-token"}


def test_a_key_is_made_once_kept_private_and_enrolled_with_a_proof(
    wire: Wire, cli: Run, config: Path
) -> None:
    def script(seen: Seen) -> Answer:
        if seen.method == "GET":
            return Answer(200, ME)
        sent = seen.json()
        document = {"account": UUID, "public_key": sent["public_key"]}
        assert keys.verify_document(sent["public_key"], document, "enrol", sent["proof"])
        return Answer(
            201,
            {
                "id": "k",
                "account": "ada",
                "label": sent["label"],
                "public_key": sent["public_key"],
                "enrolled_at": NOW,
                "revoked_at": None,
            },
        )

    wire.script = script
    first, second = (cli("key", "enroll", "--label", "laptop", "--json") for _ in range(2))
    assert first.code == second.code == 0, first.err
    assert first.json()["public_key"] == second.json()["public_key"]
    assert stat.S_IMODE((config / "signing.key").stat().st_mode) == 0o600
    assert str(config / "signing.key") in first.err
    assert "PRIVATE" not in first.out + first.err


@pytest.mark.parametrize(
    ("verb", "verdict"),
    [("approve", "approve"), ("reject", "reject"), ("request-changes", "request_changes")],
)
def test_a_decision_is_signed_with_the_voter_s_key(
    wire: Wire, cli: Run, tmp_path: Path, verb: str, verdict: str
) -> None:
    mine = keys.SigningKey.generate()
    mine.save(tmp_path / "mine.key")
    draft = {"review": 7, "decision": {"v": 1, "review": 7, "version": "acme/claims@v1"}}
    wire.script = lambda seen: (
        Answer(200, draft) if seen.method == "GET" else problem(409, "conflict")
    )
    assert cli("review", verb, 7, "--reason", "read", "--key-file", tmp_path / "mine.key").code == 6
    sent = wire.seen[1].json()
    assert sent["decision"]["verdict"] == verdict
    assert sent["key"] == mine.id
    assert keys.verify_document(mine.public_text, sent["decision"], "decision", sent["signature"])


@pytest.mark.parametrize(("end", "code"), [("succeeded", 0), ("failed", 1), ("cancelled", 1)])
def test_follow_waits_for_the_end(
    wire: Wire, cli: Run, monkeypatch: pytest.MonkeyPatch, end: str, code: int
) -> None:
    monkeypatch.setattr(following, "POLL", 0)
    looks = [
        EVAL_RUN,
        {**EVAL_RUN, "state": "running", "progress": {"phase": "loading"}},
        {**EVAL_RUN, "state": "running", "progress": {"item": 1, "items": 4}},
        {**EVAL_RUN, "state": "running", "progress": {"item": 1, "items": 4}},
        {**EVAL_RUN, "state": end, "error": None if end == "succeeded" else "out of memory"},
    ]
    wire.script = lambda seen: (
        Answer(201, EVAL_RUN) if seen.method == "POST" else Answer(200, looks.pop(0))
    )
    result = cli("eval", "run", "acme/claims@v1", "--suite", "acme/gold@v1", "--follow", "--json")
    assert result.code == code
    lines = [line for line in result.err.splitlines() if "◆ running" in line]
    assert [line.rpartition("  ")[2] for line in lines] == ["phase loading", "1/4"]
    if end == "succeeded":
        assert result.json()["state"] == "succeeded"
    else:
        assert result.problem()["kind"] == f"work-{end}"
        assert "out of memory" in result.problem()["detail"]


def test_a_use_case_takes_options_over_its_file_and_keeps_the_rest(
    wire: Wire, cli: Run, tmp_path: Path
) -> None:
    made = {
        "id": UUID,
        "name": "acme/claims",
        "purpose": "p",
        "version": 1,
        "owner": "ada",
        "risk_tier": "high",
        "suite": "s",
        "details": {},
        "reason": None,
        "changed_by": "ada",
        "created_at": NOW,
    }
    wire.script = lambda _: Answer(201, made)
    (tmp_path / "use.yaml").write_text(
        "purpose: p\nrisk_tier: low\nkpi: 0.9\ndetails: {people: claimants}\n"
    )
    assert (
        cli(
            "usecase", "add", "acme/claims", "--meta", tmp_path / "use.yaml", "--risk-tier", "high"
        ).code
        == 0
    )
    assert wire.seen[0].json() == {
        "name": "acme/claims",
        "purpose": "p",
        "risk_tier": "high",
        "details": {"people": "claimants", "kpi": 0.9},
    }


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("2026-11-22T19:30Z", "2026-11-22T19:30:00+00:00"),
        ("2026-11-22T20:30:00+01:00", "2026-11-22T20:30:00+01:00"),
        ("2026-11-22", "2026-11-22T00:00:00+00:00"),
    ],
)
def test_a_moment_always_has_an_offset(wire: Wire, cli: Run, given: str, sent: str) -> None:
    wire.script = lambda _: Answer(200, [])
    assert cli("audit", "as-of", given, "--env", "production", "--json").json() == []
    assert wire.asked() == [
        "GET "
        f"/api/v1/as-of?at={sent.replace(':', '%3A').replace('+', '%2B')}&environment=production"
    ]
    assert cli("audit", "as-of", "yesterday", "--env", "production").code == 2


def test_submit_prints_review_and_evidence_root(wire: Wire, cli: Run) -> None:
    wire.script = lambda _: Answer(
        201, {"review": 7, "evidence_root": "sha256:e", "verdict": "pass"}
    )
    result = cli(
        "submit",
        "acme/claims@v1",
        "--env",
        "dev",
        "--usecase",
        "acme/claims",
        "--note",
        "first",
        "--json",
    )
    assert {"review": 7, "evidence_root": "sha256:e"}.items() <= result.json().items()


def test_progress_never_touches_stdout(wire: Wire, cli: Run, bundle: Path) -> None:
    wire.script = lambda seen: (
        Answer(201, ADDED)
        if seen.method == "POST"
        else Answer(404 if seen.method == "HEAD" else 201)
    )
    result = cli("checkpoint", "add", bundle, "--name", "acme/claims", "--json")
    assert json.loads(result.out) == ADDED
    assert result.err == ""
    assert f"Sending {bundle}: " in cli("checkpoint", "add", bundle, "--name", "acme/claims").err


def test_show_says_what_is_risky_in_a_version(wire: Wire, cli: Run) -> None:
    nothing = ("tensor_root", "base_root", "base", "base_kind", "training_run")
    version: dict[str, Any] = {
        **dict.fromkeys(nothing),
        "id": UUID,
        "ref": "acme/claims@v1",
        "line": "acme/claims",
        "kind": "adapter",
        "number": 1,
        "state": "registered",
        "manifest_digest": "sha256:d",
        "meta": {},
        "files": [],
        "facts": {},
        "risks": ["high: it replaces the base's whole lm_head"],
        "created_by": "ada",
        "created_at": NOW,
        "approvals": [],
        "serves": [],
    }
    wire.script = lambda seen: Answer(200, version)
    assert version["risks"][0] in cli("adapter", "show", "acme/claims@v1").out
