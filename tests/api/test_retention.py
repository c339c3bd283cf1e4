"""Keeping and letting go over REST: each route by who may, each refusal by its name, and the Hub's
door beside it.
"""

from __future__ import annotations

from typing import Any

from registry.commands import versions
from tests.api.conftest import Door
from tests.build import ADAPTER_META, Person, World, adapter_files, register, sent


def an_adapter(door: Door, world: World, name: str, seed: int) -> str:
    draft = versions.Draft(
        "adapter",
        f"{world.team}/{name}",
        adapter_files(door.blobs, seed),
        {**ADAPTER_META, "domain": "legal"},
        world.base.ref,
    )
    return register(door.store, door.blobs, world.engineer.actor, draft).ref


def test_classes_and_settings(door: Door, world: World, admin: Person, auditor: Person) -> None:
    terms: dict[str, Any] = {
        "name": "claims-7y",
        "keep_days": 2557,
        "reason": "Our insurer asks for it.",
    }
    assert door.refused(world.engineer, "POST", "/retention/classes", terms) == (
        403,
        "role-missing",
    )
    made = door.done(admin, "POST", "/retention/classes", terms)
    assert (made["keep_days"], made["counted_from"], made["draft_days"]) == (2557, "service", 30)
    assert door.refused(admin, "POST", "/retention/classes", terms) == (409, "class-exists")
    assert door.refused(admin, "POST", "/retention/classes", {**terms, "keep_days": -1})[0] == 422
    assert "short" in {one["name"] for one in door.done(auditor, "GET", "/retention/classes")}
    put = {"name": f"{world.team}/adapter", "retention": "claims-7y", "reason": "It reads claims."}
    assert door.done(world.engineer, "POST", "/retention/settings", put) == {
        "name": f"{world.team}/adapter",
        "retention": "claims-7y",
        "shortened": False,
    }
    shorter = {**put, "retention": "short"}
    assert door.refused(world.engineer, "POST", "/retention/settings", shorter) == (
        409,
        "shorter-retention",
    )
    assert door.refused(
        world.engineer, "POST", "/retention/settings", {**put, "retention": "x"}
    ) == (
        404,
        "retention-unknown",
    )
    assert door.done(admin, "POST", "/retention/settings", shorter)["shortened"]
    kept = door.done(auditor, "GET", f"/keeping/{world.versions[-1]}")
    assert kept["classes"] == ["claims-7y", "short", "standard"]
    assert kept["kept_until"] > "2032"


def test_a_hold_from_end_to_end(door: Door, world: World, admin: Person, auditor: Person) -> None:
    ref = an_adapter(door, world, "held", 700)
    order = {"over": ref, "case": "Matter 5512", "reason": "An order of the court."}
    for person in (world.engineer, auditor):
        assert door.refused(person, "POST", "/holds", order) == (403, "role-missing")
    hold = door.done(world.compliance, "POST", "/holds", order)
    assert (hold["over"], hold["case"], hold["lifted_at"]) == (ref, "Matter 5512", None)
    assert door.refused(world.engineer, "POST", "/deletions", {"ref": ref, "reason": "tidy"}) == (
        409,
        "held",
    )
    for over in (ref, world.base.ref):
        [found] = door.done(auditor, "GET", f"/holds?over={over}")["items"]
        assert found["number"] == hold["number"]
    assert door.done(auditor, "GET", f"/keeping/{world.base.ref}")["holds"] == [hold["number"]]
    lift, why = f"/holds/{hold['number']}/lift", {"reason": "Settled."}
    assert door.refused(world.compliance, "POST", lift, why) == (409, "four-eyes")
    assert door.refused(admin, "POST", lift, why) == (403, "role-missing")
    assert door.done(world.risk, "POST", lift, why)["lift_reason"] == "Settled."
    assert door.refused(world.risk, "POST", lift, why) == (409, "already-lifted")
    assert door.refused(world.risk, "POST", "/holds/999999/lift", why) == (404, "hold-unknown")
    assert door.done(auditor, "GET", f"/holds?over={ref}")["items"] == []
    assert hold["number"] in [
        one["number"] for one in door.done(auditor, "GET", "/holds?standing=false")["items"]
    ]
    page = door.done(auditor, "GET", "/holds?standing=false&limit=1")
    assert door.refused(auditor, "GET", "/holds?cursor=nonsense") == (422, "bad-cursor")
    assert len(page["items"]) == 1


