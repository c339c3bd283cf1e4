"""Operators who delete what is held, kept or stood upon, around the rules and the database, and
sign the log all the same.

The log is a real one, with deletions as they should be; each lie changes it and is signed with the
right key.
"""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from registry import verifier
from registry.blobs.store import Blobs
from registry.commands import blobs as collecting
from registry.commands import deletions, holds, recalls, retention, versions
from registry.db.store import Store, open_engine
from registry.documents import canonical
from registry.rules.actors import SYSTEM
from tests.build import (
    ADAPTER_META,
    DATA_META,
    a_base,
    a_person,
    a_world,
    adapter_files,
    dataset_bytes,
    install_classes,
    install_policies,
    put,
    register,
    register_rows,
)
from tests.database import Databases
from tests.proof.judging import KEY, Judge
from tests.proof.packs import Log, members, zipped

Event = dict[str, Any]
Lie = Callable[[list[Event]], list[Event] | None]
STRICT = 4  # the registration of acme/strict@v1, which stands
SEAL = "sha256:" + "0" * 64


@pytest.fixture
def judge(tmp_path: Path) -> Judge:
    return Judge(tmp_path)


@pytest.fixture(scope="module")
def real(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Event]]:
    """The entries of a team that held, let go, deleted, recalled, discarded, collected and
    registered again.
    """
    name = f"kept_{secrets.token_hex(4)}"
    url = databases.migrated(name)
    store, blobs = (
        Store(open_engine(url, "countersign_app")),
        Blobs(tmp_path_factory.mktemp("kept").as_uri()),
    )
    install_policies(store)
    install_classes(store)
    admin = a_person(store, "admin").actor
    retention.assign(store, admin, "acme", "technical-10y", "a careful team")
    retention.assign(store, admin, "acme", "short", "no, a team that tries things out")
    world = a_world(store, blobs, "acme")
    engineer = world.engineer.actor

    def add(line: str, seed: int, base: str = world.base.ref, **meta: Any) -> str:
        draft = versions.Draft("adapter", f"acme/{line}", adapter_files(blobs, seed), meta, base)
        return register(store, blobs, engineer, draft).ref

    whole = {**ADAPTER_META, "domain": "legal"}
    other = a_base(store, blobs, world.engineer, "acme", "other", seed=3)
    held = add("held", 1, **whole)
    hold = holds.place(store, world.compliance.actor, "acme/held", "Matter 1", "An order.")
    later = add("held", 2, **whole)
    holds.lift(store, world.risk.actor, hold.number, "Settled.")
    retention.assign(store, engineer, "acme/strict", "medical-6y", "It reads letters.")
    add("strict", 3, **whole)
    for ref in (later, held):
        deletions.delete(store, engineer, ref, "Not wanted.")
    deletions.discard(store, engineer, add("drafts", 4), "A mistake.")
    assert add("drafts", 5) != add(
        "drafts", 5, other.ref, **whole
    )  # a draft that another base completed
    deletions.delete(store, engineer, "acme/drafts@v1", "Not wanted.")
    deletions.delete(store, engineer, other.ref, "Nothing stands on it.")
    fallen = add("fallen", 6, **whole)
    recalls.recall(store, engineer, fallen, "It told a name.")
    deletions.delete(store, engineer, fallen, "And its bytes.")
    file = put(blobs, "rows.jsonl", dataset_bytes(train=7))
    rows = register_rows(
        store, blobs, world.data_owner.actor, "acme/more", file.sha256, file.size, DATA_META
    )
    deletions.delete(store, engineer, f"dataset:{rows.ref}", "Not wanted.")
    collecting.collect(store, blobs, SYSTEM, timedelta(0))
    add("held", 1, **whole)
    with store.read(SYSTEM) as session:
        entries = [
            json.loads(entry)
            for entry in session.scalars(text("select entry from event order by place"))
        ]
    yield entries
    store.engine.dispose()
    databases.drop(name)


