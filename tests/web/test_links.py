"""Links and the find box lead to the page of the thing, and to MLflow without a password."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from html import unescape

import httpx
import pytest
from sqlalchemy import event

from registry.artifacts.weights.tensors import File
from registry.commands import evals, rollouts, versions
from registry.db.store import Store
from registry.queries import evals as eval_queries
from registry.queries import policies, use_cases
from registry.queries import versions as asked_versions
from tests.build import (
    World,
    a_person,
    a_world,
    adapter_files,
    approved,
    evaluate,
    put,
    register,
    register_rows,
    submit,
    train,
)
from tests.web.conftest import Console

LINK = re.compile(r'href="(/[^"#]*)"')
META = {"licence": "apache-2.0", "purpose": "to be adapted"}


@contextmanager
def statements(store: Store) -> Iterator[list[str]]:
    """The statements that the app sends while a block runs."""
    sent: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        sent.append(statement)

    event.listen(store.engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(store.engine, "before_cursor_execute", note)


@pytest.fixture
def on_a_checkpoint(console: Console, team: str) -> World:
    """A world whose base is a checkpoint, which serves again after a rollback."""
    made = a_world(console.store, console.blobs, team)
    view = asked_versions.version(console.store, made.engineer.actor, made.base.ref)
    files = [File(file.path, file.sha256, file.size) for file in view.files]
    draft = versions.Draft("checkpoint", f"{team}/full", files, META)
    world = replace(made, base=register(console.store, console.blobs, made.engineer.actor, draft))
    ref, engineer = approved(world), world.engineer.actor
    place = rollouts.Place(f"{team}/adapter", "production", None)
    rollouts.start(console.store, engineer, rollouts.Canary(ref, "production", None, 500, "begin"))
    rollouts.promote(console.store, engineer, place, "it is good")
    rollouts.roll_back(console.store, engineer, place, "a complaint")
    train(world, seed=30)
    evaluate(world, world.versions[-1], 50)
    submit(world, world.versions[-1])
    return world


def test_links_to_a_base_lead_to_its_page_also_where_it_is_a_checkpoint(
    console: Console, on_a_checkpoint: World
) -> None:
    world = on_a_checkpoint
    base, review = f"/checkpoints/{world.team}/full/v/1", f"/reviews/{world.review}"
    with console.signed_in(world.engineer) as client:
        for path in (
            f"/adapters/{world.team}/adapter",
            f"/adapters/{world.team}/adapter/v/2",
            f"/search?q={world.team}",
            review,
        ):
            links = LINK.findall(client.get(path).text)
            assert base in links, path
            for link in set(links):
                assert client.get(unescape(link)).status_code in (200, 303), (path, link)
        page = client.get(review).text
        standing = page[page.index('id="standing"') : page.index('id="evidence"')]
        assert f'href="{base}"' in standing
        assert f'<dt>Base</dt><dd><a href="{base}"' in page


@pytest.mark.parametrize(
    ("reported", "public", "expected"),
    [
        ("http://127.0.0.1:1/#/r/1", "https://ann:pw@ml.example/x", "https://ml.example/x/#/r/1"),
        ("http://localhost.example.com/#/r/1", None, "http://localhost.example.com/#/r/1"),
        ("http://ann:pw@ml.example/#/r/1", None, "http://ml.example/#/r/1"),
    ],
)
def test_the_link_to_mlflow_has_no_password(
    console: Console,
    team: str,
    monkeypatch: pytest.MonkeyPatch,
    reported: str,
    public: str | None,
    expected: str,
) -> None:
    settings = console.settings.model_copy(update={"mlflow_url": public})
    monkeypatch.setitem(vars(console.app.state)["_state"], "settings", settings)
    world = a_world(console.store, console.blobs, team)
    run = train(world, mlflow=reported)
    with console.signed_in(world.engineer) as client:
        page = client.get(f"/runs/training/{run}").text
    assert f'<a href="{expected}" rel="noreferrer">Open in MLflow</a>' in page
    assert "ann:pw" not in page


def test_a_state_finds_runs_behind_newer_ones_of_another_state(
    console: Console, team: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = a_world(console.store, console.blobs, team)
    ended = evaluate(world, world.base.ref, 5)
    train(world)
    evals.queue(console.store, console.blobs, world.engineer.actor, world.versions[0], world.suite)
    monkeypatch.setattr(eval_queries, "check_limit", lambda _: 1)
    with console.signed_in(world.engineer) as client:
        assert f"/runs/eval/{ended}" not in client.get("/runs").text
        assert f"/runs/eval/{ended}" in client.get("/runs?state=succeeded").text


def test_a_list_of_drafts_reads_the_domain_of_its_line_once(
    console: Console, team: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = a_world(console.store, console.blobs, team)
    for seed in range(3):
        draft = versions.Draft(
            "adapter", f"{team}/bare", adapter_files(console.blobs, seed), {}, world.base.ref
        )
        register(console.store, console.blobs, world.engineer.actor, draft)
    with console.signed_in(world.engineer) as client, statements(console.store) as sent:
        page = client.get(f"/adapters/{team}/bare").text
    assert page.count("Purpose is missing") == 3
    assert len([text for text in sent if text.startswith("SELECT line.domain")]) == 1


@pytest.mark.parametrize("other", ["suite@production", "suite@v9", "case@v1", "case/x"])
def test_find_leads_to_what_has_exactly_that_name(
    console: Console, quiet: World, other: str
) -> None:
    stranger = a_person(console.store, "engineer", team="elsewhere")
    with console.signed_in(quiet.engineer) as client, console.signed_in(stranger) as foreign:

        def leads(text: str, by: httpx.Client = client) -> str:
            return by.get("/find", params={"q": text}).headers["location"]

        suite, case = f"{quiet.team}/suite", f"{quiet.team}/case"
        for text in (suite, f"{suite}@v1", f"suite:{suite}", f"suite:{suite}@v1"):
            assert leads(text) == f"/suites/{suite}/v/1"
            assert leads(text, foreign).startswith("/search?")
        for text in (case, f"use-case:{case}"):
            assert leads(text) == f"/use-cases/{case}"
            assert leads(text, foreign).startswith("/search?")
        assert leads(f"{quiet.team}/{other}").startswith("/search?")


def test_a_page_reads_what_it_shows_and_no_list_of_all(
    console: Console, quiet: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in (
        (eval_queries, "suites"),
        (use_cases, "use_cases"),
        (policies, "policies"),
    ):
        monkeypatch.delattr(module, name)
    with console.signed_in(quiet.engineer) as client:
        for text in ("suite", "case"):
            answer = client.get("/find", params={"q": f"{quiet.team}/{text}"})
            assert answer.status_code == 303
        page = client.get(f"/reviews/{quiet.review}")
        assert page.status_code == 200
        assert "Text of the policy production-v" in page.text


def test_a_draft_of_a_data_set_is_not_there_for_others(console: Console, quiet: World) -> None:
    stranger = a_person(console.store, "engineer", team="elsewhere")
    data = b'{"prompt": "a", "completion": "b", "split": "train"}\n'
    file = put(console.blobs, "rows.jsonl", data)
    draft = register_rows(
        console.store,
        console.blobs,
        quiet.engineer.actor,
        f"{quiet.team}/bare",
        file.sha256,
        file.size,
        {},
    )
    code = draft.ref.rpartition("-")[2]
    path = f"/datasets/{quiet.team}/bare?draft="
    with console.signed_in(quiet.engineer) as client, console.signed_in(stranger) as foreign:
        with statements(console.store) as sent:
            assert client.get(f"{path}{code}").status_code == 200
        assert any("node.ref = %" in text for text in sent)
        assert client.get(f"{path}{code[:-1]}0x").status_code == 404
        assert foreign.get(f"{path}{code}").status_code == 404
