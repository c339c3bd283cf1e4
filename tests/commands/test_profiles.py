"""Profiles through command, query and the guards of PostgreSQL that stand around the rule."""

from __future__ import annotations

import json
from functools import partial
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import text

from registry.blobs.store import Blobs
from registry.commands import profiles, recalls, versions
from registry.db import versions as table
from registry.db.store import Store
from registry.errors import Forbidden, Invalid, NotFound, Refused, Unverified
from registry.queries import profiles as asked
from registry.rules.actors import SYSTEM
from registry.views.profiles import DefinedView
from tests.build import (
    ADAPTER_META,
    Person,
    a_base,
    a_person,
    a_world,
    adapter_files,
    put,
    register,
    sent,
    train,
)
from tests.commands.test_races import together
from tests.db.around import as_owner, plain_url, refused

PARTS: dict[str, Any] = {"engine": "vllm", "build": "0.32.0"}


def an_adapter(store: Store, blobs: Blobs, team: str) -> tuple[Person, str]:
    """A registered adapter, and the engineer who asked for it."""
    world = a_world(store, blobs, team)
    train(world)
    return world.engineer, world.versions[-1]


def a_draft(store: Store, blobs: Blobs, engineer: Person, team: str) -> str:
    """An adapter nobody trained here, which therefore still lacks facts."""
    base = a_base(store, blobs, engineer, team)
    draft = versions.Draft(
        "adapter", f"{team}/lacking", adapter_files(blobs, 77), ADAPTER_META, base.ref
    )
    added = register(store, blobs, engineer.actor, draft)
    assert added.status == "draft"
    return added.ref


def refusals(store: Store, subject: str) -> int:
    with store.read(SYSTEM) as session:
        statement = text(
            "select count(*) from event where action = 'profile:define' and outcome = 'refused' "
            "and subject = :subject"
        )
        return int(session.execute(statement, {"subject": subject}).scalar_one())


def test_defined_found_and_shown(store: Store, blobs: Blobs, team: str) -> None:
    engineer, ref = an_adapter(store, blobs, team)
    prompt = put(blobs, "prompt", b"You answer in one word.")
    sent(store, engineer.actor, prompt.sha256)
    parts = PARTS | {"system_prompt": f"sha256:{prompt.sha256}", "decoding": {"temperature": 0}}
    made = profiles.define(store, blobs, engineer.actor, profiles.ProfileRequest(ref, parts))
    again = profiles.define(
        store, blobs, engineer.actor, profiles.ProfileRequest(ref, dict(reversed(parts.items())))
    )
    assert (made.status, again.status, again.id) == ("defined", "found", made.id)
    assert (
        profiles.define(store, blobs, engineer.actor, profiles.ProfileRequest(ref, PARTS)).status
        == "defined"
    )
    shown = asked.profile(store, engineer.actor, made.digest)
    assert shown == asked.profile(store, engineer.actor, str(made.id))
    assert shown.version == ref
    assert len(asked.profiles(store, engineer.actor, ref)) == 2
    assert [one.engine for one in asked.engines(store, engineer.actor, ref)] == [
        "vllm",
        "sglang",
        "tgi",
        "transformers",
    ]


def test_refusals(store: Store, blobs: Blobs, team: str) -> None:
    engineer, ref = an_adapter(store, blobs, team)
    with pytest.raises(Unverified, match="system prompt"):
        profiles.define(
            store,
            blobs,
            engineer.actor,
            profiles.ProfileRequest(ref, PARTS | {"system_prompt": "sha256:" + "0" * 64}),
        )
    with pytest.raises(NotFound):
        profiles.define(
            store,
            blobs,
            a_person(store, "engineer", team="elsewhere").actor,
            profiles.ProfileRequest(ref, PARTS),
        )
    with pytest.raises(Forbidden):
        profiles.define(
            store,
            blobs,
            a_person(store, "reviewer", team=team).actor,
            profiles.ProfileRequest(ref, PARTS),
        )
    with pytest.raises(Refused, match="verified"):
        profiles.define(store, blobs, engineer.actor, profiles.ProfileRequest(ref, PARTS, ref))
    with pytest.raises(Refused, match="draft"):
        profiles.define(
            store,
            blobs,
            engineer.actor,
            profiles.ProfileRequest(a_draft(store, blobs, engineer, team), PARTS),
        )
    assert refusals(store, ref) == 1
    recalls.recall(store, engineer.actor, ref, "unfit for use")
    with pytest.raises(Refused, match="recalled"):
        profiles.define(store, blobs, engineer.actor, profiles.ProfileRequest(ref, PARTS))
    assert refusals(store, ref) == 2


