"""How routes reach traffic: only newer ones, only once loaded, at once where it is urgent, and
without the registry.
"""

from __future__ import annotations

import json
import os
import stat

import pytest

from registry.client import Countersign
from registry.errors import Conflict, Invalid
from registry.gateway.app import Gateway
from tests.gateway.conftest import Stage
from tests.gateway.door import BASE, TOKEN
from tests.gateway.served import Served, until


def test_a_version_that_cannot_be_had_is_decided_and_tried_again(stage: Stage) -> None:
    v1, v2 = (
        stage.door.version("acme/claims@v1", "one"),
        stage.door.version("acme/claims@v2", "two"),
    )
    stage.door.route(v1)
    stage.start()
    stage.ready()
    weights = v2.files[0].sha256
    missing = stage.door.blobs.pop(weights)
    stage.door.route(v2, fallback_to_base=False)
    stage.applied(2)
    assert stage.ask().json()["kind"] == "nothing-servable"
    assert "acme/claims@v2" in stage.http.get("/readyz").json()["failures"]
    stage.door.blobs[weights] = missing
    until(lambda: stage.ask().status_code == 200, "it is fetched after all")
    assert stage.says() == "two"


def test_a_registry_that_goes_away_in_mid_promotion_decides_nothing(stage: Stage) -> None:
    v1, v2 = (
        stage.door.version("acme/claims@v1", "one"),
        stage.door.version("acme/claims@v2", "two"),
    )
    stage.door.route(v1)
    stage.start()
    stage.ready()
    stage.door.blobs_down = True
    stage.door.route(v2)
    until(
        lambda: "acme/claims@v2" in stage.http.get("/readyz").json()["failures"],
        "the pull has failed",
    )
    assert stage.says() == "one"
    assert stage.shown() == stage.shown() | {"generation": 1, "wanted": 2}
    stage.door.blobs_down = False
    stage.applied(2)
    assert stage.says() == "two"


def test_a_start_without_the_candidates_bytes_serves_the_stable(stage: Stage) -> None:
    v1, v2 = (
        stage.door.version("acme/claims@v1", "one"),
        stage.door.version("acme/claims@v2", "two"),
    )
    stage.door.route(v1)
    stage.start()
    stage.ready()
    stage.door.blobs_down = True
    stage.door.route(v1, v2, weight_bp=10_000)
    until(
        lambda: "acme/claims@v2" in stage.http.get("/readyz").json()["failures"],
        "the pull has failed",
    )
    stage.stop()
    stage.start()
    stage.ready()
    assert stage.shown()["generation"] == 2
    assert stage.says("user-1") == "one"


def test_traffic_keeps_the_old_route_while_the_new_one_loads(stage: Stage) -> None:
    v1, v2 = (
        stage.door.version("acme/claims@v1", "one"),
        stage.door.version("acme/claims@v2", "two"),
    )
    stage.door.route(v1)
    stage.start()
    stage.ready()
    stage.engine.loading.clear()
    stage.door.route(v2)
    until(lambda: stage.engine.loads[-1] == v2.ref, "loading has begun")
    assert [stage.says() for _ in range(3)] == ["one"] * 3
    assert stage.shown()["generation"] == 1
    stage.engine.loading.set()
    stage.applied(2)
    assert stage.says() == "two"


def test_an_urgent_generation_does_not_wait(stage: Stage) -> None:
    v1, v2 = (
        stage.door.version("acme/claims@v1", "one"),
        stage.door.version("acme/claims@v2", "two"),
    )
    stage.door.route(v2)
    stage.start()
    stage.ready()
    stage.engine.loading.clear()
    stage.door.move_urgently(v1)
    stage.applied(2)
    assert stage.says() == "base"
    assert stage.records()[-1]["fallback"] is True
    # A later promotion does not make the recalled version servable again on the way.
    stage.engine.loading.set()
    until(lambda: stage.says() == "one", "v1 is loaded")


