"""Collections of bytes: what a row needs stays, whatever races or crashes; what nothing needs goes
in the end.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from registry.artifacts.weights.tensors import File
from registry.blobs.store import Blobs
from registry.commands import blobs as collecting
from registry.commands import deletions, holds, quotas, retention, versions
from registry.commands import training_runs as training
from registry.db.store import Store, open_engine
from registry.db.training_runs import TrainingRun
from registry.errors import (
    Forbidden,
    NotFound,
    Refused,
    RegistryError,
    Unavailable,
    Unverified,
)
from registry.queries import pulls
from registry.queries import retention as asked
from registry.queries.folds import rebuild
from registry.rules.actors import SYSTEM
from registry.rules.quotas import Limits
from tests.build import (
    ADAPTER_META,
    RECIPE,
    World,
    a_base,
    a_dataset,
    a_person,
    a_world,
    adapter_files,
    dataset_bytes,
    install_classes,
    install_policies,
    put,
    register,
)
from tests.commands.test_races import in_turn, lost, started, together, won
from tests.database import Databases
from tests.db.around import held
from tests.sampling import sampled

AT_ONCE = timedelta(0)


@pytest.fixture(scope="module")
def alone(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A registry of one's own, whose bytes nobody else puts: a collection looks at all of them."""
    url = databases.migrated("collections")
    store = Store(open_engine(url, "countersign_app"))
    install_policies(store)
    install_classes(store)
    team = f"t{secrets.token_hex(4)}"
    retention.assign(store, a_person(store, "admin").actor, team, "short", "for a test")
    yield a_world(store, Blobs(tmp_path_factory.mktemp("alone")), team)
    store.engine.dispose()
    databases.drop("collections")


def draft(world: World, files: list[File], name: str = "adapter") -> versions.Draft:
    return versions.Draft(
        "adapter",
        f"{world.team}/{name}",
        files,
        {**ADAPTER_META, "domain": "legal"},
        world.base.ref,
    )


def bundle(world: World, seed: int) -> list[File]:
    """Of which every byte is kept: what else would be left of it is the configuration as it
    came.
    """
    return adapter_files(world.blobs, seed, base=world.base)


def add(world: World, seed: int, name: str = "adapter") -> str:
    files = bundle(world, seed)
    return register(world.store, world.blobs, world.engineer.actor, draft(world, files, name)).ref


def delete(world: World, ref: str) -> None:
    deletions.delete(world.store, world.engineer.actor, ref, "no longer wanted")


def collect(world: World, blobs: Blobs | None = None, grace: timedelta = AT_ONCE) -> Any:
    return collecting.collect(world.store, blobs or world.blobs, SYSTEM, grace)


NEEDED = """
select b.id, b.size, b.collected_at from blob b where
    b.id in (select f.blob_id from version_file f
                 left join tombstone t on t.id = f.version_id where t.id is null
             union select d.blob_id from dataset_version d
                 left join tombstone t on t.id = d.id where t.id is null
             union select r.rows_blob_id from training_run r
                 left join tombstone t on t.id = r.dataset_version_id where t.id is null
             union select blob_id from eval_suite_version
             union select prompts_blob_id from eval_suite_version
             union select samples_blob_id from eval_run
             union select system_prompt_id from serving_profile)
"""


def sound(world: World) -> set[str]:
    """No row that needs its bytes misses them; what is needed, by digest."""
    with world.store.read(SYSTEM) as session:
        needed = session.execute(text(NEEDED)).all()
        here = dict(
            session.execute(text("select id, size from blob where collected_at is null")).all()
        )
    assert [row.id for row in needed if row.collected_at is not None] == []
    present = {digest: size for digest, size, _ in world.blobs.published()}
    assert {one: size for one, size in here.items() if present.get(one) != size} == {}
    return {row.id for row in needed}


def clean(world: World) -> None:
    """And after a collection nothing lies there that nothing needs."""
    needed = sound(world)
    assert {digest for digest, _, _ in world.blobs.published()} == needed


