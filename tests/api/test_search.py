"""Search and tags through the REST door and the Python client."""

from __future__ import annotations

import base64
import json
from uuid import UUID

import pytest

from registry.cli import main
from registry.client import Countersign
from registry.errors import NotFound
from registry.rules import searches
from tests.api.conftest import Door
from tests.build import World


def test_tags_are_put_found_and_taken_off(door: Door, world: World) -> None:
    engineer, ref = world.engineer, world.base.ref
    assert door.done(engineer, "PUT", f"/versions/{ref}/tags/topic", {"value": "legal"})[
        "tags"
    ] == {"topic": "legal"}
    with Countersign(door.url, door.token(engineer)) as registry:
        assert registry.tag(ref, "by/hand", "yes").tags == {"by/hand": "yes", "topic": "legal"}
        assert [one.ref for one in registry.search(tag=["topic:legal", "by/hand"])] == [ref]
        assert len(list(registry.search(kind="adapter", limit=1))) == 1
        assert registry.untag(ref, "by/hand").tags == {"topic": "legal"}
        with pytest.raises(NotFound):
            registry.untag(ref, "by/hand")
    page = door.done(engineer, "GET", f"/versions?team={world.team}&facets=true&limit=1")
    assert page["next"]
    assert page["facets"]["values"]["tag"] == [{"value": "topic", "count": 1, "at_least": False}]
    assert door.done(engineer, "DELETE", f"/versions/{ref}/tags/topic")["tags"] == {}


def test_the_command_line_shows_cuts_counts_and_says_there_is_more(
    door: Door, world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COUNTERSIGN_URL", door.url)
    monkeypatch.setenv("COUNTERSIGN_TOKEN", door.token(world.engineer))
    door.done(
        world.engineer,
        "PUT",
        f"/versions/{world.base.ref}/tags/customer",
        {"value": "Northwind " * 9 + "plc"},
    )

    def say(*words: str, code: int = 0) -> tuple[str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["search", *words])
        assert (ended.value.code or 0) == code
        return tuple(capsys.readouterr())

    out, err = say("--team", world.team)
    assert out.splitlines()[0].split() == [
        "Version",
        "Kind",
        "State",
        "Base",
        "Licence",
        "Tags",
        "Added",
    ]
    assert "adapter (lora)" in out
    assert "customer=Northwind Northwind Northwind …" in out
    assert err == ""
    out, err = say("--team", world.team, "--limit", "1")
    assert len(out.splitlines()) == 2
    assert "More than 1 match" in err
    [found] = json.loads(say(world.team[2:6], "--kind", "base", "--json")[0])
    assert (found["ref"], len(found["tags"]["customer"])) == (world.base.ref, 93)
    out, err = say("--team", world.team, "--facets")
    assert "adapter" in out
    assert "versions match" in err
    assert say("--team", world.team, "--tag", "absent") == (
        "",
        "Nothing matches. Remove a filter, or search for a shorter part of the name.\n",
    )
    assert "cannot be read" in say("--metric", "x", code=2)[1]
    assert "no order" in say("--sort", "best", code=2)[1]
    assert "Nothing matches" in say("--by", "nobody-there")[1]
    assert world.base.ref in say("--by", world.engineer.actor.name)[0]


@pytest.mark.parametrize(
    "query",
    [
        "kind=x",
        "sort=x",
        "digest=%25",
        "metric=x",
        "tag=A",
        "limit=0",
        "cursor=x",
        "base=x",
        "facets=perhaps",
        "q=%00",
        "since=yesterday",
        "sort=metric:",
        "by=%00",
        "license=mit",
        "kind=base&kind=adapter",
        "limit=1&limit=2",
        "tag=a&Tag=b",
    ],
)
def test_a_wrong_filter_is_a_named_problem(door: Door, world: World, query: str) -> None:
    assert door.refused(world.engineer, "GET", f"/versions?{query}")[0] in (400, 422)


@pytest.mark.parametrize(
    ("sort", "key"),
    [
        ("created", [2**63]),
        ("created", [1.5]),
        ("created", ["x"]),
        ("name", ["\ud800", 1, 1]),
        ("name", ["a\0", 1, 1]),
        ("name", ["a", 1]),
        ("metric:accuracy", ["x", str(UUID(int=1))]),
        ("metric:accuracy", ["1", "x"]),
    ],
)
def test_a_cursor_made_up_for_a_search_is_refused(
    door: Door, world: World, sort: str, key: list[object]
) -> None:
    cursor = (
        base64.urlsafe_b64encode(
            json.dumps([searches.parse(searches.Filters(sort=sort)).mark(), *key]).encode()
        )
        .decode()
        .rstrip("=")
    )
    assert (
        door.refused(world.engineer, "GET", f"/versions?sort={sort}&cursor={cursor}")[1]
        == "bad-cursor"
    )


def test_who_may_not_tag_is_told(door: Door, world: World) -> None:
    path = f"/versions/{world.base.ref}/tags/"
    assert door.refused(world.trainer, "PUT", path + "topic", {"value": "x"}) == (
        403,
        "role-missing",
    )
    assert (
        door.refused(world.engineer, "PUT", path + "approved", {"value": "x"})[1] == "reserved-tag"
    )
