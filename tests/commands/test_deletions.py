"""Deletions, discards and holds: what may go goes for good, what may not is refused by name, and
nothing falls between.
"""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from registry.blobs.store import Blobs
from registry.commands import (
    deletions,
    evals,
    holds,
    recalls,
    retention,
    reviews,
    rollouts,
    tags,
    versions,
)
from registry.db.store import Store
from registry.errors import Conflict, Forbidden, Invalid, NotFound, Refused
from registry.queries import lineage, search
from registry.queries import retention as kept
from registry.queries import versions as asked
from registry.queries.pages import PageRequest
from registry.rules import searches
from registry.rules.actors import SYSTEM
from registry.rules.retention import Terms
from tests.build import (
    ADAPTER_META,
    DATA_META,
    World,
    a_base,
    a_dataset,
    a_person,
    a_world,
    adapter_files,
    approved,
    dataset_bytes,
    evaluate,
    put,
    register,
    register_rows,
    submit,
    train,
    vote,
)


def loose(store: Store, blobs: Blobs, team: str) -> World:
    """A world whose team keeps nothing for any time, so that only what a test puts in the way is in
    the way.
    """
    admin = a_person(store, "admin")
    retention.assign(store, admin.actor, team, "short", "a team that tries things out")
    return a_world(store, blobs, team)


@pytest.fixture
def world(store: Store, blobs: Blobs, team: str) -> World:
    return loose(store, blobs, team)


def an_adapter(world: World, seed: int, name: str = "adapter", **meta: Any) -> str:
    """A registered adapter version that nobody trained here."""
    draft = versions.Draft(
        "adapter",
        f"{world.team}/{name}",
        adapter_files(world.blobs, seed),
        {**ADAPTER_META, "domain": "legal", **meta},
        world.base.ref,
    )
    return register(world.store, world.blobs, world.engineer.actor, draft).ref


def a_draft(world: World, seed: int) -> str:
    draft = versions.Draft(
        "adapter", f"{world.team}/adapter", adapter_files(world.blobs, seed), {}, world.base.ref
    )
    added = register(world.store, world.blobs, world.engineer.actor, draft)
    assert added.status == "draft"
    return added.ref


def delete(world: World, ref: str) -> Any:
    return deletions.delete(world.store, world.engineer.actor, ref, "no longer wanted")


def refusal(call: Any, *arguments: Any) -> str:
    with pytest.raises(Refused) as told:
        call(*arguments)
    assert told.value.fix
    return told.value.kind


def test_a_deleted_version_leaves_its_number_and_its_lineage(store: Store, world: World) -> None:
    ref = an_adapter(world, 1)
    before = asked.version(store, world.engineer.actor, ref, gone=True)
    stone = delete(world, ref)
    assert (stone.ref, stone.how, stone.was, stone.by) == (
        ref,
        "deleted",
        "registered",
        world.engineer.actor.name,
    )
    after = asked.version(store, world.engineer.actor, ref, gone=True)
    assert after.state == "deleted"
    kept = ("manifest_digest", "tensor_root", "base_root", "number", "files")
    assert [getattr(after, one) for one in kept] == [getattr(before, one) for one in kept]
    graph = lineage.trace(store, world.engineer.actor, ref)
    assert {node.ref for node in graph.nodes} == {ref, world.base.ref}
    assert an_adapter(world, 2) == f"{world.team}/adapter@v2"
    # The newest is the newest that stands, and the same bytes may come back under a number of their
    # own.
    delete(world, f"{world.team}/adapter@v2")
    assert an_adapter(world, 1) == f"{world.team}/adapter@v3"
    assert asked.version(store, world.engineer.actor, before.manifest_digest).number == 3
    assert asked.version(store, world.engineer.actor, f"{world.team}/adapter").number == 3


def test_whoever_names_a_deleted_version_hears_of_it(
    store: Store, blobs: Blobs, world: World
) -> None:
    ref = an_adapter(world, 1)
    delete(world, ref)
    engineer = world.engineer.actor
    acts = [
        lambda: reviews.submit(
            store, blobs, engineer, reviews.Submission(ref, "production", world.use_case, "please")
        ),
        lambda: evals.queue(store, world.blobs, engineer, ref, world.suite),
        lambda: rollouts.start(store, engineer, rollouts.Canary(ref, "production", None, 500, "")),
        lambda: tags.put(store, engineer, ref, "topic", "claims"),
    ]
    for act in acts:
        with pytest.raises(NotFound) as told:
            act()
        assert told.value.kind == "deleted"
        assert told.value.facts["by"] == str(world.engineer.id)
        assert told.value.facts["reason_commitment"].startswith("sha256:")
        assert "no longer wanted" not in told.value.detail
    assert refusal(delete, world, ref) == "already-deleted"