def pack(events: list[Event]) -> bytes:
    return zipped(members(Log(entries=[canonical.encode(event) for event in events]), KEY))


def of(events: list[Event], action: str, nth: int = 0) -> int:
    """The place of the nth entry of an act."""
    return [place for place, event in enumerate(events) if event["action"] == action][nth]


def image(event: Event, table: str) -> Event:
    found: Event = next(row["row"] for row in event["rows"] if row["table"] == table)
    return found


def without(action: str, nth: int = 0) -> Lie:
    return lambda events: events.pop(of(events, action, nth)) and None


def changed(action: str, table: str, nth: int = 0, actor: Any = ..., **columns: Any) -> Lie:
    """Set columns of an entry's image, and perhaps who acted; a callable is given the entries."""

    def lie(events: list[Event]) -> None:
        event = events[of(events, action, nth)]
        said = {
            name: value(events) if callable(value) else value for name, value in columns.items()
        }
        image(event, table).update(said)
        if actor is not ...:
            event["actor"] = actor(events) if callable(actor) else actor

    return lie


def moved(action: str, nth: int, before: str, before_nth: int) -> Lie:
    """An entry put before another."""

    def lie(events: list[Event]) -> None:
        event = events.pop(of(events, action, nth))
        events.insert(of(events, before, before_nth), event)

    return lie


def also(*lies: Lie) -> Lie:
    def lie(events: list[Event]) -> None:
        for one in lies:
            one(events)

    return lie


def dropped(action: str, table: str, nth: int = 0) -> Lie:
    def lie(events: list[Event]) -> None:
        event = events[of(events, action, nth)]
        event["rows"] = [row for row in event["rows"] if row["table"] != table]

    return lie


def later(table: str, action: str, nth: int = 0, op: str = "put", **columns: Any) -> Lie:
    """At the end of the log, an entry that changes (or takes away) the row that another left."""

    def lie(events: list[Event]) -> None:
        source = events[of(events, action, nth)]
        row = {**image(source, table), **columns}
        change = {"table": table, "key": row["id"], "op": op, "row": row if op == "put" else None}
        events.append({**deepcopy(source), "id": "0" * 8 + source["id"][8:], "rows": [change]})

    return lie


def placer(events: list[Event]) -> Any:
    return events[of(events, "hold:place")]["actor"]


def an_engineer(events: list[Event]) -> Any:
    return events[of(events, "version:register")]["actor"]


def collected(events: list[Event]) -> None:
    """Bytes of a version that stands are collected."""
    stands = image(events[of(events, "version:register", STRICT)], "version_file")["blob_id"]
    row = next(row for row in events[of(events, "blob:collect")]["rows"] if row["table"] == "blob")
    row["key"] = row["row"]["id"] = stands