def test_only_what_nothing_else_names_goes(alone: World) -> None:
    kept, gone = add(alone, 1), add(alone, 2)  # both name the same adapter_config.json
    weights, config = bundle(alone, 2)
    delete(alone, gone)
    plan = asked.planned(alone.store, alone.blobs, SYSTEM, AT_ONCE)
    assert (plan.dry_run, plan.unnamed, plan.digests, plan.bytes) == (
        True,
        1,
        [weights.sha256],
        weights.size,
    )
    assert alone.blobs.has(weights.sha256)
    assert collect(alone, grace=timedelta(hours=24)).removed == 0
    done = collect(alone)
    assert (done.removed, done.bytes, done.digests) == (1, weights.size, [weights.sha256])
    assert [alone.blobs.has(one.sha256) for one in (weights, config)] == [False, True]
    with alone.store.read(SYSTEM) as session:
        [entry] = session.execute(
            text(
                "select convert_from(entry, 'UTF8')::json from event where action = 'blob:collect' "
                "and outcome = 'done' order by place desc limit 1"
            )
        ).scalars()
    assert entry["facts"] == {
        "blobs": 1,
        "bytes": weights.size,
        "root": collecting.root_of([weights.sha256]),
    }
    assert [row["key"] for row in entry["rows"]] == [weights.sha256]
    assert collect(alone).removed == 0
    with pytest.raises(Unverified) as told:
        register(alone.store, alone.blobs, alone.engineer.actor, draft(alone, [weights, config]))
    assert told.value.kind == "blob-missing"
    assert add(alone, 2) == kept.replace("@v1", "@v3")
    clean(alone)


def test_bytes_nobody_named_go_after_a_grace(alone: World) -> None:
    file = put(alone.blobs, "x", b"uploaded and forgotten")
    assert collect(alone, grace=timedelta(hours=1)).removed == 0
    assert collect(alone).orphans == 1
    assert not alone.blobs.has(file.sha256)
    clean(alone)


class Older(Blobs):
    """The same bytes, said to lie there an hour longer than they do: no test waits for a grace, nor
    races one.
    """

    def published(self) -> Iterator[tuple[str, int, datetime]]:
        for digest, size, moment in super().published():
            yield digest, size, moment - timedelta(hours=1)

    def remove(self, digest: str, unless_since: datetime) -> bool:
        return super().remove(digest, unless_since + timedelta(hours=1))


@pytest.mark.parametrize("how", ["sending", "asking"])
def test_what_an_object_store_was_asked_for_stays(alone: World, how: str) -> None:
    """It notes no touch by itself: that somebody sends or asks protects, and only for the grace."""
    cloud = Older("memory:///")
    asked_for, left = (cloud.put([one]).sha256 for one in (b"asked for again", b"left alone"))
    assert not cloud.notes_use
    sender = alone.engineer.actor
    if how == "sending":
        collecting.sending(alone.store, cloud, sender, asked_for)
    else:
        collecting.sent(alone.store, sender, asked_for)
        collecting.usable(alone.store, cloud, sender, asked_for)
    grace = timedelta(minutes=30)
    assert asked.planned(alone.store, cloud, SYSTEM, grace).digests == [left]
    assert collecting.collect(alone.store, cloud, SYSTEM, grace).digests == [left]
    assert [cloud.has(one) for one in (asked_for, left)] == [True, False]
    assert collecting.collect(alone.store, cloud, SYSTEM, AT_ONCE).digests == [asked_for]


def test_a_hold_keeps_the_bytes_of_what_was_deleted_before(alone: World) -> None:
    ref = add(alone, 10)
    weights, _ = bundle(alone, 10)
    delete(alone, ref)
    hold = holds.place(alone.store, alone.compliance.actor, ref, "Matter 1", "these very bytes")
    assert collect(alone).removed == 0
    holds.lift(alone.store, alone.risk.actor, hold.number, "settled")
    assert collect(alone).digests == [weights.sha256]


def test_the_rows_of_a_training_run_go_with_their_data_set(alone: World) -> None:
    """Not before, and a hold on the data set keeps them too."""
    made = a_dataset(
        alone.store, alone.blobs, alone.engineer, alone.team, "mixed", dataset_bytes(3, 4)
    )
    request = training.TrainingRequest(
        f"{alone.team}/mixed", alone.base.ref, made.ref, RECIPE, "legal", ADAPTER_META
    )
    run = training.queue(alone.store, alone.blobs, alone.engineer.actor, request)
    sound(alone)
    collect(alone)
    with alone.store.read(SYSTEM) as session:
        given = session.get_one(TrainingRun, run).rows_blob_id
    assert alone.blobs.has(given)
    with pytest.raises(Refused) as refusal:
        delete(alone, f"dataset:{made.ref}")
    assert refusal.value.kind == "needed"
    training.cancel(alone.store, alone.engineer.actor, run)
    delete(alone, f"dataset:{made.ref}")
    hold = holds.place(alone.store, alone.compliance.actor, f"dataset:{made.ref}", "Matter 2", "x")
    collect(alone)
    assert alone.blobs.has(given)
    holds.lift(alone.store, alone.risk.actor, hold.number, "settled")
    whole = made.digest.removeprefix("sha256:")
    assert sorted(collect(alone).digests) == sorted([given, whole])
    clean(alone)
    with pytest.raises(NotFound):
        pulls.check_bytes(alone.store, alone.trainer.actor, given)


