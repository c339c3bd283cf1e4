"""Whose bytes are to be named: who has sent them, or may read them; told by an oracle that knows no
SQL, and raced.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import event, text

from registry.artifacts.weights.tensors import File
from registry.blobs.store import Blobs
from registry.commands import blobs as collecting
from registry.commands import datasets, deletions, evals, profiles, recalls, retention, versions
from registry.db import blobs as collected
from registry.db import migrate, senders
from registry.db.store import Store, open_engine
from registry.errors import NotFound, RegistryError, Unverified
from registry.queries import pulls
from registry.rules.actors import SYSTEM, Actor, Grant, Role
from tests.build import (
    ADAPTER_META,
    DATA_META,
    Person,
    World,
    a_base,
    a_person,
    a_world,
    adapter_files,
    dataset_bytes,
    install_classes,
    put,
    register,
    register_rows,
    sent,
)
from tests.commands.test_races import lost, started, together, won
from tests.database import Databases
from tests.db.around import held

AT_ONCE = timedelta(0)
ENGINE = {"engine": "vllm", "build": "0.32.0"}


@dataclass
class Bytes:
    """Some bytes, with all that decides who may name them, as this test has brought it about."""

    digest: str
    senders: set[UUID] = field(default_factory=set)
    # (team, state, maker) of the versions that hold them
    files: list[tuple[str, str, UUID | None]] = field(default_factory=list)
    beside: set[str] = field(default_factory=set)  # teams whose data, prompts or samples they are
    answers: bool = False  # and whether these hold expected answers


def theirs(actor: Actor, found: Bytes) -> bool:
    """The rule, restated: sent by this account, or readable in a team where it may name them."""

    def works(team: str, without: tuple[Role, ...] = (Role.GATEWAY,)) -> bool:
        return any(
            one.role not in without
            and (one.team in (None, team) or one.role in (Role.ADMIN, Role.REVIEWER, Role.AUDITOR))
            for one in actor.grants
        )

    without = (Role.GATEWAY, Role.TRAINER) if found.answers else (Role.GATEWAY,)
    if actor.account in found.senders or any(works(team, without) for team in found.beside):
        return True
    for team, state, maker in found.files:
        drafts = maker == actor.account or any(one.role is Role.REVIEWER for one in actor.grants)
        if works(team) and (state in ("registered", "deprecated") or (state == "draft" and drafts)):
            return True
    return False


def line_of(world: World, kind: str) -> str:
    return f"{world.team}/{kind}-{secrets.token_hex(3)}"


def draft(
    world: World, files: list[File], name: str, meta: dict[str, Any] | None = None
) -> versions.Draft:
    full = {**ADAPTER_META, "domain": "legal"} if meta is None else meta
    return versions.Draft("adapter", name, files, full, world.base.ref)


@pytest.fixture(scope="module")
def two(store: Store, blobs: Blobs) -> list[World]:
    """Two teams, where what was deleted goes at once."""
    made = []
    for _ in range(2):
        team = f"t{secrets.token_hex(4)}"
        retention.assign(store, a_person(store, "admin").actor, team, "short", "for a test")
        made.append(a_world(store, blobs, team))
    return made


def everything(store: Store, blobs: Blobs, two: list[World]) -> list[Bytes]:
    """Bytes in every situation: nobody's, only sent, of each state, data, prompts, samples."""
    found = []
    for world in two:
        maker, me = world.engineer.actor, world.engineer.id
        adapters = {}
        for state in ("registered", "draft", "recalled", "deleted"):
            files = adapter_files(blobs, secrets.randbelow(1 << 30), base=world.base)
            made = register(
                store,
                blobs,
                maker,
                draft(world, files, line_of(world, state), {} if state == "draft" else None),
            )
            if state == "recalled":
                recalls.recall(store, maker, made.ref, "poisoned for use")
            if state == "deleted":
                deletions.delete(store, maker, made.ref, "no longer wanted")
            adapters[state] = made.ref
            found.append(Bytes(files[0].sha256, {me}, [(world.team, state, me)]))
        # With a test split, which suites are made of, and without.
        for others in (dataset_bytes(items=10, train=5), b""):
            own = f'{{"prompt":"{secrets.token_hex(4)}","completion":"a","split":"train"}}\n'
            rows = put(blobs, "rows", others + own.encode())
            name, owner = line_of(world, "rows"), world.data_owner
            register_rows(store, blobs, owner.actor, name, rows.sha256, rows.size, DATA_META)
            data = Bytes(rows.sha256, {owner.id}, beside={world.team}, answers=bool(others))
            found.append(data)
        prompt = put(blobs, "prompt", secrets.token_hex(16).encode()).sha256
        sent(store, maker, prompt)
        profiles.define(
            store,
            blobs,
            maker,
            profiles.ProfileRequest(
                adapters["registered"], ENGINE | {"system_prompt": f"sha256:{prompt}"}
            ),
        )
        found.append(Bytes(prompt, {me}, beside={world.team}))
        with store.read(SYSTEM) as session:
            items = (
                session.execute(
                    text(
                        "select s.blob_id from eval_suite_version s join node n on n.id = s.id "
                        "where n.team = :team"
                    ),
                    {"team": world.team},
                )
                .scalars()
                .all()
            )
        found += [
            Bytes(
                one,
                {me, two[0].engineer.id, two[1].engineer.id},
                beside={each.team for each in two},
                answers=True,
            )
            for one in items
        ]
        found.append(Bytes(put(blobs, "x", secrets.token_bytes(20)).sha256))
    both = adapter_files(blobs, secrets.randbelow(1 << 30))
    shared = Bytes(both[0].sha256)
    for world in two:
        register(store, blobs, world.trainer.actor, draft(world, both, line_of(world, "both")))
        shared.files.append((world.team, "registered", world.trainer.id))
        shared.senders.add(world.trainer.id)
    return [*found, shared]


