"""The main job over REST alone, by people and machines with tokens and keys of their own; every
route is asked.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import secrets
import zipfile
from typing import Any

import pytest

from registry import verifier
from registry.proof.keys import SigningKey
from registry.rules.actors import Actor, Grant, Role
from registry.rules.reviews import commitment
from tests.api.conftest import Door
from tests.build import (
    ADAPTER_META,
    BASE_META,
    DATA_META,
    MODULE,
    RECIPE,
    Person,
    dataset_bytes,
    safetensors,
)

EXTRA = {
    "POST /policies",
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


class Cast:
    """People and machines made through the door itself."""

    def __init__(self, door: Door, admin: Person, team: str) -> None:
        self.door, self.admin, self.team = door, admin, team

    def enter(self, role: str, team: str | None = None) -> Person:
        """An account with a role, a token and an enrolled key, all over REST."""
        door, team = self.door, team or self.team
        name = f"{role}-{secrets.token_hex(3)}"
        made = door.done(
            self.admin, "POST", "/accounts", {"name": name, "roles": [role], "team": team}
        )
        assert made["name"] == name
        minted = door.done(
            self.admin,
            "POST",
            "/tokens",
            {"account": name, "roles": [role], "team": team, "days": 1},
        )
        person = Person(
            Actor(made["id"], name, frozenset({Grant(Role(role), team)})), SigningKey.generate()
        )
        assert person.key is not None
        door.tokens[person.id] = minted["token"]
        assert door.done(person, "GET", "/me")["name"] == name
        document = {"account": str(made["id"]), "public_key": person.key.public_text}
        enrolled = door.done(
            person,
            "POST",
            "/keys",
            {
                "public_key": person.key.public_text,
                "label": "laptop",
                "proof": person.key.sign_document(document, "enrol")[1],
            },
        )
        assert enrolled["id"] == person.key.id
        return person


def file(door: Door, person: Person, path: str, data: bytes) -> dict[str, Any]:
    return {"path": path, **door.upload(person, data)}


def sign(person: Person, document: Any, context: Any) -> dict[str, str]:
    assert person.key is not None
    key, signature = person.key.sign_document(document, context)
    return {"key": key, "signature": signature}


def train(door: Door, trainer: Person, run: str, domain: str) -> list[str]:
    """Do a leased training run's work: two small adapters, then the signed report."""
    leased = door.done(trainer, "POST", "/work/lease", {"worker": "gpu-1"})
    assert (leased["id"], leased["attempt"], leased["kind"]) == (run, 1, "training_run")
    assert door.done(
        trainer, "POST", f"/work/{run}/beat", {"attempt": 1, "progress": {"step": 1}}
    ) == {"cancelled": False}
    given = leased["training"]
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": 2,
        "lora_alpha": 4,
        "target_modules": ["q_proj"],
        "bias": "none",
    }
    outputs = []
    for step in given["recipe"]["publish_at"]:
        tensors = safetensors(
            {
                f"base_model.model.{MODULE}.lora_A.weight": (2, 8),
                f"base_model.model.{MODULE}.lora_B.weight": (8, 2),
            },
            seed=int(step),
        )
        added = door.done(
            trainer,
            "POST",
            "/adapters",
            {
                "name": "/".join(given["base"]["ref"].split("/")[:1]) + "/rest",
                "base": given["base"]["ref"],
                "domain": domain,
                "meta": ADAPTER_META,
                "training_run": run,
                "attempt": 1,
                "step": step,
                "files": [
                    file(door, trainer, "adapter_model.safetensors", tensors),
                    file(door, trainer, "adapter_config.json", json.dumps(config).encode()),
                ],
            },
        )
        outputs.append({"step": step, "ref": added["ref"], "manifest_digest": added["digest"]})
    report = {
        "run": run,
        "attempt": 1,
        "recipe_digest": given["recipe_digest"],
        "base_root": given["base"]["root"],
        "dataset_root": given["dataset"]["root"],
        "outputs": outputs,
        "meters": {"seconds": 0.1, "steps": 4},
        "environment": {},
        "mlflow": None,
    }
    door.done(
        trainer,
        "POST",
        f"/work/{run}/finish",
        {"attempt": 1, "report": report, **sign(trainer, report, "training-report")},
    )
    return [one["ref"] for one in outputs]


