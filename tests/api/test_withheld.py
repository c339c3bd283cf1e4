"""What a legal hold is for, and what a team may use, by role and field: over every route, page and
door that answers GET.
"""

from __future__ import annotations

import io
import re
import zipfile

import httpx
import pytest

from registry.api import hub
from registry.web import accounts, audit, profiles, retention, reviews, rollouts, search, versions
from tests.api.conftest import Door
from tests.api.test_retention import an_adapter
from tests.build import Person, World, a_person
from tests.sampling import sampled

SECRETS = ("Matter Amber-7", "Because Beryl-8", "Lifted Coral-9")
FIELDS = ("case", "reason", "lift_reason")
# Role -> does it read: that a hold stands, its case and reasons, the team's quota.
READS = {
    "admin": (True, True, True),
    "reviewer": (True, True, True),
    "auditor": (True, True, True),
    "engineer": (True, False, True),
    "trainer": (False, False, False),
    "gateway": (False, False, False),
}


@pytest.fixture(scope="module")
def held(door: Door, world: World, admin: Person) -> tuple[str, int, int]:
    """A held adapter: its ref, the hold that stands and the one that was lifted; its team under a
    quota.
    """
    ref = an_adapter(door, world, "withheld", 790)
    order = {"over": ref, "case": SECRETS[0], "reason": SECRETS[1]}
    stands, lifted = (
        door.done(world.compliance, "POST", "/holds", order)["number"] for _ in range(2)
    )
    door.done(world.risk, "POST", f"/holds/{lifted}/lift", {"reason": SECRETS[2]})
    door.done(
        admin,
        "POST",
        "/quotas",
        {"team": world.team, "max_versions": 4242, "reason": "Half the disk."},
    )
    door.sequence()
    return ref, stands, lifted


def somebody(door: Door, world: World, role: str) -> Person:
    return a_person(door.store, role, team=world.team, signs=False)


@pytest.mark.parametrize("role", READS)
def test_each_role_reads_exactly_its_fields(
    door: Door, world: World, held: tuple[str, int, int], role: str
) -> None:
    ref, stands, lifted = held
    person = somebody(door, world, role)
    existence, case, quota = READS[role]
    quotas = door.ask(person, "GET", f"/quotas/{world.team}")
    assert (quotas.status_code == 200, door.ask(person, "GET", "/quotas").status_code == 200) == (
        quota,
        quota,
    )
    if not existence:
        for path in (
            "/holds",
            f"/holds?over={ref}",
            f"/keeping/{ref}",
            "/retention/due",
            "/quotas",
        ):
            assert door.refused(person, "GET", path) == (403, "role-missing"), path
        return
    assert quotas.json()["max_versions"] == 4242
    assert door.done(person, "GET", f"/keeping/{ref}")["holds"] == [stands]
    for path in (f"/holds?over={ref}", "/holds?standing=false"):
        found = {one["number"]: one for one in door.done(person, "GET", path)["items"]}
        one = found[stands]
        assert (one["over"], one["withheld"]) == (ref, not case)
        assert one["placed_by"] == world.compliance.actor.name
        assert [one[field] for field in FIELDS] == ([*SECRETS[:2], None] if case else [None] * 3)
    assert [found[lifted][field] for field in FIELDS] == (list(SECRETS) if case else [None] * 3)
    assert found[lifted]["lifted_by"] == world.risk.actor.name


def places(door: Door, world: World, ref: str) -> set[str]:
    """The address of every route, page and hub path that answers GET, filled with what there is to
    see.
    """
    line, _, number = ref.partition("@v")
    team, name = line.split("/")
    values = {
        "ref": ref,
        "name": name,
        "number": number,
        "team": team,
        "suite": world.suite,
        "revision": f"v{number}",
        "environment": "production",
        "channel": "production",
        "path": "adapter_config.json",
        "kind": "adapter",
    }
    spelt = {f"{path}" for path, methods in door.app.openapi()["paths"].items() if "get" in methods}
    rooms = (
        hub.files,
        hub.models,
        accounts,
        audit,
        profiles,
        retention,
        reviews,
        rollouts,
        search,
        versions,
    )
    spelt |= {
        route.path
        for room in rooms
        for route in room.router.routes
        if "GET" in getattr(route, "methods", ())
    }
    return {
        re.sub(r"\{(\w+)(:\w+)?\}", lambda key: values.get(key[1], "1"), path) for path in spelt
    }


@pytest.mark.parametrize("role", sampled(["engineer", "trainer", "gateway"], ["gateway"]))
def test_no_door_tells_the_case_to_who_is_not_to_know(
    door: Door, world: World, held: tuple[str, int, int], role: str
) -> None:
    ref, person = held[0], somebody(door, world, role)
    routes = places(door, world, ref)
    assert len(routes) > 70, sorted(routes)
    log = "audit/events?action=hold%3Aplace"
    searches = {
        f"/api/v1/holds?over={ref}",
        "/api/v1/holds?standing=false",
        "/retention?all=1",
        f"/retention?over={ref}",
        "/audit?action=hold%3Aplace",
        f"/api/v1/{log}",
        "/api/v1/audit/events",
    }
    seen = ""
    with httpx.Client(base_url=door.url, timeout=30) as browser:
        browser.post("/login", data={"token": door.token(person)})
        for path in sorted(routes | searches):
            headers = (
                {}
                if path.startswith(("/retention", "/audit"))
                else {"Authorization": f"Bearer {door.token(person)}"}
            )
            for answer in (browser.get(path, headers=headers), browser.get(path)):
                assert answer.status_code < 500 or answer.status_code == 503, (path, answer.text)
                assert not [one for one in SECRETS if one in answer.text], path
                seen += answer.text
        refused = door.ask(world.engineer, "POST", "/deletions", {"ref": ref, "reason": "tidy"})
    assert (refused.json()["kind"], refused.json()["facts"]["holds"]) == ("held", [held[1]])
    assert not [one for one in SECRETS if one in refused.text]
    # The sweep does look where they would be: an engineer sees the hold itself, a service not even
    # that, nor the quota.
    told = [one in seen for one in (f'"subject":"hold:{held[1]}"', '"max_versions":4242')]
    assert told == ([True, True] if role == "engineer" else [False, False])


def test_the_exported_log_holds_commitments_only(
    door: Door, world: World, held: tuple[str, int, int]
) -> None:
    assert door.refused(world.engineer, "GET", "/audit/export") == (403, "role-missing")
    with zipfile.ZipFile(
        io.BytesIO(door.ask(world.compliance, "GET", "/audit/export").content)
    ) as pack:
        events = pack.read("events.jsonl").decode()
    assert f'"hold:{held[1]}"' in events
    assert not [one for one in SECRETS if one in events]
    assert "case_commitment" in events