def test_a_hold_that_is_being_placed_is_waited_for(alone: World) -> None:
    """Placed but not committed, then collected by somebody who cannot see it yet: what the holder
    was told stays true.
    """
    ref = add(alone, 11)
    weights, _ = bundle(alone, 11)
    delete(alone, ref)
    with held(alone.store) as database:
        placed = started(
            lambda: holds.place(
                alone.store, alone.compliance.actor, ref, "Matter 2", "these very bytes"
            )
        )
        database.until_waiting(1)
        collected = started(lambda: collect(alone))
        database.until_waiting(2)
        database.release()
    number = placed.result(20).number
    assert weights.sha256 not in collected.result(20).digests
    assert alone.blobs.has(weights.sha256)
    holds.lift(alone.store, alone.risk.actor, number, "settled")
    assert collect(alone).digests == [weights.sha256]


def test_only_administrators_collect(alone: World) -> None:
    for person in (alone.engineer, alone.compliance):
        with pytest.raises(Forbidden):
            collecting.collect(alone.store, alone.blobs, person.actor, AT_ONCE)
        with pytest.raises(Forbidden):
            asked.planned(alone.store, alone.blobs, person.actor, AT_ONCE)


class Cut(Blobs):
    """The same bytes, until the n-th removal: there the power goes, before or after the object
    went.
    """

    def __init__(self, folder: Path, left: int, *, after: bool) -> None:
        super().__init__(folder)
        self.left, self.after = left, after

    def remove(self, digest: str, unless_since: Any) -> bool:
        if self.left == 0:
            if self.after:
                super().remove(digest, unless_since)
            raise Unavailable("blobs-unreachable", "The power went.", "Try again.")
        self.left -= 1
        return super().remove(digest, unless_since)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("left", [0, 1, 2])
def test_a_collection_cut_short_loses_nothing(alone: World, left: int, after: bool) -> None:
    folder = alone.blobs._folder
    assert folder is not None
    refs = [
        add(alone, 100 + 10 * left + number, f"cut-{left}-{after}".lower()) for number in range(2)
    ]
    for ref in refs:
        delete(alone, ref)
    put(alone.blobs, "x", f"orphan {left} {after}".encode())
    with pytest.raises(Unavailable):
        collect(alone, Cut(folder, left, after=after))
    sound(alone)
    # What was to go may be wanted again at this very moment: it comes back whole, or is uploaded
    # again.
    again = add(alone, 100 + 10 * left, f"cut-{left}-{after}".lower())
    sound(alone)
    collect(alone)
    clean(alone)
    delete(alone, again)
    collect(alone)
    clean(alone)


def test_a_database_that_dies_at_commit_takes_nothing(alone: World) -> None:
    ref = add(alone, 200)
    weights, _ = bundle(alone, 200)
    delete(alone, ref)
    with held(alone.store) as database:
        collected = started(lambda: collect(alone))
        database.until_waiting(1)
        database.cut()
        assert isinstance(collected.result(120), Unavailable)
        database.release()
    sound(alone)
    assert alone.blobs.has(weights.sha256)
    assert collect(alone).removed == 1
    clean(alone)


def test_what_is_being_registered_is_passed_by(alone: World) -> None:
    """Registered but not committed, then collected by somebody who cannot see the row yet."""
    files = bundle(alone, 210)
    with held(alone.store) as database:
        registered = started(
            lambda: register(alone.store, alone.blobs, alone.engineer.actor, draft(alone, files))
        )
        database.until_waiting(1)
        collected = started(lambda: collect(alone))
        assert collected.result(120).removed == 0
        database.release()
    assert registered.result(120).status == "registered"
    clean(alone)