def test_two_at_once_give_one_row(store: Store, blobs: Blobs, team: str) -> None:
    engineer, ref = an_adapter(store, blobs, team)
    request = profiles.ProfileRequest(ref, PARTS)
    call = partial(profiles.define, store, blobs, engineer.actor, request)
    outcomes: list[DefinedView] = together(call, call)
    assert sorted(one.status for one in outcomes) == ["defined", "found"]
    assert len(asked.profiles(store, engineer.actor, ref)) == 1


def test_postgresql_says_it_too(store: Store, blobs: Blobs, team: str) -> None:
    engineer, ref = an_adapter(store, blobs, team)
    made = profiles.define(store, blobs, engineer.actor, profiles.ProfileRequest(ref, PARTS))
    key = ("serving_profile", made.id)
    where = {"id": made.id}
    frozen = "update serving_profile set digest = 'sha256:' || repeat('0', 64) where id = %(id)s"
    # The app has no right to change or delete at all; the owner meets the triggers.
    assert refused(store, frozen, where, key)[0] == "42501"
    assert refused(store, frozen, where, key, as_who=as_owner)[0] == "CS003"
    assert (
        refused(
            store, "delete from serving_profile where id = %(id)s", where, key, as_who=as_owner
        )[0]
        == "CS003"
    )
    with store.read(SYSTEM) as session:
        version = table.by_ref(session, ref)[0]
    insert = (
        "insert into serving_profile (id, version_id, base_version_id, engine, digest, document, "
        "created_at) "
        "values (%(id)s, %(version)s, %(base)s, 'vllm', 'sha256:' || repeat('1', 64), "
        "%(document)s, now())"
    )
    row = {
        "id": uuid4(),
        "version": version.id,
        "base": None,
        "document": json.dumps({"engine": "vllm"}),
    }
    assert refused(store, insert, row, ("serving_profile", row["id"]))[0] == "CS004"
    row |= {"base": version.base_version_id, "document": json.dumps({"engine": "tgi"})}
    assert (
        refused(store, insert, row, ("serving_profile", row["id"]))[0]
        == "ck_serving_profile_document"
    )
    recalls.recall(store, engineer.actor, ref, "unfit for use")
    row |= {"document": json.dumps({"engine": "vllm"})}
    assert refused(store, insert, row, ("serving_profile", row["id"]))[0] == "CS004"


def a_quantisation(store: Store, base: str, ref: str, grade: str) -> None:
    """A descent as another room will record it: the edge itself, its guards off for the moment it
    is written.
    """
    with psycopg.connect(plain_url(store)) as connection:
        connection.execute("alter table lineage_edge disable trigger user")
        connection.execute(
            "insert into lineage_edge (id, child_id, child_seq, parent_id, parent_seq, relation, "
            "grade, created_at) "
            "select gen_random_uuid(), c.id, c.seq, p.id, p.seq, 'quantised_from', %s, now() from "
            "node c, node p "
            "where c.ref = %s and p.ref = %s",
            (grade, ref, base),
        )
        connection.execute("alter table lineage_edge enable trigger user")


