"""What a worker gets with its work: its own back after a restart, and where MLflow is."""

from __future__ import annotations

import pytest

from tests.api.conftest import Door
from tests.build import ADAPTER_META, RECIPE, World, a_world


@pytest.mark.parametrize(
    ("url", "given"),
    [
        (None, None),
        ("http://ann:secret@127.0.0.1:8083", "http://127.0.0.1:8083"),
        ("https://ann:secret@ml.example.org/x", "https://ml.example.org/x"),
    ],
)
def test_a_worker_gets_its_work_back_with_the_address_of_mlflow(
    door: Door, team: str, monkeypatch: pytest.MonkeyPatch, url: str | None, given: str | None
) -> None:
    world: World = a_world(door.store, door.blobs, team)
    settings = door.app.state.settings
    changed = settings.model_copy(update={"mlflow_url": url})
    monkeypatch.setitem(door.app.state._state, "settings", changed)
    order = {
        "adapter": f"{team}/adapter",
        "base": world.base.ref,
        "dataset": world.dataset.ref,
        "recipe": RECIPE,
        "domain": "legal",
        "meta": ADAPTER_META,
    }
    run = door.done(world.engineer, "POST", "/training-runs", order)["id"]
    for attempt in (1, 2):
        body = {"worker": "gpu-1", "identity": "one folder"}
        work = door.done(world.trainer, "POST", "/work/lease", body)
        assert (work["id"], work["attempt"], work["mlflow_url"]) == (run, attempt, given)
    other = {"worker": "gpu-1", "identity": "another folder"}
    assert door.ask(world.trainer, "POST", "/work/lease", other).status_code == 204


def test_everything_wrong_with_a_recipe_is_answered_at_once(door: Door, team: str) -> None:
    world = a_world(door.store, door.blobs, team)
    recipe = {**RECIPE, "targets": ["c_attn"], "template": "chat"}
    order = {
        "adapter": f"{team}/adapter",
        "base": world.base.ref,
        "dataset": world.dataset.ref,
        "recipe": recipe,
        "domain": "legal",
        "meta": {"purpose": 12},
    }
    answer = door.ask(world.engineer, "POST", "/training-runs", order)
    assert answer.status_code == 422
    body = answer.json()
    assert body["kind"] == "unfit-recipe"
    assert set(body["facts"]["problems"]) == {"meta.purpose", "targets", "template"}
    assert "12, not a text. Write it in quotes" in body["facts"]["problems"]["meta.purpose"]
    assert door.done(world.engineer, "GET", f"/training-runs?adapter={team}/adapter") == []


def test_a_suite_that_cannot_be_asked_is_refused(door: Door, team: str) -> None:
    world = a_world(door.store, door.blobs, team)
    suite = {
        "name": f"{team}/chat",
        "dataset": world.dataset.ref,
        "split": "test",
        "metric": "exact_match",
        "decoding": {"template": "chat"},
    }
    ref = door.done(world.engineer, "POST", "/eval-suites", suite)["ref"]
    asked = {"subject": world.base.ref, "suite": ref}
    answer = door.ask(world.engineer, "POST", "/eval-runs", asked)
    assert (answer.status_code, answer.json()["kind"]) == (409, "unfit-suite")
    assert "--template plain" in answer.json()["detail"]
