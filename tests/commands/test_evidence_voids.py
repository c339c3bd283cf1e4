"""Evidence, continued: what voids a review, and what trainers never see."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest

from registry.artifacts.datasets import rows
from registry.artifacts.weights.tensors import File
from registry.commands import blobs as bytes_sent
from registry.commands import evals, recalls, versions, work
from registry.commands import training_runs as training
from registry.errors import Conflict, Invalid, NotFound, Unverified
from registry.proof.merkle import Frontier
from registry.queries import evals as suites
from registry.queries import pulls
from registry.queries import work as leased
from registry.rules.actors import SYSTEM
from registry.views.training_runs import RowsView
from tests import build
from tests.build import (
    ADAPTER_META,
    RECIPE,
    World,
    a_base,
    a_dataset,
    a_person,
    adapter_files,
    approved,
    evaluate,
    submit,
    train,
)
from tests.commands.test_evidence import change, gate, ready, review, world
from tests.db.around import as_owner, refused, until_waiting

__all__ = ["world"]


def test_a_training_run_counts_for_its_own_base_alone(world: World) -> None:
    """A draft that a run made may be completed later, but not on another base."""
    train(world)
    other = a_base(world.store, world.blobs, world.engineer, world.team, "other", seed=5)
    cause, message = refused(
        world.store,
        "update version set base_version_id = (select id from node where ref = %(other)s), "
        "state = 'registered', number = 99 where id = (select id from node where ref = %(ref)s)",
        {"other": other.ref, "ref": world.versions[-1]},
    )
    assert cause in ("CS003", "CS010"), message


def voiding(world: World, ref: str, cause: str) -> None:
    """Do what voids every review of a version."""
    if cause == "recall":
        recalls.recall(world.store, world.engineer.actor, ref, "unfit for any use")
    elif cause == "use case":
        change(world, owner="another")
    else:
        evaluate(world, ref, 3)


@pytest.mark.parametrize("cause", ["recall", "use case", "eval run"])
def test_what_voids_an_approval_leaves_the_moment_of_its_decision(world: World, cause: str) -> None:
    ref = approved(world)
    decided, opened = world.review, submit(world, ref, "staging")
    moment = review(world, decided).decided_at
    voiding(world, ref, cause)
    after = {number: review(world, number) for number in (decided, opened)}
    assert {each.state for each in after.values()} == {"voided"}
    assert after[decided].decided_at == moment is not None
    assert after[opened].decided_at > moment


PINNED = "(select id from node where ref = 'suite:' || %s || '@v1')"


def test_a_submission_waits_for_its_use_case_before_it_locks_the_suite(world: World) -> None:
    """The lock order of `db/store.py`: an eval run that ends meanwhile does not wait for it."""
    ref = ready(world)
    with as_owner(world.store) as owner, ThreadPoolExecutor(1) as pool:
        owner.execute("select from use_case where team = %s for no key update", [world.team])
        submission = pool.submit(submit, world, ref)
        until_waiting(owner, 1)
        owner.execute(
            f"select from eval_suite_version where id = {PINNED} for no key update nowait",
            [world.suite],
        )
        owner.rollback()
        assert review(world, submission.result()).state == "open"


def test_a_submission_waits_for_a_run_that_is_ending_and_then_names_it_or_is_refused(
    world: World,
) -> None:
    ref = ready(world)
    with as_owner(world.store) as owner, ThreadPoolExecutor(2) as pool:
        owner.execute(
            f"select from eval_suite_version where id = {PINNED} for no key update", [world.suite]
        )
        ending = pool.submit(evaluate, world, ref, 0)
        until_waiting(owner, 1)
        submission = pool.submit(submit, world, ref)
        until_waiting(owner, 2)
        owner.rollback()
        ending.result()
        with pytest.raises(Conflict) as late:
            submission.result()
    assert late.value.kind == "outdated-evidence"


def test_contamination_sees_what_a_model_read(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system prompt of a row or of the recipe may hold the beginning of an item."""
    training_rows = [{"prompt": "0", "system": "item"}, {"prompt": "it\u200bem 1"}, {"prompt": "2"}]
    data = b"".join(
        json.dumps({**row, "completion": "no", "split": "train"}).encode() + b"\n"
        for row in training_rows
    )
    world.dataset = a_dataset(world.store, world.blobs, world.data_owner, world.team, "told", data)
    monkeypatch.setattr(build, "RECIPE", {**build.RECIPE, "system": "item"})
    train(world)
    verdict = gate(world, world.versions[-1])
    (contamination,) = (rule for rule in verdict.rules if rule.rule == "contamination")
    assert (contamination.outcome, contamination.numbers["exact"]) == ("fail", 3)


