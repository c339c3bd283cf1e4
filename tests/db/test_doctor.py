"""`countersign doctor` after the whole main job: all is well, and whatever was changed behind the
log's back is named.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from registry.blobs.store import Blobs
from registry.commands import blobs as collecting
from registry.commands import (
    deletions,
    deprecations,
    holds,
    profiles,
    quotas,
    recalls,
    retention,
    reviews,
    rollouts,
    tags,
    tokens,
    versions,
    work,
)
from registry.commands import training_runs as training
from registry.db.store import Store, open_engine
from registry.errors import Refused
from registry.proof import notes
from registry.proof.keys import SigningKey
from registry.queries import doctor
from registry.rules.actors import SYSTEM
from registry.rules.quotas import Limits
from registry.sequencer import Sequencer, Witness
from tests.build import (
    ADAPTER_META,
    RECIPE,
    World,
    a_person,
    a_world,
    adapter_files,
    approved,
    evaluate,
    register,
    submit,
    train,
    vote,
)

ORIGIN = "countersign.local/doctor"
IDENTITIES = ('"id"', '"seq"', '"number"', '"place"')


class Patient:
    """A registry with a whole main job in it, its log signed, its blobs in a folder of their
    own.
    """

    def __init__(self, store: Store, url: str, folder: Path) -> None:
        self.store, self.url, self.folder = store, url, folder
        self.blobs = Blobs((folder / "blobs").as_uri())
        self.key = SigningKey.generate()
        self.engine = open_engine(url, "countersign_sequencer")
        self.world = job(store, self.blobs)
        Sequencer(Store(self.engine), self.key, ORIGIN, Witness(folder / "heads")).step()

    def report(self) -> dict[str, Any]:
        return doctor.report(self.store, self.blobs, notes.verifier_key(ORIGIN, self.key.public))

    def tamper(self, table: str, statement: str) -> list[str]:
        """Change a table as its owner with the triggers off, look what the doctor says, and change
        it back.
        """
        engine = create_engine(self.url)
        with engine.begin() as connection:
            connection.execute(text(f"alter table {table} disable trigger user"))
            connection.execute(text(f"create table kept as table {table}"))
            connection.execute(text(statement))
        try:
            problems: list[str] = self.report()["problems"]
        finally:
            with engine.begin() as connection:
                named = ", ".join(
                    f'"{name}"'
                    for (name,) in connection.execute(
                        text(
                            "select column_name from information_schema.columns where "
                            "table_schema = 'public' "
                            f"and table_name = '{table}' order by ordinal_position"
                        )
                    )
                )
                connection.execute(
                    text(
                        f"delete from {table} t where not exists (select from kept k where k.id = "
                        "t.id)"
                    )
                )
                connection.execute(
                    text(
                        f"insert into {table} ({named}) overriding system value select {named} "
                        "from kept on conflict do nothing"
                    )
                )
                sets = ", ".join(
                    f"{one} = k.{one}" for one in named.split(", ") if one not in IDENTITIES
                )
                connection.execute(
                    text(f"update {table} t set {sets} from kept k where k.id = t.id")
                )
                connection.execute(text("drop table kept"))
                connection.execute(text(f"alter table {table} enable trigger user"))
            engine.dispose()
        return problems


def job(store: Store, blobs: Blobs) -> World:
    """All that the main job does, its refusals and failures with it."""
    world = a_world(store, blobs, "whole")
    engineer, name = world.engineer.actor, "whole/adapter"
    ref = approved(world)
    tags.put(store, engineer, ref, "origin", "first")
    tags.put(store, engineer, ref, "origin", None)
    profiles.define(
        store, blobs, engineer, profiles.ProfileRequest(ref, {"engine": "vllm", "build": "0.32.0"})
    )
    with pytest.raises(Refused):
        vote(world, world.engineer)
    rollouts.start(store, engineer, rollouts.Canary(ref, "production", None, 500, ""))
    rollouts.promote(store, engineer, rollouts.Place(name, "production", None), "")
    rollouts.roll_back(store, engineer, rollouts.Place(name, "production", None), "a complaint")
    rollouts.promote(store, engineer, rollouts.Place(name, "production", None), "a false alarm")
    recalls.recall(store, engineer, world.versions[0], "half-trained")
    deprecations.deprecate(store, engineer, ref, "a better one is trained")
    train(world, seed=50)
    evaluate(world, world.versions[-1], 50)
    submit(world, world.versions[-1])
    reviews.withdraw(store, engineer, world.review, "we think again")
    evaluate(world, world.versions[-2], 1)
    submit(world, world.versions[-2])
    assert vote(world, world.compliance, "reject") == "rejected"
    trainer = world.trainer.actor
    for end in ("requeue", "fail", "cancel"):
        run = training.queue(
            store,
            world.blobs,
            engineer,
            training.TrainingRequest(
                name, world.base.ref, world.dataset.ref, RECIPE, "legal", ADAPTER_META
            ),
        )
        taken = work.lease(store, trainer, work.Worker("w"), 60)
        assert taken == (run, 1)
        work.beat(store, trainer, run, work.Heartbeat(1, {"step": 1}, 60))
        if end == "requeue":
            work.requeue(store, trainer, run, 1, "drained")
            assert work.lease(store, trainer, work.Worker("w"), 60) == (run, 2)
            work.fail(store, trainer, run, 2, "no memory")
        elif end == "fail":
            work.fail(store, trainer, run, 1, "no memory")
        else:
            training.cancel(store, engineer, run)
            assert work.beat(store, trainer, run, work.Heartbeat(1, {}, 60)) is True
    run = training.queue(
        store,
        world.blobs,
        engineer,
        training.TrainingRequest(
            name, world.base.ref, world.dataset.ref, RECIPE, "legal", ADAPTER_META
        ),
    )
    assert work.lease(store, trainer, work.Worker("w"), -1) == (run, 1)
    assert (work.requeue_lost(store), work.requeue_lost(store)) == (1, 0)
    training.cancel(store, engineer, run)
    token = tokens.create(
        store, SYSTEM, tokens.TokenRequest(engineer.name, ["engineer"], "whole", 1)
    )
    tokens.revoke(store, SYSTEM, token.id)
    assert reviews.expire(store) == 0
    a_person(store, "auditor")
    let_go(store, blobs, world)
    return world


def let_go(store: Store, blobs: Blobs, world: World) -> None:
    """Classes, a hold, a quota, a deletion, a discard and the collection of what they leave."""
    admin = a_person(store, "admin").actor
    retention.assign(store, admin, "whole/gone", "short", "to be tried out")
    quotas.put(store, admin, "whole", Limits(10**9, 1000), "enough")
    for number, meta in enumerate(({**ADAPTER_META, "domain": "legal"}, {})):
        draft = versions.Draft(
            "adapter", "whole/gone", adapter_files(blobs, 900 + number), meta, world.base.ref
        )
        ref = register(store, blobs, world.engineer.actor, draft).ref
        if meta:
            hold = holds.place(store, world.compliance.actor, ref, "Matter 1", "an order")
            holds.lift(store, world.risk.actor, hold.number, "settled")
            deletions.delete(store, world.engineer.actor, ref, "nobody wants it")
        else:
            deletions.discard(store, world.engineer.actor, ref, "a mistake")
    assert deletions.expire_drafts(store) == 0
    assert collecting.collect(store, blobs, SYSTEM, timedelta(0)).unnamed == 2


@pytest.fixture(scope="module")
def patient(databases: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Patient]:
    from tests.build import install_classes, install_policies

    url = databases.migrated("patient")
    store = Store(open_engine(url, "countersign_app"))
    install_policies(store)
    install_classes(store)
    opened = Patient(store, url, tmp_path_factory.mktemp("patient"))
    yield opened
    opened.engine.dispose()
    store.engine.dispose()
    databases.drop("patient")


def test_after_the_whole_main_job_all_is_well(patient: Patient) -> None:
    report = patient.report()
    assert report["problems"] == []
    assert report["ok"]
    assert report["events"] == report["tree_size"] > 60
    assert min(report["rows"].values()) > 0, "the main job touches every governed table"


SICK = {
    "a changed cell": (
        "version",
        "update version set tensor_root = manifest_digest where number = 2 and tensor_root "
        "<> manifest_digest",
        "version ",
        "tensor_root: log",
    ),
    "a changed name": (
        "line",
        "update line set domain = 'medical' where domain = 'legal'",
        "line ",
        "domain: log 'legal'",
    ),
    "a changed verdict": (
        "review",
        "update review set verdict = '{\"outcome\": \"pass\"}' where state = 'rejected'",
        "review ",
        "verdict: log",
    ),
    "a changed share": (
        "route_generation",
        "update route_generation set weight_bp = 501 where weight_bp = 500",
        "route_generation ",
        "weight_bp: log 500, table 501",
    ),
    "an extra row": (
        "role_grant",
        "insert into role_grant values (gen_random_uuid(), (select id from account limit 1), "
        "'admin', 'whole', now())",
        "role_grant ",
        "the table has it, the log does not",
    ),
    "a missing row": (
        "eval_metric",
        "delete from eval_metric where id = (select id from eval_metric limit 1)",
        "eval_metric ",
        "the log has it, the table does not",
    ),
    "a changed event": (
        "event",
        "update event set subject = 'nobody' where place = 4",
        "event ",
        "its column subject differs",
    ),
}


@pytest.mark.parametrize("what", SICK)
def test_what_changed_behind_the_log_is_named(patient: Patient, what: str) -> None:
    table, statement, begins, told = SICK[what]
    problems = patient.tamper(table, statement)
    assert problems
    assert all(one.startswith(begins) for one in problems), problems
    assert any(told in one for one in problems), problems
    assert patient.report()["ok"], "the change was taken back"


def test_bytes_that_are_gone_or_cut_are_named(patient: Patient) -> None:
    with patient.store.read(SYSTEM) as session:
        digest = session.execute(
            text("select id from blob order by size desc limit 1")
        ).scalar_one()
    [path] = (patient.folder / "blobs").rglob(digest)
    kept = path.read_bytes()
    path.unlink()
    assert patient.report()["problems"] == [f"blob {digest} is missing"]
    path.write_bytes(kept[:-1])
    assert patient.report()["problems"] == [f"blob {digest} is of another size"]
    path.write_bytes(kept)
    assert patient.report()["ok"]


def test_erasure_of_personal_text_breaks_no_proof(patient: Patient) -> None:
    with patient.store.upkeep("erase") as session:
        session.execute(text("delete from personal where kind = 'reason'"))
    assert patient.report()["ok"]
