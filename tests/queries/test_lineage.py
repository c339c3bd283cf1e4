"""Lineage both ways, each thing once, siblings left out."""

from __future__ import annotations

import pytest

from registry.db.store import Store
from registry.errors import NotFound
from registry.queries import lineage
from registry.rules.actors import Actor
from registry.views.lineage import LineageView
from tests.build import World
from tests.queries.conftest import Statements


def _depths(view: LineageView) -> dict[str, int]:
    return {f"{node.kind}:{node.ref}": node.depth for node in view.nodes if node.kind != "eval_run"}


def test_ancestors_lie_before_and_descendants_after(store: Store, served: World) -> None:
    first, second = served.versions
    view = lineage.trace(store, served.engineer.actor, second)
    assert _depths(view) == {
        f"adapter:{second}": 0,
        f"base:{served.base.ref}": -1,
        f"dataset:{served.dataset.ref}": -1,
    }
    assert f"adapter:{first}" not in _depths(view)
    names = {node.id: node.ref for node in view.nodes}
    edges = {
        (names[edge.child], names[edge.parent], edge.relation, edge.grade) for edge in view.edges
    }
    assert (second, served.base.ref, "adapts", "verified") in edges
    assert (second, served.dataset.ref, "tuned_on", "observed") in edges


def test_everything_made_from_a_base_descends_from_it(store: Store, served: World) -> None:
    depths = _depths(lineage.trace(store, served.engineer.actor, served.base.ref))
    assert depths[f"base:{served.base.ref}"] == 0
    assert {depths[f"adapter:{ref}"] for ref in served.versions} == {1}


def test_an_eval_run_stands_on_its_version_and_its_suite(store: Store, served: World) -> None:
    view = lineage.trace(store, served.engineer.actor, served.versions[-1])
    (run,) = [node for node in view.nodes if node.kind == "eval_run"]
    assert (run.depth, run.state) == (1, "succeeded")
    own = lineage.trace(store, served.engineer.actor, f"eval-run:{run.ref}")
    assert own.focus == run.id
    assert {node.depth for node in own.nodes if node.kind == "adapter"} == {-1}


def test_data_sets_and_suites_are_named_as_people_name_them(store: Store, served: World) -> None:
    data = lineage.trace(store, served.engineer.actor, served.dataset.ref)
    assert (
        data.focus
        == lineage.trace(store, served.engineer.actor, f"dataset:{served.dataset.ref}").focus
    )
    assert f"adapter:{served.versions[0]}" in _depths(data)
    suite = lineage.trace(store, served.engineer.actor, f"{served.suite}@v1")
    assert [node.kind for node in suite.nodes if node.id == suite.focus] == ["suite"]


def test_another_teams_lineage_is_not_found(store: Store, served: World, stranger: Actor) -> None:
    for ref in (
        served.versions[0],
        served.dataset.ref,
        f"{served.suite}@v1",
        f"dataset:{served.dataset.ref}",
    ):
        with pytest.raises(NotFound):
            lineage.trace(store, stranger, ref)


def test_a_walk_is_two_statements_after_the_name_is_known(
    store: Store, served: World, statements: Statements
) -> None:
    with statements() as sent:
        lineage.trace(store, served.engineer.actor, served.base.ref)
    assert len(sent) == 4  # read only, the name, the walk, the edges