def test_a_deletion_from_end_to_end(
    door: Door, world: World, admin: Person, auditor: Person
) -> None:
    order = {"ref": world.versions[0], "reason": "Nobody wants it."}
    assert door.refused(world.engineer, "POST", "/deletions", order) == (409, "kept")
    put = {"name": f"{world.team}/gone", "retention": "short", "reason": "To try things out."}
    door.done(admin, "POST", "/retention/settings", put)
    ref = an_adapter(door, world, "gone", 710)
    order["ref"] = ref
    for person in (auditor, admin, world.compliance):
        assert door.refused(person, "POST", "/deletions", order) == (403, "role-missing")
    manifest = door.done(auditor, "GET", f"/versions/{ref}")["manifest_digest"]
    assert door.done(world.engineer, "POST", "/deletions", order)["how"] == "deleted"
    problem = door.ask(auditor, "GET", f"/versions/{ref}")
    assert (problem.status_code, problem.json()["kind"]) == (404, "deleted")
    facts = problem.json()["facts"]
    assert facts["by"] == str(world.engineer.id)
    assert facts["reason_commitment"].startswith("sha256:")
    assert "Nobody wants it" not in problem.text
    assert door.done(auditor, "GET", f"/keeping/{ref}")["tombstone"]["reason"] == "Nobody wants it."
    assert door.refused(auditor, "GET", f"/verify/{ref}") == (404, "deleted")
    assert {node["ref"] for node in door.done(auditor, "GET", f"/lineage/{ref}")["nodes"]} == {
        ref,
        world.base.ref,
    }
    found = door.done(auditor, "GET", f"/versions?name={world.team}/gone")["items"]
    assert found == []
    [hit] = door.done(auditor, "GET", f"/versions?name={world.team}/gone&deleted=true")["items"]
    assert (hit["ref"], hit["deleted"], hit["state"]) == (ref, True, "deleted")
    # Hugging Face clients hear it as the one answer that stops them, by number, digest and commit
    # alike.
    headers = {"Authorization": f"Bearer {door.token(world.engineer)}"}
    for revision in (
        "v1",
        f"sha256-{manifest.removeprefix('sha256:')}",
        manifest.removeprefix("sha256:")[:40],
    ):
        for path in (
            f"/{world.team}/gone/resolve/{revision}/adapter_config.json",
            f"/api/models/{world.team}/gone/revision/{revision}",
        ):
            answer = door.client.get(path, headers=headers)
            assert (answer.status_code, answer.headers["x-error-code"]) == (404, "RevisionNotFound")
            assert "deleted" in answer.headers["x-error-message"]
    assert door.refused(world.engineer, "POST", "/discards", order) == (409, "already-deleted")


def test_collections_and_quotas(door: Door, world: World, admin: Person, auditor: Person) -> None:
    lost = door.upload(world.engineer, b"uploaded and forgotten")["sha256"]
    assert door.refused(world.engineer, "GET", "/collections") == (403, "role-missing")
    assert door.refused(world.engineer, "POST", "/collections", {"grace_hours": 0}) == (
        403,
        "role-missing",
    )
    assert lost in door.done(auditor, "GET", "/collections?grace_hours=0")["digests"]
    assert lost not in door.done(auditor, "GET", "/collections")["digests"]
    assert lost in door.done(admin, "POST", "/collections", {"grace_hours": 0})["digests"]
    assert door.refused(world.engineer, "GET", f"/blobs/{lost}") == (404, "blob-unknown")
    team = world.team
    limits = {"team": team, "max_versions": 1, "reason": "A small disk."}
    assert door.refused(world.engineer, "POST", "/quotas", limits) == (403, "role-missing")
    assert door.done(admin, "POST", "/quotas", limits)["max_bytes"] is None
    bundle = adapter_files(door.blobs, 720)
    sent(door.store, world.engineer.actor, *(one.sha256 for one in bundle))
    files = [{"path": one.path, "sha256": one.sha256, "size": one.size} for one in bundle]
    body = {
        "name": f"{team}/more",
        "files": files,
        "base": world.base.ref,
        "domain": "legal",
        "meta": ADAPTER_META,
    }
    refused = door.ask(world.engineer, "POST", "/adapters", body)
    assert (refused.status_code, refused.json()["kind"]) == (409, "quota-exceeded")
    assert refused.json()["facts"]["max_versions"] == 1
    door.done(admin, "POST", "/quotas", {"team": team, "reason": "A larger one."})
    door.done(world.engineer, "POST", "/adapters", body)
    used = door.done(world.engineer, "GET", f"/quotas/{team}")
    assert used["used_versions"] > 1
    assert used in door.done(auditor, "GET", "/quotas")
    assert {one["team"] for one in door.done(world.engineer, "GET", "/quotas")} == {team}
    assert door.refused(world.engineer, "GET", "/quotas/elsewhere") == (404, "unknown")
