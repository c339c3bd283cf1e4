"""Each method asks the route of the contract; votes, enrolments and reports carry the signature
they must.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from registry.client import Countersign, NewTrainingRun, NewVersion
from registry.errors import BundleRejected, RegistryError, Unverified
from registry.proof import notes
from registry.proof.keys import SigningKey
from registry.rules.retention import Terms
from tests.client.test_transport import ME
from tests.client.wire import Answer, Seen, Wire, problem

RUN = "00000000-0000-4000-8000-00000000000a"
KEY = SigningKey.generate()
LOG_KEY = notes.verifier_key("acme/log", KEY.public)
HEAD = notes.sign_note(notes.checkpoint_text("acme/log", 5, b"5" * 32), "acme/log", KEY)

# (call, the request it makes): the whole surface, against the table of the contract.
CALLS: list[tuple[str, tuple[Any, ...], str]] = [
    ("me", (), "GET /me"),
    ("create_account", ("ada", ["engineer"], "acme"), "POST /accounts"),
    ("accounts", (), "GET /accounts"),
    ("create_token", ("ada", ["engineer"]), "POST /tokens"),
    ("tokens", (), "GET /tokens"),
    ("revoke_token", ("t1",), "DELETE /tokens/t1"),
    ("keys", (), "GET /keys"),
    ("lines", ("adapter", "claims"), "GET /lines?kind=adapter&q=claims"),
    ("version", ("acme/claims@v3",), "GET /versions/acme/claims@v3"),
    ("versions", ("acme/claims",), "GET /lines/acme/claims/versions"),
    ("datasets", (), "GET /datasets"),
    ("dataset", ("acme/notices@v1",), "GET /datasets/acme/notices@v1"),
    ("verify", ("sha256:0123456789abcdef",), "GET /verify/sha256:0123456789abcdef"),
    ("add_use_case", ("acme/claims",), "POST /use-cases"),
    ("use_case_versions", ("acme/claims",), "GET /use-cases/acme/claims/versions"),
    (
        "update_use_case",
        ("acme/claims", "It measures more."),
        "POST /use-cases/acme/claims/versions",
    ),
    ("use_cases", (), "GET /use-cases"),
    ("freeze_suite", ("acme/gold", "acme/notices@v1", "test"), "POST /eval-suites"),
    ("suites", (), "GET /eval-suites"),
    (
        "train",
        (NewTrainingRun("acme/claims", "acme/tiny@v1", "acme/notices@v1", {"rank": 8}),),
        "POST /training-runs",
    ),
    ("training_run", (RUN,), f"GET /training-runs/{RUN}"),
    ("training_runs", (), "GET /training-runs"),
    ("cancel_training", (RUN,), f"POST /training-runs/{RUN}/cancel"),
    ("evaluate", ("acme/claims@v1", "acme/gold@v1"), "POST /eval-runs"),
    ("eval_run", (RUN,), f"GET /eval-runs/{RUN}"),
    ("eval_runs", ("acme/claims@v1",), "GET /eval-runs?subject=acme%2Fclaims%40v1"),
    ("lease", ("gpu-1",), "POST /work/lease"),
    ("beat", (RUN, 1, {"step": 3}), f"POST /work/{RUN}/beat"),
    ("requeue", (RUN, 1, "going down"), f"POST /work/{RUN}/requeue"),
    ("fail", (RUN, 1, "out of memory"), f"POST /work/{RUN}/fail"),
    (
        "gate",
        ("acme/claims@v1", "dev", "acme/claims"),
        "GET /gates?ref=acme%2Fclaims%40v1&environment=dev&use_case=acme%2Fclaims",
    ),
    ("submit", ("acme/claims@v1", "dev", "acme/claims", "first"), "POST /reviews"),
    ("reviews", ("open",), "GET /reviews?state=open"),
    ("review", (7,), "GET /reviews/7"),
    ("draft", (7,), "GET /reviews/7/decision"),
    ("withdraw", (7, "too early"), "POST /reviews/7/withdraw"),
    ("start_canary", ("acme/claims@v1", "dev", 500), "POST /canaries"),
    ("promote", ("acme/claims", "dev"), "POST /promotions"),
    ("roll_back", ("acme/claims", "dev", "worse"), "POST /rollbacks"),
    ("deprecate", ("acme/claims@v1", "use v2"), "POST /deprecations"),
    ("recall", ("acme/claims@v1", "unfit"), "POST /recalls"),
    ("channels", ("dev",), "GET /channels?environment=dev"),
    ("history", ("acme/claims", "dev"), "GET /history?name=acme%2Fclaims&environment=dev"),
    (
        "as_of",
        ("2026-01-02T03:04:05Z", "dev"),
        "GET /as-of?at=2026-01-02T03%3A04%3A05Z&environment=dev",
    ),
    ("routing", ("dev",), "GET /routing?environment=dev"),
    ("lineage", ("acme/claims@v1",), "GET /lineage/acme/claims@v1"),
    ("events", (), "GET /audit/events"),
    ("tree_head", (), "GET /audit/tree-head"),
    ("prove_entry", (3, LOG_KEY), "GET /log/proof?seq=3"),
    ("prove_growth", (HEAD, LOG_KEY), "GET /log/proof?old_size=5"),
    ("check_log", (), "GET /audit/check"),
    ("policies", (), "GET /policies"),
    ("publish_policy", ("environment: dev",), "POST /policies"),
    ("define_profile", ("acme/claims@v1", {"engine": "vllm"}), "POST /profiles"),
    ("profiles", ("acme/claims@v1",), "GET /profiles?version=acme%2Fclaims%40v1"),
    ("profile", ("p1",), "GET /profiles/p1"),
    ("system_prompt", ("p1",), "GET /profiles/p1/system-prompt"),
    ("compare_profiles", ("p1", "p2"), "GET /profiles/p1/compared-with/p2"),
    ("engines", ("acme/claims@v1",), "GET /engines/acme/claims@v1"),
    ("chat_template", ("acme/claims@v1",), "GET /chat-templates/acme/claims@v1"),
    ("search_page", (), "GET /versions"),
    ("retention_classes", (), "GET /retention/classes"),
    ("define_retention", (Terms("c", 1), "why"), "POST /retention/classes"),
    ("retain", ("acme/claims", "short", "why"), "POST /retention/settings"),
    ("keeping", ("dataset:acme/notices@v1",), "GET /keeping/dataset:acme/notices@v1"),
    ("hold", ("acme/claims", "Matter 1", "why"), "POST /holds"),
    ("lift", (7, "settled"), "POST /holds/7/lift"),
    ("delete", ("acme/claims@v1", "why"), "POST /deletions"),
    ("discard", ("acme/claims@draft-0a1b2c3d", "why"), "POST /discards"),
    ("planned_collection", (0,), "GET /collections?grace_hours=0"),
    ("collect", (), "POST /collections"),
    ("quotas", (), "GET /quotas"),
    ("quota", ("acme",), "GET /quotas/acme"),
    ("set_quota", ("acme", None, 3, "why"), "POST /quotas"),
    ("tag", ("acme/claims@v1", "stage/a", "x"), "PUT /versions/acme/claims@v1/tags/stage/a"),
    ("untag", ("acme/claims@v1", "stage"), "DELETE /versions/acme/claims@v1/tags/stage"),
]


@pytest.mark.parametrize(("name", "args", "request_line"), CALLS, ids=[call[0] for call in CALLS])
def test_each_method_asks_its_route(
    wire: Wire, registry: Countersign, name: str, args: tuple[Any, ...], request_line: str
) -> None:
    wire.script = lambda _: problem(418, "refused")
    with pytest.raises(RegistryError, match="Because of this"):
        getattr(registry, name)(*args)
    method, _, path = request_line.partition(" ")
    assert wire.asked() == [f"{method} /api/v1{path}"]


def test_the_table_above_is_the_whole_surface() -> None:
    tried = {name for name, *_ in CALLS}
    elsewhere = {
        "ready",
        "close",
        "put_file",
        "get_blob",
        "has_blob",
        "add",
        "add_dataset",
        "pull",
        "export",
        "enroll_key",
        "vote",
        "finish",
        "import_bundle",
        "search",
        "holds",
        "due",
    }
    public = {name for name in dir(Countersign) if not name.startswith("_")}
    assert public == tried | elsewhere


def test_nothing_to_lease_is_none_and_a_beat_says_cancelled(
    wire: Wire, registry: Countersign
) -> None:
    wire.script = lambda _: Answer(204, b"")
    assert registry.lease("gpu-1") is None
    wire.script = lambda _: Answer(200, {"cancelled": True})
    assert registry.beat(RUN, 2, {"step": 1}) is True
    assert wire.seen[1].json() == {"attempt": 2, "progress": {"step": 1}}


def test_a_vote_signs_the_completed_decision(wire: Wire, registry: Countersign) -> None:
    draft = Answer(200, {"review": 7, "decision": {"v": 1, "review": 7}})
    wire.script = lambda seen: draft if seen.method == "GET" else problem(409, "conflict")
    signed: list[dict[str, Any]] = []

    def sign(decision: dict[str, Any]) -> tuple[str, str]:
        signed.append(decision)
        return "0123456789abcdef", "c2lnbmF0dXJl"

    with pytest.raises(RegistryError, match="Because of this"):
        registry.vote(7, "request_changes", "Zu früh", sign)
    assert wire.asked() == ["GET /api/v1/reviews/7/decision", "POST /api/v1/reviews/7/votes"]
    body = wire.seen[1].json()
    assert signed == [body["decision"]]
    assert (body["key"], body["signature"], body["reason"]) == (
        "0123456789abcdef",
        "c2lnbmF0dXJl",
        "Zu früh",
    )
    salt = bytes.fromhex(body["salt"])
    assert len(salt) == 16
    commitment = "sha256:" + hashlib.sha256(salt + "Zu früh".encode()).hexdigest()
    assert body["decision"] == {
        "v": 1,
        "review": 7,
        "verdict": "request_changes",
        "reason_commitment": commitment,
    }


def test_an_enrolment_proves_the_key_for_this_account(wire: Wire, registry: Countersign) -> None:
    key = {
        "id": "k",
        "account": "ada",
        "label": "l",
        "public_key": "cHVi",
        "enrolled_at": ME["created_at"],
        "revoked_at": None,
    }
    wire.script = lambda seen: Answer(200, ME if seen.method == "GET" else key)
    signed: list[dict[str, Any]] = []

    def sign(document: dict[str, Any]) -> tuple[str, str]:
        signed.append(document)
        return "k", "cHJvb2Y="

    assert registry.enroll_key("cHVi", "l", sign).account == "ada"
    assert signed == [{"account": ME["id"], "public_key": "cHVi"}]
    assert wire.seen[1].json() == {"public_key": "cHVi", "label": "l", "proof": "cHJvb2Y="}


def test_a_report_goes_with_its_signature(wire: Wire, registry: Countersign) -> None:
    wire.script = lambda _: Answer(200, {})
    registry.finish(RUN, 3, {"run": RUN}, lambda report: ("k", f"signed {report['run']}"))
    assert wire.seen[0].json() == {
        "attempt": 3,
        "report": {"run": RUN},
        "key": "k",
        "signature": f"signed {RUN}",
    }


def test_add_sends_bytes_before_it_registers_them(
    wire: Wire, registry: Countersign, tmp_path: Path
) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")

    def script(seen: Seen) -> Answer:
        if seen.method == "POST":
            return problem(
                422,
                "rejected",
                defects=[
                    {
                        "file": "adapter_config.json",
                        "where": "",
                        "rule": "r",
                        "detail": "d",
                        "fix": "m",
                    }
                ],
            )
        return Answer(404 if seen.method == "HEAD" else 201)

    wire.script = script
    with pytest.raises(BundleRejected):
        registry.add(
            "adapter",
            tmp_path,
            NewVersion("acme/claims", base="acme/tiny@v1", domain="claims", step=4),
        )
    digest = hashlib.sha256(b"{}").hexdigest()
    assert [line.rpartition("/")[2] for line in wire.asked()] == [digest, digest, "adapters"]
    assert wire.seen[2].json() == {
        "name": "acme/claims",
        "files": [{"path": "adapter_config.json", "sha256": digest, "size": 2}],
        "meta": {},
        "base": "acme/tiny@v1",
        "domain": "claims",
        "training_run": None,
        "attempt": None,
        "step": 4,
    }


@pytest.mark.parametrize("path", ["../evil", "/etc/evil", "a/../../evil", "..\\evil"])
def test_pull_writes_only_inside_its_folder(
    wire: Wire, registry: Countersign, tmp_path: Path, path: str
) -> None:
    version = {
        "id": RUN,
        "ref": "acme/claims@v1",
        "line": "acme/claims",
        "kind": "adapter",
        "number": 1,
        "state": "registered",
        "manifest_digest": "sha256:0",
        "tensor_root": None,
        "base_root": None,
        "base": None,
        "base_kind": None,
        "meta": {},
        "facts": {},
        "files": [{"path": path, "sha256": "0" * 64, "size": 1}],
        "training_run": None,
        "created_by": "ada",
        "created_at": ME["created_at"],
        "approvals": [],
        "serves": [],
    }
    wire.script = lambda _: Answer(200, version)
    with pytest.raises(Unverified, match="outside its own folder"):
        registry.pull("acme/claims@v1", tmp_path / "dest")
    assert len(wire.seen) == 1


def test_export_is_there_whole_or_not_at_all(
    wire: Wire, registry: Countersign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry.client.transport.PATIENCE", 0)
    wire.script = lambda _: Answer(200, b"PK" * 1000, cut=700)
    with pytest.raises(RegistryError):
        registry.export(tmp_path / "pack.zip")
    assert not list(tmp_path.iterdir())
    wire.script = lambda _: Answer(200, b"PK" * 1000)
    assert registry.export(tmp_path / "pack.zip").read_bytes() == b"PK" * 1000
