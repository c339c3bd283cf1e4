"""Who may have bytes by their digest: whoever may pull what they belong to, and nobody gets round
that by a digest.
"""

from __future__ import annotations

import hashlib
import secrets

from registry.commands import recalls, versions
from tests.api.conftest import Door
from tests.build import Person, World, a_person, a_world, adapter_files, approved, register


def status(door: Door, who: Person, digest: str) -> int:
    answer = door.ask(who, "GET", f"/blobs/{digest}")
    assert answer.status_code == 200 or answer.json()["kind"] == "blob-unknown", answer.text
    return answer.status_code


def entered(door: Door, *people: Person) -> None:
    for person in people:
        door.token(person)


def test_by_role_team_and_standing(door: Door) -> None:
    world = a_world(door.store, door.blobs, f"t{secrets.token_hex(4)}")
    ref = approved(
        world, seed=88_001
    )  # bytes no other team has: an auditor, who sees every team, may read those
    gateway = a_person(door.store, "gateway", team=world.team)
    stranger = a_person(door.store, "engineer", team=f"t{secrets.token_hex(4)}")
    auditor = a_person(door.store, "auditor")
    entered(door, world.engineer, world.compliance, world.trainer, gateway, stranger, auditor)

    def weights(of: str) -> str:
        files = door.done(world.engineer, "GET", f"/versions/{of}")["files"]
        return next(one["sha256"] for one in files if one["path"].endswith(".safetensors"))

    good, half = weights(ref), weights(world.versions[0])
    assert [
        status(door, one, good)
        for one in (world.engineer, world.compliance, world.trainer, auditor, gateway)
    ] == [200] * 5
    assert status(door, gateway, half) == 404  # nobody approved it
    assert [status(door, stranger, one) for one in (good, half)] == [404, 404]
    recalls.recall(door.store, world.engineer.actor, ref, "poisoned for use")
    told = door.ask(world.engineer, "GET", f"/blobs/{good}").json()
    assert (told["kind"], "poisoned" in told["detail"]) == ("blob-unknown", True)
    assert [status(door, one, good) for one in (world.trainer, auditor, gateway)] == [404] * 3


def test_a_draft_s_bytes_are_its_maker_s_and_the_reviewers(door: Door, world: World) -> None:
    files = adapter_files(door.blobs, 4711)
    draft = register(
        door.store,
        door.blobs,
        world.engineer.actor,
        versions.Draft("adapter", f"{world.team}/unfinished", files, {}, world.base.ref),
    )
    assert draft.status == "draft"
    colleague = a_person(door.store, "engineer", team=world.team)
    entered(door, colleague)
    digest = files[0].sha256
    assert [status(door, one, digest) for one in (world.engineer, world.compliance, colleague)] == [
        200,
        200,
        404,
    ]


def test_data_and_what_nothing_names_yet(door: Door, world: World) -> None:
    gateway, auditor = (
        a_person(door.store, "gateway", team=world.team),
        a_person(door.store, "auditor"),
    )
    entered(door, gateway, auditor)
    rows = world.dataset.digest.removeprefix("sha256:")  # its test split is a suite's answers
    assert [status(door, reader, rows) for reader in (world.trainer, auditor, gateway)] == [
        404,
        200,
        404,
    ]
    unnamed = str(door.upload(world.engineer, secrets.token_bytes(8))["sha256"])
    assert [
        status(door, reader, unnamed)
        for reader in (world.engineer, world.data_owner, auditor, gateway)
    ] == [200] + [404] * 3
    assert status(door, world.engineer, hashlib.sha256(b"never sent").hexdigest()) == 404