def test_a_base_is_the_own_one_or_a_verified_quantisation_of_it(
    fresh_store: Store, blobs: Blobs, team: str
) -> None:
    engineer, ref = an_adapter(fresh_store, blobs, team)
    own = f"{team}/tiny@v1"
    claimed, verified, stranger = (
        a_base(fresh_store, blobs, engineer, team, name, seed=seed).ref
        for seed, name in enumerate(("claimed", "verified", "stranger"), 5)
    )
    a_quantisation(fresh_store, own, claimed, "claimed")
    a_quantisation(fresh_store, own, verified, "verified")
    parts = {"engine": "transformers", "build": "5.23.0"}
    for wrong in (claimed, stranger):
        with pytest.raises(Refused, match="nor a verified quantisation of it") as refusal:
            profiles.define(
                fresh_store, blobs, engineer.actor, profiles.ProfileRequest(ref, parts, wrong)
            )
        assert refusal.value.kind == "unfit-base"
    made = [
        profiles.define(
            fresh_store, blobs, engineer.actor, profiles.ProfileRequest(ref, parts, one)
        )
        for one in (None, own, verified)
    ]
    assert [one.status for one in made] == ["defined", "found", "defined"]
    assert asked.profile(fresh_store, engineer.actor, made[2].digest).base == verified
    [difference] = asked.compare(
        fresh_store, blobs, engineer.actor, made[0].digest, made[2].digest
    ).differences
    assert difference.part == "base"


@pytest.mark.parametrize(
    "prompt", [b"", b" \n ", b"\xff\xfe", b"a\0b", b"red \x1b[31m", b"x" * (256 * 1024 + 1)]
)
def test_a_prompt_is_text_that_people_can_read(
    store: Store, blobs: Blobs, team: str, prompt: bytes
) -> None:
    engineer = a_person(store, "engineer", team=team).actor
    digest = put(blobs, "prompt", prompt).sha256
    sent(store, engineer, digest)
    with pytest.raises(Invalid) as refusal:
        profiles.define(
            store,
            blobs,
            engineer,
            profiles.ProfileRequest(
                f"{team}/any@v1", PARTS | {"system_prompt": f"sha256:{digest}"}
            ),
        )
    assert refusal.value.kind == "bad-prompt"


def test_a_prompt_is_read_again_by_who_sees_its_version(
    store: Store, blobs: Blobs, team: str
) -> None:
    engineer, ref = an_adapter(store, blobs, team)
    said = [
        f"sha256:{put(blobs, 'prompt', text).sha256}"
        for text in ("Ein Wort. \u2013 Nie raten.\n".encode(), b"Two words.")
    ]
    sent(store, engineer.actor, *(one.removeprefix("sha256:") for one in said))
    first, second, bare = (
        profiles.define(
            store,
            blobs,
            engineer.actor,
            profiles.ProfileRequest(ref, PARTS | {"system_prompt": one}),
        ).digest
        for one in (*said, None)
    )
    assert (
        asked.system_prompt(store, blobs, engineer.actor, first).text
        == "Ein Wort. \u2013 Nie raten.\n"
    )
    compared = asked.compare(store, blobs, engineer.actor, first, second)
    assert [one.part for one in compared.differences] == ["system_prompt"]
    assert compared.prompt == ["@@ -1 +1 @@", "-Ein Wort. \u2013 Nie raten.", "+Two words."]
    assert asked.compare(store, blobs, engineer.actor, first, first).differences == []
    with pytest.raises(NotFound, match="no system prompt"):
        asked.system_prompt(store, blobs, engineer.actor, bare)
    stranger = a_person(store, "engineer", team="elsewhere").actor
    for ask in (asked.system_prompt, lambda *with_: asked.compare(*with_, second)):
        with pytest.raises(NotFound):
            ask(store, blobs, stranger, first)


def test_the_event_names_the_row(fresh_store: Store, blobs: Blobs, team: str) -> None:
    engineer, ref = an_adapter(fresh_store, blobs, team)
    profiles.define(fresh_store, blobs, engineer.actor, profiles.ProfileRequest(ref, PARTS))
    with fresh_store.read(SYSTEM) as session:
        statement = text("select count(*) from event_row where table_name = 'serving_profile'")
        assert session.execute(statement).scalar_one() == 1