def test_search_forgets_what_was_deleted(store: Store, world: World) -> None:
    ref = an_adapter(world, 1)
    delete(world, ref)
    name = f"{world.team}/adapter"
    assert search.search(store, SYSTEM, searches.parse(searches.Filters(name=name))).items == []
    for wanted in (
        searches.parse(searches.Filters(name=name, deleted=True)),
        searches.parse(searches.Filters(name=name, state="deleted")),
    ):
        [hit] = search.search(store, SYSTEM, wanted).items
        assert (hit.ref, hit.deleted, hit.state) == (ref, True, "deleted")


def test_the_newest_of_a_line_is_the_newest_that_stands(store: Store, world: World) -> None:
    first, second = an_adapter(world, 1), an_adapter(world, 2)
    delete(world, second)
    filters = asked.LineFilter(team=world.team, q="adapter")
    [line] = asked.lines(store, world.engineer.actor, filters).items
    assert (line.newest, line.newest_state, line.versions) == (first, "registered", 2)
    delete(world, first)
    [line] = asked.lines(store, world.engineer.actor, filters).items
    assert (line.newest, line.newest_state) == (second, "deleted")


def test_what_is_still_needed_is_not_deleted(store: Store, blobs: Blobs, world: World) -> None:
    engineer = world.engineer.actor
    first, second = approved(world), approved(world, seed=50)
    assert refusal(delete, world, world.base.ref) == "needed"
    assert refusal(delete, world, world.dataset.ref) == "needed"
    rollouts.start(store, engineer, rollouts.Canary(first, "production", None, 500, ""))
    assert refusal(delete, world, first) == "needed"
    rollouts.promote(
        store, engineer, rollouts.Place(f"{world.team}/adapter", "production", None), ""
    )
    assert refusal(delete, world, first) == "needed"
    rollouts.start(store, engineer, rollouts.Canary(second, "production", None, 500, ""))
    rollouts.promote(
        store, engineer, rollouts.Place(f"{world.team}/adapter", "production", None), ""
    )
    with pytest.raises(
        Refused, match="may be rolled back to it"
    ):  # it serves no more, but may again
        delete(world, first)
    recalls.recall(store, engineer, first, "unfit for use")
    assert delete(world, first).was == "recalled"
    assert asked.version(store, engineer, first).state == "recalled"
    half = world.versions[0]
    evaluate(world, half, 50)
    number = submit(world, half, "staging")
    with pytest.raises(Refused, match=f"review {number} is open on it"):
        delete(world, half)
    reviews.withdraw(store, engineer, number, "it goes")
    run = evals.queue(store, world.blobs, engineer, half, world.suite)
    with pytest.raises(Refused, match=f"eval-run:{run} is under way"):
        delete(world, half)


def test_approvals_of_what_is_deleted_are_void(store: Store, world: World) -> None:
    ref = approved(world)
    delete(world, ref)
    [approval] = asked.version(store, world.engineer.actor, ref, gone=True).approvals
    assert approval.state == "voided"