LIES: dict[str, tuple[Lie, str]] = {
    "deleted while on hold": (without("hold:lift"), "while legal hold [1] covers it"),
    "deleted before the hold was lifted": (
        moved("version:delete", 0, "hold:lift", 0),
        "while legal hold [1] covers it",
    ),
    "of a held line, added later": (
        also(moved("version:delete", 0, "hold:lift", 0), without("version:delete", 1)),
        "while legal hold [1] covers it",
    ),
    "lifted by the placer": (
        changed("hold:lift", "legal_hold", lifted_by=placer, actor=placer),
        "by the person who placed it",
    ),
    "lifted in another's name": (
        changed("hold:lift", "legal_hold", actor=placer),
        "lifts hold 1 in another's name",
    ),
    "lifted by an engineer": (
        changed("hold:lift", "legal_hold", lifted_by=an_engineer, actor=an_engineer),
        "by no reviewer",
    ),
    "placed in another's name": (
        changed("hold:place", "legal_hold", actor=None),
        "places hold 1 in another's name",
    ),
    "hold moved to another line": (
        changed("hold:lift", "legal_hold", line_id=None, node_id=SEAL),
        "what is frozen of legal_hold",
    ),
    "hold taken away": (later("legal_hold", "hold:place", op="delete"), "deletes legal_hold"),
    "deleted before its time": (
        also(without("retention:assign", 1), without("retention:assign", 1)),
        "the end of its retention",
    ),
    "no class at all": (
        also(without("retention:assign"), without("retention:assign")),
        "the end of its retention",
    ),
    "shortened by an engineer": (
        changed("retention:assign", "retention_setting", 1, set_by=an_engineer, actor=an_engineer),
        "by no administrator",
    ),
    "set in another's name": (
        changed("retention:assign", "retention_setting", 1, set_by=an_engineer),
        "in another's name or time",
    ),
    "set in the past": (
        changed("retention:assign", "retention_setting", 1, set_at="2020-01-01T00:00:00.000000Z"),
        "name or time",
    ),
    "class changed later": (
        later("retention_class", "retention:define", keep_days=9999),
        "frozen of retention_class",
    ),
    "setting changed later": (
        later("retention_setting", "retention:assign", team="x"),
        "frozen of retention_setting",
    ),
    "registered long ago": (
        changed("version:register", "version", registered_at="2000-01-01T00:00:00.000000Z"),
        "a time not its own",
    ),
    "born long ago": (
        changed("version:register", "version", created_at="2000-01-01T00:00:00.000000Z"),
        "a time not its own",
    ),
    "called a discarded draft": (
        changed("version:delete", "tombstone", how="discarded"),
        "a tombstone that does not match",
    ),
    "said to have been a draft": (
        changed("version:delete", "tombstone", how="discarded", was="draft"),
        "a tombstone that does not match",
    ),
    "tombstone of another time": (
        changed("version:delete", "tombstone", at="2040-01-01T00:00:00.000000Z"),
        "a tombstone that does not match",
    ),
    "deleted in silence": (dropped("version:delete", "tombstone"), "without its tombstone"),
    "a tombstone over what stands": (
        dropped("version:delete", "version"),
        "without a change of its state",
    ),
    "base deleted beneath": (moved("version:delete", 3, "version:delete", 2), "derives from it"),
    "tombstone taken back": (
        later("tombstone", "version:delete", op="delete"),
        "deletes tombstone",
    ),
    "tombstone changed": (
        later("tombstone", "version:delete", was="deprecated"),
        "frozen of tombstone",
    ),
    "revived": (later("version", "version:delete", state="registered"), "without its tombstone"),
    "a version's file taken away": (
        later("version_file", "version:register", STRICT, op="delete"),
        "removes ",
    ),
    "bytes of what stands": (collected, "which are under a hold or not deleted"),
}


def test_the_real_log_is_valid(judge: Judge, real: list[Event]) -> None:
    assert judge(pack(real))["problems"] == []
    acts = [event["action"] for event in real]
    assert (acts.count("version:delete"), acts.count("blob:collect")) == (6, 1)


def test_one_copied_file_judges_deletions(judge: Judge, real: list[Event], tmp_path: Path) -> None:
    """Away from the repository and in isolated mode, the file accepts the log and refuses a lie."""
    copy = shutil.copy(verifier.__file__, tmp_path / "check.py")

    def run(entries: list[Event]) -> tuple[int, str]:
        (tmp_path / "one.zip").write_bytes(pack(entries))
        command = [sys.executable, "-I", copy, tmp_path / "one.zip", "--key", judge.key, "--json"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.stderr == ""
        return done.returncode, " ".join(json.loads(done.stdout)["problems"])

    assert run(real) == (0, "")
    lie, because = LIES["deleted while on hold"]
    events = deepcopy(real)
    lie(events)
    code, problems = run(events)
    assert code == 8
    assert because in problems


@pytest.mark.parametrize("name", LIES)
def test_an_operator_who_deletes_what_must_stay_is_found(
    judge: Judge, real: list[Event], name: str
) -> None:
    lie, because = LIES[name]
    events = deepcopy(real)
    lie(events)
    judge.refuses(pack(events), because)