def evaluate(
    door: Door, engineer: Person, trainer: Person, suite: str, ref: str, right: int
) -> None:
    run = door.done(engineer, "POST", "/eval-runs", {"subject": ref, "suite": suite})["id"]
    leased = door.done(trainer, "POST", "/work/lease", {"worker": "gpu-1"})
    assert leased["id"] == run
    given = leased["evaluation"]
    items = [
        json.loads(line)
        for line in door.ask(
            trainer, "GET", f"/blobs/{given['items']['sha256']}"
        ).content.splitlines()
    ]
    lines = [
        json.dumps({"item": one["id"], "output": one["expected"] if number < right else "wrong"})
        for number, one in enumerate(items)
    ]
    samples = door.upload(trainer, ("\n".join(lines) + "\n").encode())
    about = door.done(engineer, "GET", f"/versions/{ref}")
    report = {
        "run": run,
        "attempt": 1,
        "suite_digest": given["suite_digest"],
        "subject_root": about["tensor_root"],
        "base_root": about["base_root"],
        "samples_sha256": samples["sha256"],
        "meters": {},
        "environment": {},
        "metrics": {"exact_match": {"correct": right, "n": len(items)}},
    }
    door.done(
        trainer,
        "POST",
        f"/work/{run}/finish",
        {"attempt": 1, "report": report, **sign(trainer, report, "eval-report")},
    )
    assert door.done(engineer, "GET", f"/eval-runs/{run}")["state"] == "succeeded"


def vote(door: Door, person: Person, number: int, verdict: str) -> Any:
    decision = door.done(person, "GET", f"/reviews/{number}/decision")["decision"]
    salt, reason = secrets.token_bytes(16), "I have read the evidence."
    decision |= {"verdict": verdict, "reason_commitment": commitment(salt, reason)}
    return door.done(
        person,
        "POST",
        f"/reviews/{number}/votes",
        {
            "decision": decision,
            "reason": reason,
            "salt": salt.hex(),
            **sign(person, decision, "decision"),
        },
    )