def crowd(store: Store, two: list[World]) -> list[Actor]:
    """People and services of every role, in either team, in both, and in all."""
    one, other = (world.team for world in two)
    mixed = [
        Actor(a_person(store, "trainer", team=one).id, "both", frozenset(grants), via="test")
        for grants in (
            [Grant(Role.TRAINER, one), Grant(Role.GATEWAY, other)],
            [Grant(Role.TRAINER, one), Grant(Role.TRAINER, other)],
            [Grant(Role.TRAINER, None)],
            [Grant(Role.GATEWAY, None)],
        )
    ]
    alone = [
        a_person(store, role, team=team).actor
        for role in ("engineer", "trainer", "gateway")
        for team in (one, other)
    ]
    across = [
        a_person(store, role, team="elsewhere").actor
        for role in ("admin", "reviewer", "auditor", "engineer")
    ]
    made = [
        getattr(world, who).actor for world in two for who in ("engineer", "data_owner", "trainer")
    ]
    return [*mixed, *alone, *across, *made]


def test_whoever_asks_for_whatever_the_oracle_agrees(
    store: Store, blobs: Blobs, two: list[World]
) -> None:
    """Every actor against all bytes: the query, HEAD's answer and the oracle agree."""
    chance = random.Random(23)
    things, people = everything(store, blobs, two), crowd(store, two)
    for thing in things:
        for actor in people:
            if chance.random() < 0.2:
                assert actor.account is not None
                sent(store, actor, thing.digest)
                thing.senders.add(actor.account)
    never = [secrets.token_hex(32) for _ in range(3)]
    for actor in people:
        mine = {one.digest for one in things if theirs(actor, one)}
        asked = [*(one.digest for one in things), *never]
        with store.read(actor) as session:
            assert senders.strange(session, actor, asked) == set(asked) - mine, actor
        for one in chance.sample(things, 4):
            assert collecting.usable(store, blobs, actor, one.digest) is (one.digest in mine)
        for one in chance.sample(things, 6):
            try:
                pulls.check_bytes(store, actor, one.digest)
            except NotFound:
                continue
            # Reading never says more than naming does, but to gateways, who name nothing.
            assert one.digest in mine or any(
                grant.role is Role.GATEWAY for grant in actor.grants
            ), (actor, one)
        assert set(never).isdisjoint(mine)


def refusal(call: Callable[[], Any]) -> tuple[str, str]:
    with pytest.raises(Unverified) as told:
        call()
    return told.value.kind, told.value.detail


