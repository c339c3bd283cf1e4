"""Deprecations in a pack: a real log of them verifies, and what PostgreSQL would have refused is
found by the entries alone.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import pytest
from sqlalchemy import text

from registry.blobs.store import Blobs
from registry.commands import deprecations, recalls, rollouts
from registry.db.store import Store, open_engine
from registry.documents import canonical
from registry.rules.actors import SYSTEM
from tests.build import a_world, approved, install_classes, install_policies
from tests.database import Databases
from tests.proof.judging import KEY, Judge
from tests.proof.packs import Log, members, zipped
from tests.proof.test_keeping import (
    Event,
    Lie,
    changed,
    dropped,
    later,
    moved,
    of,
    without,
)

ACT = "version:deprecate"


@pytest.fixture
def judge(tmp_path: Path) -> Judge:
    return Judge(tmp_path)


@pytest.fixture(scope="module")
def real(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Event]]:
    """Two versions that served when they were deprecated, one as stable and one as canary, which
    was promoted and rolled back; then a data set, and a recall of what was deprecated.
    """
    name = f"old_{secrets.token_hex(4)}"
    url = databases.migrated(name)
    store = Store(open_engine(url, "countersign_app"))
    blobs = Blobs(tmp_path_factory.mktemp("old").as_uri())
    install_policies(store)
    install_classes(store)
    world = a_world(store, blobs, "acme")
    engineer = world.engineer.actor
    first, second = approved(world), approved(world, seed=50)
    for ref in (first, second):
        rollouts.start(store, engineer, rollouts.Canary(ref, "production", None, 500, ""))
        if ref == second:
            deprecations.deprecate(store, engineer, second, "A slip in its data.")
        rollouts.promote(store, engineer, rollouts.Place("acme/adapter", "production", None), "")
        if ref == first:
            deprecations.deprecate(store, engineer, first, "The next one is better.")
    rollouts.roll_back(
        store, engineer, rollouts.Place("acme/adapter", "production", None), "a complaint"
    )
    deprecations.deprecate(store, engineer, f"dataset:{world.dataset.ref}", "Gathered anew.")
    recalls.recall(store, engineer, second, "It is worse than a slip.")
    with store.read(SYSTEM) as session:
        entries = session.scalars(text("select entry from event order by place"))
        yield [json.loads(entry) for entry in entries]
    store.engine.dispose()
    databases.drop(name)


def pack(events: list[Event]) -> bytes:
    """The pack of these entries with their votes."""
    log = Log(entries=[canonical.encode(event) for event in events])
    for row in (row for event in events for row in event["rows"]):
        log.rows[row["table"], row["key"]] = row["row"]
        log.votes += [row["row"]] if row["table"] == "vote" else []
    return zipped(members(log, KEY))


def renamed(events: list[Event]) -> None:
    """A line is called like version 3 of another."""
    for event in events:
        for row in event["rows"]:
            if row["table"] == "line" and row["row"]["name"] == "adapter":
                row["row"]["name"] = "adapter.v3"


def promoted_again(events: list[Event]) -> None:
    """After the rollback, the deprecated version is promoted once more."""
    events.pop(of(events, "version:recall"))
    source = events[of(events, "channel:roll-back")]
    event = {**deepcopy(source), "id": "0" * 8 + source["id"][8:], "action": "rollout:promote"}
    row = next(row for row in event["rows"] if row["row"].get("kind") == "rollback")
    stable = max(
        (
            row["row"]
            for event in events
            for row in event["rows"]
            if row["table"] == "route_generation" and row["row"]["kind"] == "promote"
        ),
        key=lambda promoted: promoted["generation"],
    )["stable_version_id"]
    again = {
        **row["row"],
        "id": "0" * 8 + row["row"]["id"][8:],
        "generation": row["row"]["generation"] + 1,
        "kind": "promote",
        "stable_version_id": stable,
        "valid_from": event["at"],
    }
    event["rows"] = [{"table": "route_generation", "key": again["id"], "op": "put", "row": again}]
    events.append(event)


LIES: dict[str, tuple[Lie, str]] = {
    "a canary after it": (moved(ACT, 1, "rollout:start", 1), "which is deprecated"),
    "promoted again after a rollback": (promoted_again, "which is deprecated"),
    "without a reason": (dropped(ACT, "deprecation"), "without a reason"),
    "a reason alone": (dropped(ACT, "version"), "or leaves it so"),
    "taken back": (later("version", ACT, state="registered"), "from deprecated to registered"),
    "its reason taken away": (later("deprecation", ACT, op="delete"), "deletes deprecation"),
    "its reason changed": (later("deprecation", ACT, reason_commitment="x"), "is frozen of"),
    "in another's name": (changed(ACT, "deprecation", deprecated_by=None), "another's name"),
    "a recall undone": (
        later("version", "version:recall", state="registered"),
        "from recalled to registered",
    ),
    "a line like a version": (renamed, "names a line like a version of another: adapter.v3"),
}


def test_the_real_log_is_valid(judge: Judge, real: list[Event]) -> None:
    assert judge(pack(real))["problems"] == []
    assert [event["action"] for event in real].count(ACT) == 3


def test_an_entry_left_out_spoils_nothing_else(judge: Judge, real: list[Event]) -> None:
    """The lies below are found for their own reason."""
    events = deepcopy(real)
    without(ACT, 2)(events)
    assert judge(pack(events))["problems"] == []


@pytest.mark.parametrize("name", LIES)
def test_an_operator_who_goes_around_a_deprecation_is_found(
    judge: Judge, real: list[Event], name: str
) -> None:
    lie, because = LIES[name]
    events = deepcopy(real)
    lie(events)
    judge.refuses(pack(events), because)