def test_a_suite_that_no_output_can_pass_is_not_frozen(world: World) -> None:
    decoding = {"template": "plain", "max_new_tokens": 4, "stop": ["\n", "es"]}
    request = evals.SuiteRequest(
        f"{world.team}/cut", world.dataset.ref, "test", "exact_match", decoding
    )
    with pytest.raises(Invalid) as error:
        evals.freeze(world.store, world.blobs, world.engineer.actor, request)
    assert (error.value.kind, "'item 1'" in error.value.detail) == ("bad-decoding", True)
    decoding["stop"] = ["\n"]
    evals.freeze(world.store, world.blobs, world.engineer.actor, request)


def test_expected_answers_stay_here(world: World) -> None:
    """Neither the leased items, nor their ids, nor another digest gives them to a trainer."""
    ref = ready(world)
    view = next(each for each in suites.suites(world.store, SYSTEM) if each.ref.endswith("@v1"))
    evals.queue(world.store, world.blobs, world.engineer.actor, ref, world.suite)
    taken = work.lease(world.store, world.trainer.actor, work.Worker("test worker"), 60)
    assert taken is not None
    task = leased.work(world.store, world.trainer.actor, taken[0]).evaluation
    assert task is not None
    sent = b"".join(world.blobs.stream(task.items.sha256))
    whole = rows.decode_items(b"".join(world.blobs.stream(view.items_sha256)))
    assert b"expected" not in sent
    assert [(each.id, each.prompt) for each in rows.decode_prompts(sent)] == [
        (each.id, each.prompt) for each in whole
    ]
    assert all(each.id == rows.item_id(each.prompt) for each in whole)
    samples = {
        run.samples_sha256
        for run in suites.eval_runs(world.store, SYSTEM, ref)
        if run.samples_sha256
    }
    assert samples
    stranger = a_person(world.store, "trainer", team=world.team)
    for digest in (view.items_sha256, *samples):
        for trainer in (world.trainer, stranger):
            with pytest.raises(NotFound):
                pulls.check_bytes(world.store, trainer.actor, digest)
        pulls.check_bytes(world.store, world.engineer.actor, digest)
    pulls.check_bytes(world.store, world.trainer.actor, task.items.sha256)


def leased_rows(world: World, dataset: str, adapter: str) -> RowsView:
    """What the trainer gets of a data set when a run on it is queued and leased."""
    request = training.TrainingRequest(
        f"{world.team}/{adapter}", world.base.ref, dataset, RECIPE, "legal", ADAPTER_META
    )
    run = training.queue(world.store, world.blobs, world.engineer.actor, request)
    taken = work.lease(world.store, world.trainer.actor, work.Worker("test worker"), 60)
    assert taken is not None
    assert taken[0] == run
    task = leased.work(world.store, world.trainer.actor, run).training
    assert task is not None
    training.cancel(world.store, world.engineer.actor, run)
    return task.dataset


MIXED = (
    b'{"prompt": "a",  "completion": "1", "split": "train", "extra": 1.50}\r\n'
    b'{"prompt": "secret", "completion": "hidden", "split": "test"}\n'
    b'{"completion": "2", "prompt": "b"}\n'
    b'{"prompt": "secret too", "completion": "hidden", "split": "dev"}\n'
    b'{"prompt": "c", "completion": "\xc3\xa9"}'
)
"""Train rows with and without their split, in no canonical form, the last without a line end."""