def test_no_command_names_what_is_another_s(store: Store, blobs: Blobs, two: list[World]) -> None:
    """Each of them says of another team's bytes, seen or in flight, what it says of none at all."""
    victim, thief = two
    files = adapter_files(blobs, secrets.randbelow(1 << 30))
    register(store, blobs, victim.engineer.actor, draft(victim, files, line_of(victim, "secret")))
    rows = put(blobs, "rows", dataset_bytes(items=21))
    register_rows(
        store,
        blobs,
        victim.data_owner.actor,
        line_of(victim, "rows"),
        rows.sha256,
        rows.size,
        DATA_META,
    )
    flying = put(blobs, "x", secrets.token_bytes(30))
    sent(store, victim.engineer.actor, flying.sha256)
    own = adapter_files(blobs, secrets.randbelow(1 << 30))
    mine = register(
        store, blobs, thief.engineer.actor, draft(thief, own, line_of(thief, "own"))
    ).ref
    run = evals.queue(store, thief.blobs, thief.engineer.actor, mine, thief.suite)
    who, trainer = thief.engineer.actor, thief.trainer.actor

    def ways(file: File) -> list[Callable[[], Any]]:
        bundle = [File("adapter_model.safetensors", file.sha256, file.size), own[1]]
        return [
            lambda: versions.register(
                store, blobs, who, draft(thief, bundle, line_of(thief, "stolen"))
            ),
            lambda: versions.register(
                store, blobs, who, draft(thief, bundle, mine.partition("@")[0])
            ),
            lambda: versions.register(
                store, blobs, trainer, draft(thief, [bundle[0]], line_of(thief, "stolen"), {})
            ),
            lambda: datasets.register(
                store,
                blobs,
                who,
                datasets.Draft(line_of(thief, "rows"), file.sha256, file.size, DATA_META),
            ),
            lambda: profiles.define(
                store,
                blobs,
                who,
                profiles.ProfileRequest(mine, ENGINE | {"system_prompt": f"sha256:{file.sha256}"}),
            ),
            lambda: evals.finish(
                store,
                blobs,
                trainer,
                run,
                evals.SignedReport(1, {"samples_sha256": file.sha256}, "", ""),
            ),
        ]

    for file in (files[0], rows, flying):
        nowhere = File(file.path, secrets.token_hex(32), file.size)
        for stolen, missing in zip(ways(file), ways(nowhere), strict=True):
            kind, detail = refusal(stolen)
            assert kind == "blob-missing"
            assert (kind, detail.replace(file.sha256, nowhere.sha256)) == refusal(missing)
    with store.read(SYSTEM) as session:
        named = session.execute(
            text("select count(*) from node where ref like :stolen"),
            {"stolen": f"%{thief.team}/stolen%"},
        ).scalar_one()
    assert named == 0


def test_a_draft_is_finished_by_a_colleague_who_sends_its_files(
    store: Store, blobs: Blobs, two: list[World]
) -> None:
    """A draft's bytes are its maker's; who has the folder too sends it, and takes the draft up."""
    world = two[0]
    files = adapter_files(blobs, secrets.randbelow(1 << 30))
    begun = register(
        store, blobs, world.engineer.actor, draft(world, files, line_of(world, "begun"), {})
    )
    name, colleague = (
        begun.ref.partition("@")[0],
        a_person(store, "engineer", team=world.team).actor,
    )
    assert (
        refusal(lambda: versions.register(store, blobs, colleague, draft(world, files, name)))[0]
        == "blob-missing"
    )
    assert register(store, blobs, colleague, draft(world, files, name)).ref == f"{name}@v1"
    third = a_person(store, "trainer", team=world.team).actor
    with store.read(
        third
    ) as session:  # and now that it is registered, all who work in the team read it
        assert senders.strange(session, third, [files[0].sha256]) == set()


def test_sixty_files_are_one_question(store: Store, blobs: Blobs, two: list[World]) -> None:
    world = two[0]
    files = [put(blobs, f"f{number}", secrets.token_bytes(8)) for number in range(60)]
    sent(store, world.engineer.actor, *(one.sha256 for one in files))
    asked: list[str] = []

    def listen(*given: Any) -> None:
        asked.append(given[2])

    event.listen(store.engine, "before_cursor_execute", listen)
    try:
        named = [(one.path, one.sha256, one.size) for one in files]
        senders.must_have(store, blobs, world.engineer.actor, named)
    finally:
        event.remove(store.engine, "before_cursor_execute", listen)
    assert len([one for one in asked if "blob_sender" in one]) == 1


