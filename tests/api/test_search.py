"""Search and tags through the REST door and the Python client."""

from __future__ import annotations

import pytest

from registry.client import Countersign
from registry.errors import NotFound
from tests.api.conftest import Door
from tests.build import World


def test_tags_are_put_found_and_taken_off(door: Door, world: World) -> None:
    engineer, ref = world.engineer, world.base.ref
    assert door.done(engineer, "PUT", f"/versions/{ref}/tags/topic", {"value": "legal"})["tags"] == {"topic": "legal"}
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


@pytest.mark.parametrize("query", ["kind=x", "sort=x", "digest=%25", "metric=x", "tag=A", "limit=0", "cursor=x",
                                   "base=x", "facets=perhaps", "q=%00"])  # fmt: skip
def test_a_wrong_filter_is_a_named_problem(door: Door, world: World, query: str) -> None:
    assert door.refused(world.engineer, "GET", f"/versions?{query}")[0] in (400, 422)


def test_who_may_not_tag_is_told(door: Door, world: World) -> None:
    path = f"/versions/{world.base.ref}/tags/"
    assert door.refused(world.trainer, "PUT", path + "topic", {"value": "x"}) == (403, "role-missing")
    assert door.refused(world.engineer, "PUT", path + "approved", {"value": "x"})[1] == "reserved-tag"