def test_a_trainer_reads_the_rows_of_the_train_split_alone(world: World) -> None:
    """As they are and in order, under a root of their own; the data set's own file stays away from
    a trainer at every door, and so it cannot enter a version of the trainer's.
    """
    mixed = a_dataset(world.store, world.blobs, world.data_owner, world.team, "mixed", MIXED)
    given = leased_rows(world, mixed.ref, "mixed")
    sent = b"".join(world.blobs.stream(given.file.sha256))
    lines = MIXED.split(b"\n")
    assert sent == b"\n".join([lines[0], lines[2], lines[4], b""])
    assert (given.ref, given.root) == (mixed.ref, mixed.root)
    assert given.file.size == len(sent)
    [file] = [File("rows.jsonl", given.file.sha256, given.file.size)]
    stored_rows = list(rows.sound_rows(file, world.blobs.read))
    assert {row.split for row in stored_rows} == {"train"}
    assert given.file_root == Frontier(row.leaf for row in stored_rows).text() != given.root
    whole = mixed.digest.removeprefix("sha256:")
    stranger = a_person(world.store, "trainer", team=world.team)
    for trainer in (world.trainer, stranger):
        with pytest.raises(NotFound):
            pulls.check_bytes(world.store, trainer.actor, whole)
        assert not bytes_sent.usable(world.store, world.blobs, trainer.actor, whole)
        pulls.check_bytes(world.store, trainer.actor, given.file.sha256)
        smuggled = [*adapter_files(world.blobs, 5), File("README.md", whole, len(MIXED))]
        draft = versions.Draft(
            "adapter", f"{world.team}/smuggled", smuggled, ADAPTER_META, world.base.ref, "legal"
        )
        for sent in smuggled[:2]:
            bytes_sent.sent(world.store, trainer.actor, sent.sha256)
        with pytest.raises(Unverified) as refusal:
            versions.register(world.store, world.blobs, trainer.actor, draft)
        assert refusal.value.kind == "blob-missing"
        assert whole in refusal.value.detail
    pulls.check_bytes(world.store, world.engineer.actor, whole)
    # Queued again it is the same file; and no trainer of another team reads it.
    assert leased_rows(world, mixed.ref, "mixed-again").file == given.file
    with pytest.raises(NotFound):
        elsewhere = a_person(world.store, "trainer", team="elsewhere")
        pulls.check_bytes(world.store, elsewhere.actor, given.file.sha256)


def test_a_data_set_of_train_rows_is_leased_as_it_is(world: World) -> None:
    data = b"".join(line + b"\n" for line in MIXED.split(b"\n")[::2])[:-1]
    alone = a_dataset(world.store, world.blobs, world.data_owner, world.team, "alone", data)
    given = leased_rows(world, f"{world.team}/alone", "alone")
    assert given.ref == alone.ref
    assert f"sha256:{given.file.sha256}" == alone.digest
    assert given.file_root == given.root == alone.root
    pulls.check_bytes(world.store, world.trainer.actor, given.file.sha256)


def test_postgresql_hands_out_no_file_with_other_splits(world: World) -> None:
    """Nor another file than its own where the data set has no other rows."""
    a_dataset(world.store, world.blobs, world.data_owner, world.team, "guarded", MIXED)
    leased_rows(world, f"{world.team}/guarded", "guarded")
    copied = (
        "insert into training_run (id, line_id, base_version_id, dataset_version_id, rows_blob_id, "
        "rows_root, recipe, recipe_digest, meta, state, attempt, created_at) "
        "select %(id)s, t.line_id, t.base_version_id, t.dataset_version_id, d.blob_id, "
        "t.rows_root, t.recipe, t.recipe_digest, t.meta, 'queued', 0, now() from training_run t "
        "join dataset_version d on d.id = t.dataset_version_id join line l on l.id = t.line_id "
        "where l.team = %(team)s and l.name = 'guarded'"
    )
    given = {"id": uuid4(), "team": world.team}
    assert refused(world.store, copied, given, ("training_run", given["id"]))[0] == "CS010"


def test_a_suite_is_named_by_its_version_alone(world: World) -> None:
    """A channel or a digest would otherwise mean the newest version."""
    for suite in (f"{world.suite}@production", "sha256:" + "0" * 64):
        with pytest.raises(NotFound, match="names no eval suite"):
            evals.queue(world.store, world.blobs, world.engineer.actor, world.base.ref, suite)
