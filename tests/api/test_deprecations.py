"""Deprecations over REST, and what the Hub's door and the lists say of them."""

from __future__ import annotations

from registry.commands import deprecations
from tests.api.conftest import Door
from tests.build import Person, World, train
from tests.hub.conftest import get


def test_a_deprecation_from_end_to_end(door: Door, world: World, auditor: Person) -> None:
    ref = world.versions[-1]
    order = {"ref": ref, "reason": "Its successor reads tables too."}
    assert door.refused(auditor, "POST", "/deprecations", order) == (403, "role-missing")
    assert door.refused(world.engineer, "POST", "/deprecations", {"ref": ref}) == (
        422,
        "invalid-request",
    )
    assert door.refused(world.engineer, "POST", "/deprecations", {**order, "reason": " "}) == (
        422,
        "reason-missing",
    )
    said = door.done(world.engineer, "POST", "/deprecations", order)
    assert {name: said[name] for name in ("ref", "by", "reason")} == {
        **order,
        "by": world.engineer.actor.name,
    }
    assert door.refused(world.engineer, "POST", "/deprecations", order) == (
        409,
        "already-deprecated",
    )
    shown = door.done(auditor, "GET", f"/versions/{ref}")
    assert (shown["state"], shown["deprecation_reason"]) == ("deprecated", order["reason"])
    canary = {"ref": ref, "environment": "production", "share_bp": 500}
    assert door.refused(world.engineer, "POST", "/canaries", canary) == (409, "deprecated")
    found = door.done(auditor, "GET", f"/versions?state=deprecated&team={world.team}")
    assert [one["ref"] for one in found["items"]] == [ref]


def test_the_hub_shows_it_and_still_gives_it(door: Door, world: World) -> None:
    train(world, "listed", seed=20)
    line, secret = f"{world.team}/listed", door.token(world.engineer)
    deprecations.deprecate(door.store, world.engineer.actor, f"{line}@v2", "It guesses.")
    for revision, deprecated in (("v2", True), ("v1", False)):
        info = get(door, secret, f"/api/models/{line}/revision/{revision}").json()
        assert ("deprecated" in info["tags"]) is deprecated
    named = get(door, secret, "/api/models?filter=deprecated").json()
    assert line in {one["id"] for one in named}


def test_the_document_allows_every_reference_that_the_command_takes(door: Door) -> None:
    models = door.client.get("/api/v1/openapi.json").json()["components"]["schemas"]
    fields, like = (models[name]["properties"] for name in ("NewDeprecation", "NewDeletion"))
    assert fields == like