def test_retention_keeps_and_a_later_class_takes_nothing_away(
    store: Store, blobs: Blobs, team: str
) -> None:
    admin, engineer = a_person(store, "admin"), a_person(store, "engineer", team=team)
    plain = a_base(store, blobs, engineer, team, "plain", seed=1)
    with pytest.raises(Refused) as told:
        deletions.delete(store, engineer.actor, plain.ref, "tidy up")
    assert told.value.kind == "kept"
    until = datetime.fromisoformat(told.value.facts["kept_until"])
    assert timedelta(days=183) < until - datetime.now(UTC) < timedelta(days=185)
    with pytest.raises(Refused) as told:
        retention.assign(store, engineer.actor, f"{team}/plain", "short", "I want it gone")
    assert told.value.kind == "shorter-retention"
    assert retention.assign(store, admin.actor, f"{team}/plain", "short", "from now on").shortened
    with pytest.raises(Refused):  # registered under the longer one, it stays under the longer one
        deletions.delete(store, engineer.actor, plain.ref, "tidy up")
    second = a_base(store, blobs, engineer, team, "plain", seed=2)
    assert not retention.assign(
        store, engineer.actor, f"{team}/plain", "medical-6y", "patients"
    ).shortened
    with pytest.raises(Refused) as told:  # and a longer one holds for what is there too
        deletions.delete(store, engineer.actor, second.ref, "tidy up")
    assert datetime.fromisoformat(told.value.facts["kept_until"]) - datetime.now(UTC) > timedelta(
        days=2190
    )
    retention.assign(store, admin.actor, f"{team}/other", "short", "before its first version")
    other = a_base(store, blobs, engineer, team, "other", seed=3)
    assert deletions.delete(store, engineer.actor, other.ref, "tidy up").ref == other.ref


def test_classes_never_change(store: Store) -> None:
    admin, name = a_person(store, "admin").actor, f"c{secrets.token_hex(4)}"
    retention.define(store, admin, Terms(name, 10), "for a test")
    with pytest.raises(Conflict) as told:
        retention.define(store, admin, Terms(name, 5), "shorter")
    assert told.value.kind == "class-exists"
    with pytest.raises(Forbidden):
        retention.define(
            store, a_person(store, "engineer").actor, Terms(f"{name}-2", 10), "for a test"
        )


def test_a_hold_blocks_every_deletion_and_says_so(store: Store, world: World) -> None:
    ref = an_adapter(world, 1, datasets=[world.dataset.ref])
    draft = a_draft(world, 2)
    compliance = world.compliance.actor
    on_version = holds.place(store, compliance, ref, "Matter 5512", "court order")
    # What the held version derives from is held with it: without it nobody could make the version
    # again.
    for held in (ref, world.base.ref, f"dataset:{world.dataset.ref}"):
        with pytest.raises(Refused, match=f"Legal hold {on_version.number} covers") as told:
            delete(world, held)
        assert (told.value.kind, told.value.facts["holds"]) == ("held", [on_version.number])
    on_line = holds.place(
        store, compliance, f"{world.team}/adapter", "Matter 5513", "another order"
    )
    with pytest.raises(Refused, match=f"Legal hold {on_line.number} covers"):
        deletions.discard(store, world.engineer.actor, draft, "done")
    later = an_adapter(world, 3)
    assert refusal(delete, world, later) == "held"
    assert refusal(holds.lift, store, compliance, on_line.number, "settled") == "four-eyes"
    for hold in (on_line, on_version):
        assert (
            holds.lift(store, world.risk.actor, hold.number, "settled").lifted_by
            == world.risk.actor.name
        )
    assert refusal(holds.lift, store, world.risk.actor, on_line.number, "again") == "already-lifted"
    assert delete(world, later).how == "deleted"
    assert delete(world, ref).how == "deleted"
    # A recall is no deletion: it may order what is held unfit.
    again = holds.place(store, compliance, ref, "Matter 5514", "the bytes, while they are there")
    assert again.over == ref
    assert recalls.recall(store, world.engineer.actor, ref, "unfit for use").recalled == [ref]


def test_who_may_place_and_lift(store: Store, world: World) -> None:
    ref = an_adapter(world, 1)
    for person in (world.engineer, a_person(store, "auditor"), world.trainer):
        with pytest.raises(Forbidden):
            holds.place(store, person.actor, ref, "Matter 1", "because")
    placed = holds.place(store, a_person(store, "admin").actor, ref, "Matter 1", "because")
    with pytest.raises(Forbidden):
        holds.lift(store, a_person(store, "admin").actor, placed.number, "because")
    for case, reason in (("", "because"), ("Matter 1", " ")):
        with pytest.raises(Invalid):
            holds.place(store, world.compliance.actor, ref, case, reason)
    with pytest.raises(NotFound):
        holds.lift(store, world.compliance.actor, 2**31 - 1, "because")


