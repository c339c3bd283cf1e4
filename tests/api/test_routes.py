"""Routes beside the main job (tests/cli/test_main_job.py), asked over REST alone."""

from __future__ import annotations

import json
from typing import Any

from tests.api.conftest import Door
from tests.build import (
    ADAPTER_META,
    BASE_META,
    DATA_META,
    MODULE,
    RECIPE,
    Person,
    a_person,
    dataset_bytes,
    safetensors,
)


def file(door: Door, person: Person, path: str, data: bytes) -> dict[str, Any]:
    return {"path": path, **door.upload(person, data)}


def test_the_routes_beside_the_main_job(door: Door, admin: Person, team: str) -> None:
    engineer, trainer = (a_person(door.store, role, team=team) for role in ("engineer", "trainer"))
    weights = safetensors({f"{MODULE}.weight": (8, 8), "model.norm.weight": (8,)}, seed=78)
    config = json.dumps(
        {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 8}
    ).encode()
    files = [
        file(door, engineer, "model.safetensors", weights),
        file(door, engineer, "config.json", config),
        file(door, engineer, "tokenizer.json", b'{"version":"1.0","model":{}}'),
    ]
    bundle = {"name": f"{team}/tiny", "meta": BASE_META, "files": files}
    base = door.done(engineer, "POST", "/bases", bundle)
    assert door.ask(engineer, "POST", "/bases", bundle).status_code == 200
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
        "meta": ADAPTER_META,
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