def test_an_urgent_generation_that_was_missed_still_counts(stage: Stage) -> None:
    v1, v2 = (
        stage.door.version("acme/claims@v1", "one"),
        stage.door.version("acme/claims@v2", "two"),
    )
    stage.door.route(v2)
    stage.start()
    stage.ready()
    stage.engine.loading.clear()
    stage.door.down = True
    stage.door.move_urgently(v1)
    stage.door.route(stage.door.version("acme/claims@v3", "three"))
    stage.door.down = False
    stage.applied(3)
    assert stage.says() == "base"
    stage.engine.loading.set()
    until(lambda: stage.says() == "three", "v3 is loaded")


def test_an_older_generation_is_never_applied(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    v1, v2 = (
        stage.door.version("acme/claims@v1", "one"),
        stage.door.version("acme/claims@v2", "two"),
    )
    first = stage.door.route(v1)
    stage.door.route(v2)
    stage.start()
    stage.ready()
    with caplog.at_level("WARNING", "registry.gateway"):
        stage.door.entries["acme/claims"] = first
        until(lambda: "older than our 2" in caplog.text, "the old document was seen")
    assert stage.says() == "two"
    assert stage.shown()["generation"] == 2


def test_unchanged_routes_cost_a_304(stage: Stage) -> None:
    stage.door.route(stage.door.version("acme/claims@v1"))
    stage.start()
    until(
        lambda: stage.door.polls[:3] == [200, 304, 304], "only the first poll carries the document"
    )


def test_it_starts_and_serves_with_the_registry_gone(stage: Stage) -> None:
    v1, v2 = (
        stage.door.version("acme/claims@v1", "one"),
        stage.door.version("acme/claims@v2", "two"),
    )
    stage.door.route(v1, v2, weight_bp=10_000)
    stage.start()
    stage.ready()
    assert stage.says("user-1") == "two"
    stage.stop()
    assert stat.S_IMODE((stage.cache / "routing.json").stat().st_mode) == 0o600
    assert stat.S_IMODE((stage.cache / "unit.key").stat().st_mode) == 0o600
    stage.door.down = True
    stage.engine.restart()
    os.utime(stage.cache / "routing.json", (1, 1))
    stage.start()
    stage.ready()
    assert stage.says("user-1") == "two"
    state = stage.http.get("/readyz").json()
    assert state["routing_age_s"] > 1e9
    until(lambda: stage.gateway.routes.trouble is not None, "the registry is missed")
    assert "registry" in stage.http.get("/readyz").json()["trouble"]
    summary = stage.http.get("/records/summary").json()
    assert (summary["requests"], summary["damaged"]) == (2, 0)
    units = {record["unit"] for record in stage.records()}
    assert len(units) == 1, "the key outlives a restart, so a unit keeps its hash"
    stage.door.down = False
    until(lambda: stage.http.get("/readyz").json()["routing_age_s"] < 5, "the registry is back")


def test_routes_of_another_registry_or_environment_are_not_taken_up(stage: Stage) -> None:
    stage.door.route(stage.door.version("acme/claims@v1"))
    stage.start()
    stage.ready()
    stage.stop()
    file = stage.cache / "routing.json"
    kept = json.loads(file.read_text())
    for change in (
        {**kept, "registry": "http://127.0.0.1:1"},
        {**kept, "view": {**kept["view"], "environment": "dev"}},
    ):
        file.write_text(json.dumps(change))
        stage.door.down = True
        stage.start()
        answer = stage.http.get("/readyz")
        assert (answer.status_code, answer.json()["kind"]) == (503, "not-ready")
        assert answer.headers["Retry-After"]
        assert stage.http.get("/v1/models").json()["data"] == []
        stage.stop()
    file.write_text('{"torn')
    stage.door.down = False
    stage.start()
    stage.ready()


def test_a_restarted_engine_gets_its_adapters_back(stage: Stage) -> None:
    stage.door.route(stage.door.version("acme/claims@v1", "one"), fallback_to_base=False)
    stage.start()
    stage.ready()
    assert stage.says() == "one"
    stage.engine.restart()
    until(lambda: stage.ask().status_code == 200, "it is loaded again")
    assert stage.engine.loads == ["acme/claims@v1"] * 2
    stage.engine_server.stop()
    until(lambda: stage.ask().status_code == 503, "the engine is gone")
    until(lambda: stage.http.get("/readyz").status_code == 503, "and the gateway says so")
    stage.engine.restart()
    stage.engine_server = Served(stage.engine.app, stage.engine_server.port)
    until(lambda: stage.ask().status_code == 200, "the engine is back")
    assert stage.says() == "one"


def test_a_candidate_the_engine_refuses_falls_back(stage: Stage) -> None:
    v1, broad = (
        stage.door.version("acme/claims@v1", "one"),
        stage.door.version("acme/claims@v2", rank=64),
    )
    stage.door.route(v1)
    stage.start()
    stage.ready()
    stage.door.route(v1, broad, weight_bp=10_000)
    stage.applied(2)
    answer = stage.ask("user-1")
    assert answer.json()["model"] == v1.ref
    assert (answer.headers["X-Countersign-Arm"], answer.headers["X-Countersign-Fallback"]) == (
        "candidate",
        "true",
    )
    assert "greater than max_lora_rank" in stage.http.get("/readyz").json()["failures"][broad.ref]


@pytest.mark.parametrize("allowed", [True, False])
def test_a_channel_without_a_stable_answers_as_the_base_or_not_at_all(
    stage: Stage, allowed: bool
) -> None:
    stage.door.route(
        None, stage.door.version("acme/claims@v1", "one"), weight_bp=1, fallback_to_base=allowed
    )
    stage.start()
    stage.ready()
    answer = stage.ask()
    if allowed:
        assert (answer.status_code, answer.json()["model"]) == (200, BASE.ref)
        assert "X-Countersign-Fallback" not in answer.headers
    else:
        assert (answer.status_code, answer.json()["kind"]) == (503, "nothing-servable")


def test_the_base_itself_may_stand_as_stable(stage: Stage) -> None:
    stage.door.route(BASE, fallback_to_base=False)
    stage.start()
    stage.ready()
    assert stage.says() == "base"


def test_an_engine_with_another_base_gets_nothing_to_load(stage: Stage) -> None:
    stage.door.route(stage.door.version("acme/claims@v1"))
    stage.engine.base = "acme/other@v1"
    stage.start()
    stage.applied(1)
    assert stage.ask().json()["kind"] == "nothing-servable"
    assert (
        "which the engine does not serve"
        in stage.http.get("/readyz").json()["failures"]["acme/claims@v1"]
    )
    assert stage.engine.loads == []


def test_a_name_the_engine_has_given_to_other_bytes_is_not_used(stage: Stage) -> None:
    v1 = stage.door.version("acme/claims@v1", "one")
    stage.engine.adapters[v1.ref] = str(stage.cache / "elsewhere")
    stage.door.route(v1, fallback_to_base=False)
    stage.start()
    stage.applied(1)
    assert stage.ask().status_code == 503
    assert "is not what the registry names" in stage.http.get("/readyz").json()["failures"][v1.ref]


def test_a_version_no_route_names_is_unloaded_after_its_soak(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    v1, v2 = stage.door.version("acme/claims@v1"), stage.door.version("acme/claims@v2")
    stage.door.route(v1)
    stage.start()
    stage.ready()
    stage.door.route(v2)
    stage.applied(2)
    until(lambda: v1.ref in stage.gateway.arms._unnamed, "its soak has begun")
    assert set(stage.engine.adapters) == {v1.ref, v2.ref}
    monkeypatch.setattr("registry.gateway.arms.SOAK", 0.0)
    until(lambda: set(stage.engine.adapters) == {v2.ref}, "v1 is unloaded")


def test_one_gateway_a_cache_and_a_known_environment(stage: Stage) -> None:
    stage.start()
    with Countersign(stage.registry_server.url, TOKEN) as registry:
        with pytest.raises(Conflict) as refusal:
            Gateway(registry, stage.engine_server.url, "production", stage.cache)
        assert refusal.value.kind == "cache-in-use"
        with pytest.raises(Invalid):
            Gateway(registry, stage.engine_server.url, "prod", stage.cache)
