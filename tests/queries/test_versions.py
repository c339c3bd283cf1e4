"""Lines and versions: pages, what a version is and where it serves, and whose they are."""

from __future__ import annotations

import pytest

from registry.blobs.store import Blobs
from registry.commands import recalls, versions
from registry.db.store import Store
from registry.errors import Invalid, NotFound
from registry.queries import datasets
from registry.queries import versions as asked
from registry.queries.pages import PageRequest
from registry.rules.actors import Actor
from tests.build import (
    ADAPTER_META,
    BASE_META,
    DATA_META,
    World,
    a_base,
    a_dataset,
    a_person,
    adapter_files,
    register,
)
from tests.queries.conftest import Statements


def test_a_version_is_told_whole(store: Store, served: World) -> None:
    ref = served.versions[-1]
    view = asked.version(store, served.engineer.actor, ref)
    assert (view.ref, view.kind, view.number, view.state) == (ref, "adapter", 2, "registered")
    assert (view.base, view.base_kind) == (served.base.ref, "base")
    assert [file.path for file in view.files] == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert [(one.environment, one.state, one.review) for one in view.approvals] == [
        ("production", "approved", served.review)
    ]
    assert view.serves == ["production/production"]
    assert view.created_by == served.trainer.actor.name
    assert view.recall_reason is None
    assert view == asked.version(store, served.engineer.actor, view.manifest_digest)
    assert view == asked.version(store, served.engineer.actor, f"{served.team}/adapter@production")
    assert view == asked.version(store, served.engineer.actor, f"{served.team}/adapter")


def test_the_base_of_a_promoted_adapter_does_not_serve(store: Store, served: World) -> None:
    assert asked.version(store, served.engineer.actor, served.base.ref).serves == []


def test_versions_come_newest_first(store: Store, served: World) -> None:
    found = asked.versions(store, served.engineer.actor, f"{served.team}/adapter")
    assert [view.number for view in found] == [2, 1]


def test_lines_come_page_by_page_each_once(store: Store, blobs: Blobs, team: str) -> None:
    engineer = a_person(store, "engineer", team=team)
    for number in range(5):
        a_base(store, blobs, engineer, team, name=f"base{number}", seed=number)
    seen, cursor = [], None
    for _ in range(4):
        page = asked.lines(store, engineer.actor, page=PageRequest(cursor, 2))
        seen += [line.name for line in page.items]
        cursor = page.next
        if cursor is None:
            break
    assert seen == [f"{team}/base{number}" for number in range(5)]
    assert cursor is None


def test_a_page_costs_the_same_whatever_its_length(
    store: Store, served: World, statements: Statements
) -> None:
    everyone = Actor(served.engineer.actor.account, "all", served.compliance.actor.grants)
    counts = []
    for limit in (1, 200):
        with statements() as sent:
            page = asked.lines(store, everyone, page=PageRequest(limit=limit))
        counts.append(len(sent))
    assert len(page.items) > 1
    assert counts[0] == counts[1]
    with statements() as one:
        asked.version(store, everyone, served.versions[0])
    with statements() as all_of_them:
        assert len(asked.versions(store, everyone, f"{served.team}/adapter")) == 2
    assert len(all_of_them) <= len(one) + 1


def test_lines_are_found_by_kind_team_and_any_part_of_their_names(
    store: Store, served: World
) -> None:
    everyone = served.compliance.actor
    assert [
        line.name for line in asked.lines(store, everyone, asked.LineFilter(team=served.team)).items
    ] == [
        f"{served.team}/adapter",
        f"{served.team}/tiny",
    ]
    assert [
        line.kind
        for line in asked.lines(
            store, everyone, asked.LineFilter(kind="base", team=served.team)
        ).items
    ] == ["base"]
    for words in (f"{served.team}/ad", "LEGAL"):
        found = asked.lines(store, everyone, asked.LineFilter(team=served.team, q=words)).items
        assert [line.name for line in found] == [f"{served.team}/adapter"]
    assert asked.lines(store, everyone, asked.LineFilter(team=served.team, q="%")).items == []
    with pytest.raises(Invalid) as refused:
        asked.lines(store, everyone, asked.LineFilter(kind="model"))
    assert refused.value.kind == "bad-kind"


def test_a_line_tells_its_newest_version_and_where_it_serves(store: Store, served: World) -> None:
    adapter, base = asked.lines(store, served.engineer.actor).items
    assert (adapter.versions, adapter.newest, adapter.newest_state) == (
        2,
        served.versions[-1],
        "registered",
    )
    assert adapter.domain == "legal"
    assert (adapter.serves, base.serves) == (["production/production"], [])


def test_a_draft_is_listed_without_a_number(store: Store, blobs: Blobs, team: str) -> None:
    engineer = a_person(store, "engineer", team=team)
    base = a_base(store, blobs, engineer, team)
    draft = versions.Draft("adapter", f"{team}/draft", adapter_files(blobs), {}, base.ref)
    added = register(store, blobs, engineer.actor, draft)
    assert added.status == "draft"
    line = asked.lines(store, engineer.actor, asked.LineFilter(q="draft")).items[0]
    assert (line.versions, line.newest, line.newest_state) == (0, added.ref, "draft")
    assert asked.version(store, engineer.actor, added.ref).number is None


def test_another_teams_things_answer_as_what_is_not_there(
    store: Store, served: World, stranger: Actor
) -> None:
    assert asked.lines(store, stranger).items == []
    for there, missing in (
        (served.versions[0], "nobody/nothing@v1"),
        (f"{served.team}/adapter", "nobody/nothing"),
    ):
        with pytest.raises(NotFound) as hidden:
            asked.version(store, stranger, there)
        with pytest.raises(NotFound) as absent:
            asked.version(store, stranger, missing)
        assert hidden.value.detail.replace(there, missing) == absent.value.detail
        assert (hidden.value.kind, hidden.value.fix) == (absent.value.kind, absent.value.fix)
    with pytest.raises(NotFound, match="no base model, adapter or checkpoint"):
        asked.versions(store, stranger, f"{served.team}/adapter")


def test_what_falls_with_its_base_tells_the_bases_recall(
    store: Store, blobs: Blobs, team: str
) -> None:
    engineer = a_person(store, "engineer", team=team)
    base = a_base(store, blobs, engineer, team)
    draft = versions.Draft(
        "adapter", f"{team}/fallen", adapter_files(blobs), ADAPTER_META, base.ref
    )
    adapter = register(store, blobs, engineer.actor, draft)
    recalls.recall(store, engineer.actor, base.ref, "the licence was withdrawn")
    for ref in (base.ref, adapter.ref):
        view = asked.version(store, engineer.actor, ref)
        assert (view.state, view.recall_reason) == ("recalled", "the licence was withdrawn")


def test_metadata_comes_back_as_it_was_given(store: Store, blobs: Blobs, team: str) -> None:
    engineer = a_person(store, "engineer", team=team)
    base = a_base(store, blobs, engineer, team)
    assert asked.version(store, engineer.actor, base.ref).meta == BASE_META
    data = a_dataset(store, blobs, engineer, team)
    view = datasets.dataset(store, engineer.actor, data.ref)
    assert view.meta == DATA_META
    assert (view.rows, view.splits, view.ref) == (100, {"test": 60, "train": 40}, data.ref)
    assert [one.ref for one in datasets.datasets(store, engineer.actor)] == [data.ref]