def test_a_draft_is_discarded_by_its_maker(store: Store, world: World) -> None:
    ref = a_draft(world, 1)
    assert refusal(delete, world, ref) == "is-draft"
    assert refusal(deletions.discard, store, world.data_owner.actor, ref, "not mine") == "not-yours"
    assert deletions.discard(store, world.engineer.actor, ref, "a mistake").how == "discarded"
    assert (
        refusal(deletions.discard, store, world.engineer.actor, ref, "again") == "already-deleted"
    )
    assert a_draft(world, 1) != ref
    assert (
        refusal(deletions.discard, store, world.engineer.actor, an_adapter(world, 2), "x")
        == "not-draft"
    )


def test_recalled_bytes_never_come_back(store: Store, blobs: Blobs, world: World) -> None:
    ref = an_adapter(world, 1)
    recalls.recall(store, world.engineer.actor, ref, "unfit for use")
    delete(world, ref)
    assert refusal(an_adapter, world, 1) == "recalled"
    gone = an_adapter(world, 2)
    delete(world, gone)
    recalls.recall(store, world.engineer.actor, gone, "copies of it are about")
    assert refusal(an_adapter, world, 2) == "recalled"


def test_data_sets_are_deleted_alike(store: Store, blobs: Blobs, world: World) -> None:
    data = a_dataset(store, blobs, world.data_owner, world.team, "gone", dataset_bytes(train=51))
    assert delete(world, data.ref).ref == data.ref
    with pytest.raises(NotFound) as told:
        evals.freeze(
            store,
            blobs,
            world.engineer.actor,
            evals.SuiteRequest(f"{world.team}/other", data.ref, "test", "exact_match", {}),
        )
    assert told.value.kind == "deleted"
    again = a_dataset(store, blobs, world.data_owner, world.team, "gone", dataset_bytes(train=51))
    assert again.ref == f"{world.team}/gone@v2"
    file = put(blobs, "rows.jsonl", dataset_bytes(train=52))
    meta = {key: value for key, value in DATA_META.items() if key != "licence"}
    draft = register_rows(
        store, blobs, world.data_owner.actor, f"{world.team}/gone", file.sha256, file.size, meta
    )
    assert draft.status == "draft"
    stone = deletions.discard(store, world.data_owner.actor, f"dataset:{draft.ref}", "never mind")
    assert stone.how == "discarded"


def test_old_drafts_expire_and_young_ones_do_not(store: Store, world: World) -> None:
    from tests.db.around import as_owner

    old, young = a_draft(world, 1), a_draft(world, 2)
    with as_owner(store) as connection:  # a clock cannot be waited for
        connection.execute("alter table version disable trigger user")
        connection.execute(
            "update version set created_at = created_at - interval '8 days' where id = "
            "(select id from node where ref = %s)",
            (old,),
        )
        connection.execute("alter table version enable trigger user")
        connection.commit()
    assert deletions.expire_drafts(store) == 1
    assert deletions.expire_drafts(store) == 0
    assert [asked.version(store, SYSTEM, ref, gone=True).state for ref in (old, young)] == [
        "deleted",
        "draft",
    ]


def test_voting_on_what_was_held_back_is_not_touched(store: Store, world: World) -> None:
    """A deletion is refused while a review is open, so no vote ever meets a deleted version."""
    train(world)
    ref = world.versions[-1]
    evaluate(world, world.base.ref, 5)
    evaluate(world, ref, 50)
    submit(world, ref)
    assert refusal(delete, world, ref) == "needed"
    vote(world, world.compliance)
    assert vote(world, world.risk) == "approved"


def test_what_is_due_is_listed_and_nothing_else(store: Store, world: World) -> None:
    held, free, beneath = an_adapter(world, 1), an_adapter(world, 2), world.base.ref
    holds.place(store, world.compliance.actor, held, "Matter 1", "because")
    page = kept.due(store, world.engineer.actor, PageRequest(limit=1))
    found = list(page.items)
    while page.next:
        page = kept.due(store, world.engineer.actor, PageRequest(page.next, 1))
        found += page.items
    assert [one.ref for one in found] == [world.dataset.ref, free]
    assert kept.keeping(store, world.engineer.actor, free).due
    assert not kept.keeping(store, world.engineer.actor, held).due
    assert not kept.keeping(store, world.engineer.actor, beneath).due
    delete(world, free)
    assert [one.ref for one in kept.due(store, world.engineer.actor).items] == [world.dataset.ref]