def test_what_is_being_collected_is_waited_for(alone: World) -> None:
    """Marked but not committed, then registered: the registration waits, and finds its bytes or
    asks for them again.
    """
    ref = add(alone, 220)
    delete(alone, ref)
    files = bundle(alone, 220)
    collected, outcome = in_turn(
        alone.store,
        lambda: collect(alone),
        lambda: register(alone.store, alone.blobs, alone.engineer.actor, draft(alone, files)),
    )
    assert not isinstance(collected, RegistryError)
    assert not isinstance(outcome, RegistryError) or outcome.kind == "blob-missing"
    sound(alone)
    collect(alone)
    clean(alone)


def test_register_and_collect_at_once(alone: World) -> None:
    for attempt in range(6):
        files = bundle(alone, 300 + attempt)
        outcomes = together(
            *[
                lambda files=files: register(
                    alone.store, alone.blobs, alone.engineer.actor, draft(alone, files, "raced")
                )
            ]
            * 2,
            *[lambda: collect(alone)] * 2,
        )
        assert lost(outcomes) <= {"blob-missing", "try-again", "name-taken"}
        sound(alone)
        add(alone, 300 + attempt, "raced")
        if attempt % 2:
            delete(alone, f"{alone.team}/raced")
    collect(alone)
    clean(alone)


def test_one_quota_for_many_hands(alone: World) -> None:
    admin = a_person(alone.store, "admin").actor
    team = f"t{secrets.token_hex(4)}"
    engineer = a_person(alone.store, "engineer", team=team)
    quotas.put(alone.store, admin, team, Limits(max_versions=3), "a small team")
    outcomes = together(
        *(
            lambda number=number: a_base(
                alone.store, alone.blobs, engineer, team, f"base-{number}", seed=500 + number
            )
            for number in range(6)
        )
    )
    assert len(won(outcomes)) == 3
    assert lost(outcomes) == {"quota-exceeded"}
    used = asked.quota(alone.store, SYSTEM, team)
    assert (used.used_versions, used.max_versions) == (3, 3)
    quotas.put(alone.store, admin, team, Limits(max_bytes=used.used_bytes), "no more bytes")
    with pytest.raises(RegistryError) as told:
        a_base(alone.store, alone.blobs, engineer, team, "more", seed=600)
    assert told.value.kind == "quota-exceeded"
    assert told.value.facts["max_bytes"] == used.used_bytes
    quotas.put(alone.store, admin, team, Limits(), "enough room")
    a_base(alone.store, alone.blobs, engineer, team, "more", seed=600)
    collect(alone)
    clean(alone)


@pytest.mark.parametrize("seed", sampled(range(2), [0]))
def test_whatever_happens_no_version_misses_a_byte(alone: World, seed: int) -> None:
    """Random histories over few bytes that many versions share."""
    chance = random.Random(seed)
    standing: list[str] = []
    holding: list[int] = []
    deleted: list[str] = []
    name = f"history-{seed}"
    for _ in range(30):
        match chance.choice(
            ["add", "add", "delete", "delete", "hold", "lift", "collect", "orphan"]
        ):
            case "add":
                found = register(
                    alone.store,
                    alone.blobs,
                    alone.engineer.actor,
                    draft(alone, bundle(alone, 700 + chance.randrange(6)), name),
                )
                if found.status == "registered":
                    standing.append(found.ref)
            case "delete" if standing:
                ref = chance.choice(standing)
                try:
                    delete(alone, ref)
                except RegistryError as refusal:
                    # Most of the time nothing is refused.
                    assert refusal.kind == "held"  # noqa: PT017
                    assert holding
                else:
                    standing.remove(ref)
                    deleted.append(ref)
            case "hold" if standing or deleted:
                over = chance.choice(standing + deleted)
                holding.append(
                    holds.place(
                        alone.store, alone.compliance.actor, over, "Matter", "because"
                    ).number
                )
            case "lift" if holding:
                holds.lift(alone.store, alone.risk.actor, holding.pop(), "settled")
            case "orphan":
                put(alone.blobs, "x", chance.randbytes(8))
            case "collect":
                collect(alone)
        sound(alone)
    for number in holding:
        holds.lift(alone.store, alone.risk.actor, number, "the end")
    collect(alone)
    clean(alone)


def test_after_all_that_the_tables_are_what_the_log_says(alone: World) -> None:
    with alone.store.read(SYSTEM) as session:
        assert rebuild(session).problems == []