def test_the_main_job_over_rest(
    door: Door, admin: Person, team: str, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    door.asked.clear()
    cast = Cast(door, admin, team)
    engineer, owner, trainer = cast.enter("engineer"), cast.enter("engineer"), cast.enter("trainer")
    compliance, risk = cast.enter("reviewer", "compliance"), cast.enter("reviewer", "risk")
    auditor, gateway = cast.enter("auditor"), cast.enter("gateway")
    assert {one["name"] for one in door.done(admin, "GET", "/accounts")} >= {
        engineer.actor.name,
        risk.actor.name,
    }
    assert all(one["token"] is None for one in door.done(admin, "GET", "/tokens"))
    assert {one["id"] for one in door.done(auditor, "GET", "/keys")} >= {
        trainer.key.id if trainer.key else ""
    }
    assert len(door.done(auditor, "GET", "/policies")) == 3

    config = json.dumps(
        {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 8}
    ).encode()
    weights = safetensors({f"{MODULE}.weight": (8, 8), "model.norm.weight": (8,)}, seed=77)
    assert (
        door.ask(engineer, "HEAD", f"/blobs/{hashlib.sha256(weights).hexdigest()}").status_code
        == 404
    )
    bundle = {
        "name": f"{team}/tiny",
        "meta": BASE_META,
        "files": [
            file(door, engineer, "model.safetensors", weights),
            file(door, engineer, "config.json", config),
            file(door, engineer, "tokenizer.json", b'{"version":"1.0","model":{}}'),
        ],
    }
    assert door.ask(engineer, "HEAD", f"/blobs/{hashlib.sha256(weights).hexdigest()}").headers[
        "content-length"
    ] == str(len(weights))
    base = door.done(engineer, "POST", "/bases", bundle)
    assert (base["ref"], base["status"]) == (f"{team}/tiny@v1", "registered")
    assert door.ask(engineer, "POST", "/bases", bundle).status_code == 200
    data = {"name": f"{team}/rows", "file": door.upload(owner, dataset_bytes()), "meta": DATA_META}
    dataset = door.done(owner, "POST", "/datasets", data)
    assert door.ask(owner, "POST", "/datasets", data).status_code == 200
    assert [one["ref"] for one in door.done(owner, "GET", "/datasets")] == [dataset["ref"]]
    assert door.done(owner, "GET", f"/datasets/{dataset['ref']}")["rows"] == 100
    for ref in (base["ref"], dataset["ref"]):
        assert door.done(engineer, "GET", f"/verify/{ref}")["ok"] is True
    assert door.done(engineer, "GET", f"/chat-templates/{base['ref']}")["templates"] == []

    decoding = {"template": "plain", "max_new_tokens": 4}
    suite = door.done(
        engineer,
        "POST",
        "/eval-suites",
        {"name": f"{team}/suite", "dataset": dataset["ref"], "split": "test", "decoding": decoding},
    )
    assert door.done(engineer, "GET", "/eval-suites")[0]["id"] == suite["id"]
    case = {
        "name": f"{team}/case",
        "purpose": "test",
        "owner": "somebody",
        "risk_tier": "limited",
        "suite": f"{team}/suite",
    }
    assert door.done(engineer, "POST", "/use-cases", case)["name"] == f"{team}/case"
    assert [one["name"] for one in door.done(engineer, "GET", "/use-cases")] == [f"{team}/case"]

    assert door.ask(trainer, "POST", "/work/lease", {"worker": "gpu-1"}).status_code == 204
    run = door.done(
        engineer,
        "POST",
        "/training-runs",
        {
            "adapter": f"{team}/rest",
            "base": base["ref"],
            "dataset": dataset["ref"],
            "recipe": RECIPE,
            "domain": "legal",
            "meta": ADAPTER_META,
        },
    )["id"]
    half, ref = train(door, trainer, run, "legal")
    assert door.done(engineer, "GET", f"/training-runs/{run}")["state"] == "succeeded"
    assert [
        one["id"]
        for one in door.done(engineer, "GET", f"/training-runs?adapter={team}/rest&state=succeeded")
    ] == [run]
    evaluate(door, engineer, trainer, f"{team}/suite", base["ref"], 5)
    evaluate(door, engineer, trainer, f"{team}/suite", ref, 50)
    assert len(door.done(engineer, "GET", f"/eval-runs?subject={ref}")) == 1

    asked = {"ref": ref, "environment": "production", "use_case": f"{team}/case"}
    assert door.done(engineer, "GET", "/gates", params=asked)["outcome"] == "pass"
    review = door.done(engineer, "POST", "/reviews", {**asked, "note": "please"})
    assert review["verdict"] == "pass"
    number = review["review"]
    assert door.done(compliance, "GET", "/reviews?state=waiting")["items"][0]["number"] == number
    own = {
        "decision": {"verdict": "approve"},
        "reason": "I made it, it is good.",
        "salt": "00" * 16,
        "key": "x",
        "signature": "x",
    }
    assert door.refused(engineer, "POST", f"/reviews/{number}/votes", own) == (409, "self-approval")
    assert vote(door, compliance, number, "approve")["state"] == "open"
    assert vote(door, risk, number, "approve")["state"] == "approved"
    assert len(door.done(auditor, "GET", f"/reviews/{number}")["votes"]) == 2

    place = {"name": f"{team}/rest", "environment": "production"}
    begun = door.done(
        engineer, "POST", "/canaries", {"ref": ref, "environment": "production", "share_bp": 500}
    )
    assert (begun["stable"], begun["candidate"], begun["weight_bp"]) == (base["ref"], ref, 500)
    routing = door.ask(gateway, "GET", "/routing?environment=production")
    [entry] = routing.json()["entries"]
    assert (entry["generation"], entry["weight_bp"]) == (1, 500)
    unchanged = door.ask(
        gateway,
        "GET",
        "/routing?environment=production",
        headers={"If-None-Match": routing.headers["etag"]},
    )
    assert (unchanged.status_code, unchanged.content, unchanged.headers["etag"]) == (
        304,
        b"",
        routing.headers["etag"],
    )
    assert door.done(engineer, "POST", "/promotions", place)["stable"] == ref
    changed = door.ask(
        gateway,
        "GET",
        "/routing?environment=production",
        headers={"If-None-Match": routing.headers["etag"]},
    )
    assert (changed.status_code, changed.json()["entries"][0]["generation"]) == (200, 2)
    assert (
        door.done(engineer, "POST", "/rollbacks", {**place, "reason": "a complaint"})["stable"]
        == base["ref"]
    )
    assert (
        door.done(engineer, "POST", "/promotions", {**place, "reason": "a false alarm"})["stable"]
        == ref
    )
    recalled = door.done(engineer, "POST", "/recalls", {"ref": half, "reason": "half-trained"})
    assert recalled["recalled"] == [half]
    assert [
        one["stable"] for one in door.done(engineer, "GET", "/channels?environment=production")
    ] == [ref]
    assert len(door.done(auditor, "GET", "/history", params=place)) == 4
    [then] = [
        one
        for one in door.done(
            auditor,
            "GET",
            "/as-of",
            params={"at": "2999-01-01T00:00:00Z", "environment": "production"},
        )
        if one["adapter"] == place["name"]
    ]
    assert (then["version"], len(then["approved_by"])) == (ref, 2)
    assert {one["name"] for one in door.done(engineer, "GET", "/lines")["items"]} == {
        f"{team}/tiny",
        f"{team}/rest",
    }
    assert [one["state"] for one in door.done(engineer, "GET", f"/lines/{team}/rest/versions")] == [
        "registered",
        "recalled",
    ]
    assert door.done(engineer, "GET", f"/lineage/{ref}")["nodes"]

    door.sequence()
    head = door.done(auditor, "GET", "/audit/tree-head")
    proof = door.done(auditor, "GET", "/log/proof", params={"seq": 0})
    assert (proof["size"], proof["note"]) == (head["size"], head["note"])
    assert door.done(auditor, "GET", "/audit/check")["problems"] == []
    events = door.done(
        auditor, "GET", "/audit/events", params={"action": "review:vote", "limit": 3}
    )
    assert [one["outcome"] for one in events["items"]] == ["done", "done", "refused"]
    pack = door.ask(auditor, "GET", "/audit/export")
    assert zipfile.ZipFile(io.BytesIO(pack.content)).testzip() is None
    (tmp_path / "pack.zip").write_bytes(pack.content)
    (tmp_path / "log.pub").write_text(door.app.state.log_key + "\n")
    assert (
        verifier.main([str(tmp_path / "pack.zip"), "--key", str(tmp_path / "log.pub"), "--json"])
        == 0
    )
    assert json.loads(capsys.readouterr().out)["size"] == head["size"]
    every_route_was_asked(door)


def every_route_was_asked(door: Door) -> None:
    """The main job passes every documented route but those named above, which tests of their own
    ask.
    """
    documented = door.client.get("/api/v1/openapi.json").json()["paths"]
    routes = {
        f"{method.upper()} {path.removeprefix('/api/v1')}"
        for path, methods in documented.items()
        for method in methods
    }
    missed = set()
    for route in routes - EXTRA:
        method, path = route.split(" ")
        pattern = re.compile(
            re.sub(r"\{ref\}", ".+", re.sub(r"\{(?!ref)\w+\}", "[^/]+", path)) + r"(\?.*)?"
        )
        if not any(asked == method and pattern.fullmatch(where) for asked, where in door.asked):
            missed.add(route)
    assert missed == set()
    assert routes >= EXTRA


def test_the_routes_beside_the_main_job(door: Door, admin: Person, team: str) -> None:
    cast = Cast(door, admin, team)
    engineer, trainer = cast.enter("engineer"), cast.enter("trainer")
    weights = safetensors({f"{MODULE}.weight": (8, 8), "model.norm.weight": (8,)}, seed=78)
    config = json.dumps(
        {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 8}
    ).encode()
    files = [
        file(door, engineer, "model.safetensors", weights),
        file(door, engineer, "config.json", config),
        file(door, engineer, "tokenizer.json", b'{"version":"1.0","model":{}}'),
    ]
    base = door.done(
        engineer, "POST", "/bases", {"name": f"{team}/tiny", "meta": BASE_META, "files": files}
    )
    tuned = door.done(
        engineer,
        "POST",
        "/checkpoints",
        {"name": f"{team}/tuned", "meta": {**BASE_META, **ADAPTER_META}, "files": files},
    )
    assert tuned["status"] in ("draft", "registered")
    dataset = door.done(
        engineer,
        "POST",
        "/datasets",
        {"name": f"{team}/rows", "file": door.upload(engineer, dataset_bytes()), "meta": DATA_META},
    )
    order = {
        "adapter": f"{team}/rest",
        "base": base["ref"],
        "dataset": dataset["ref"],
        "recipe": RECIPE,
        "domain": "legal",
    }
    runs = [door.done(engineer, "POST", "/training-runs", order)["id"] for _ in range(2)]
    first = door.done(trainer, "POST", "/work/lease", {"worker": "w"})["id"]
    door.done(trainer, "POST", f"/work/{first}/requeue", {"attempt": 1, "reason": "drained"})
    again = door.done(trainer, "POST", "/work/lease", {"worker": "w"})
    assert (again["id"], again["attempt"]) == (first, 2)
    door.done(trainer, "POST", f"/work/{first}/fail", {"attempt": 2, "error": "no memory"})
    assert door.done(engineer, "GET", f"/training-runs/{first}")["error"] == "no memory"
    [second] = set(runs) - {first}
    assert door.done(engineer, "POST", f"/training-runs/{second}/cancel")["state"] == "cancelled"
    policy = next(
        one
        for one in door.done(admin, "GET", "/policies")
        if one["environment"] == "dev" and one["current"]
    )
    text = policy["text"].replace("approval_days: 365", f"approval_days: {360 - policy['number']}")
    assert door.done(admin, "POST", "/policies", {"text": text})["number"] == policy["number"] + 1
    [token] = [one["id"] for one in door.done(engineer, "GET", "/tokens")]
    assert door.ask(admin, "DELETE", f"/tokens/{token}").status_code == 204
    assert door.refused(engineer, "GET", "/me") == (401, "token-unknown")