@pytest.fixture(scope="module")
def alone(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A registry of one's own, whose bytes and notes nobody else collects."""
    url = databases.create("senders")
    migrate.upgrade(url)
    store = Store(open_engine(url, "countersign_app"))
    install_classes(store)
    yield a_world(store, Blobs(tmp_path_factory.mktemp("senders")), f"t{secrets.token_hex(4)}")
    store.engine.dispose()
    databases.drop("senders")


def collect(world: World, grace: timedelta = AT_ONCE) -> Any:
    return collecting.collect(world.store, world.blobs, SYSTEM, grace)


def notes(world: World) -> int:
    with world.store.read(SYSTEM) as session:
        return int(session.execute(text("select count(*) from blob_sender")).scalar_one())


def test_what_was_sent_is_remembered_for_the_grace_and_no_longer(alone: World) -> None:
    files = adapter_files(alone.blobs, 1)
    sent(alone.store, alone.engineer.actor, files[0].sha256, files[1].sha256)
    assert collect(alone, timedelta(hours=1)).removed == 0
    assert versions.register(
        alone.store, alone.blobs, alone.engineer.actor, draft(alone, files, f"{alone.team}/kept")
    ).ref
    assert notes(alone) > 0
    collect(alone)
    assert notes(alone) == 0
    # Now the row says whose they are: its team's, and nobody else's.
    stranger = a_person(alone.store, "engineer", team="elsewhere")
    assert collecting.usable(alone.store, alone.blobs, alone.trainer.actor, files[0].sha256)
    assert not collecting.usable(alone.store, alone.blobs, stranger.actor, files[0].sha256)


def test_asking_again_renews_what_was_sent(alone: World) -> None:
    """Asking touches the bytes in the folder; the note of who sent them keeps its age."""
    digest, who = put(alone.blobs, "x", b"sent over a long day").sha256, alone.engineer.actor
    sent(alone.store, who, digest)
    aged = text("update blob_sender set at = at - interval '23 hours' where id = :id")
    with alone.store.upkeep("a day goes by") as session:
        session.execute(aged, {"id": digest})
    assert collecting.usable(alone.store, alone.blobs, who, digest)
    with alone.store.upkeep("forget what is old") as session:
        senders.forget(session, collected.moment(session) - timedelta(hours=2))
    assert collecting.usable(alone.store, alone.blobs, who, digest)


def test_sent_and_collected_and_registered_at_once(alone: World) -> None:
    """Whatever comes first, no row misses a byte, nobody names what he has not sent, and sending
    again always helps.
    """
    stranger = a_person(alone.store, "engineer", team="elsewhere")
    a_base(alone.store, alone.blobs, stranger, "elsewhere", "base")
    for attempt in range(4):
        files = adapter_files(alone.blobs, 100 + attempt)
        name = f"{alone.team}/raced-{attempt}"
        theft = versions.Draft(
            "adapter", f"elsewhere/stolen-{attempt}", files, {}, "elsewhere/base@v1"
        )

        def sending(files: list[File] = files) -> None:
            adapter_files(alone.blobs, 100 + attempt)  # noqa: B023 - called before the next attempt
            sent(alone.store, alone.engineer.actor, *(one.sha256 for one in files))

        outcomes = together(
            sending,
            lambda: collect(alone),
            lambda files=files, name=name: versions.register(
                alone.store, alone.blobs, alone.engineer.actor, draft(alone, files, name)
            ),
            lambda theft=theft: versions.register(alone.store, alone.blobs, stranger.actor, theft),
        )
        assert isinstance(outcomes[3], RegistryError)
        assert outcomes[3].kind == "blob-missing"
        assert lost(outcomes) <= {"blob-missing", "try-again"}
        adapter_files(alone.blobs, 100 + attempt)
        assert (
            register(alone.store, alone.blobs, alone.engineer.actor, draft(alone, files, name)).ref
            == f"{name}@v1"
        )
    with alone.store.read(SYSTEM) as session:
        rows = session.execute(text("select id, size from blob where collected_at is null")).all()
    assert all(alone.blobs.has(row.id) and alone.blobs.size(row.id) == row.size for row in rows)


def test_a_collection_forgets_while_somebody_registers(alone: World) -> None:
    """Registered but not committed; the note goes meanwhile; PostgreSQL asks for it at COMMIT only
    of others' bytes.
    """
    files = adapter_files(alone.blobs, 200)
    with held(alone.store) as database:
        registered = started(
            lambda: register(
                alone.store,
                alone.blobs,
                alone.engineer.actor,
                draft(alone, files, f"{alone.team}/slow"),
            )
        )
        database.until_waiting(1)
        with alone.store.upkeep("forget all") as session:
            senders.forget(session, collected.moment(session))
        database.release()
    assert registered.result(20).status == "registered"


def test_two_teams_send_and_register_the_same_bytes_at_once(alone: World) -> None:
    """Each has sent them: neither is taken for the other's thief, whoever commits first."""
    other = a_person(alone.store, "engineer", team="beside")
    a_base(alone.store, alone.blobs, other, "beside", "base")
    for attempt in range(3):
        files = adapter_files(alone.blobs, 300 + attempt)
        calls: list[Callable[[], Any]] = []
        for who, team, base in (
            (alone.engineer, alone.team, alone.base.ref),
            (other, "beside", "beside/base@v1"),
        ):
            asked = versions.Draft(
                "adapter", f"{team}/twin-{attempt}", files, {**ADAPTER_META, "domain": "x"}, base
            )
            calls.append(
                lambda who=who, asked=asked: register(alone.store, alone.blobs, who.actor, asked)
            )
        assert [one.status for one in won(together(*calls))] == ["registered"] * 2


def test_a_person_named_here(alone: World) -> None:
    """SYSTEM moves nothing between teams and needs no proof; somebody who left a team does."""
    gone = Person(
        Actor(alone.engineer.id, "moved", frozenset({Grant(Role.ENGINEER, "nowhere")}), via="test")
    )
    file = adapter_files(alone.blobs, 400)[0]
    with alone.store.read(SYSTEM) as session:
        assert senders.strange(session, SYSTEM, [file.sha256]) == set()
        assert senders.strange(session, gone.actor, [file.sha256]) == {file.sha256}
