"""What is signed is held to the letter: votes, training reports, eval reports, and the lease of
whoever reports.
"""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

from sqlalchemy import text

from registry.commands import evals, training_runs
from registry.proof.keys import SigningKey
from registry.rules.actors import SYSTEM
from registry.rules.reviews import commitment
from tests.api.conftest import Door
from tests.api.test_errors import rows
from tests.build import ADAPTER_META, RECIPE, World, a_person, a_world, evaluate, submit, train


def test_signatures_that_are_none(door: Door, world: World) -> None:
    own = a_world(door.store, door.blobs, f"s{uuid4().hex[:8]}")
    train(own)
    evaluate(own, own.base.ref, 5)
    evaluate(own, own.versions[-1], 50)
    number = submit(own, own.versions[-1])
    person = own.compliance
    door.token(person)
    before = rows(door)
    decision = door.done(person, "GET", f"/reviews/{number}/decision")["decision"]
    reason, salt = "I have read the evidence.", bytes(16)
    sound = {**decision, "verdict": "approve", "reason_commitment": commitment(salt, reason)}
    assert person.key is not None

    def cast(signed: Any = sound, **changes: Any) -> tuple[int, str]:
        key, signature = person.key.sign_document(signed, "decision")
        body = {
            "decision": sound,
            "reason": reason,
            "salt": salt.hex(),
            "key": key,
            "signature": signature,
            **changes,
        }
        return door.refused(person, "POST", f"/reviews/{number}/votes", body)

    stranger = SigningKey.generate()
    assert cast(signed={**sound, "verdict": "reject"}) == (422, "bad-signature")
    assert cast(signature="é") == (422, "bad-signature")
    assert cast(signature=stranger.sign_document(sound, "decision")[1]) == (422, "bad-signature")
    assert cast(signature=person.key.sign_document(sound, "enrol")[1]) == (422, "bad-signature")
    assert cast(key=stranger.id) == (422, "key-unknown")
    assert cast(key=own.risk.key.id if own.risk.key else "") == (422, "key-unknown")
    assert cast(decision={**sound, "environment": "dev"}) == (409, "decision-mismatch")
    assert cast(decision={**sound, "extra": 1}) == (409, "decision-mismatch")
    assert cast(decision={**sound, "evidence_root": "sha256:" + "0" * 64}) == (
        409,
        "decision-mismatch",
    )
    assert cast(decision={}) == (422, "bad-verdict")
    assert cast(reason="another reason than the one that was signed") == (409, "decision-mismatch")
    assert cast(reason="short") == (422, "reason-missing")
    assert cast(salt="zz") == (422, "bad-salt")
    assert rows(door) == before
    assert door.done(person, "GET", f"/reviews/{number}")["votes"] == []


def test_a_lease_that_is_anothers(door: Door, world: World) -> None:
    run = training_runs.queue(
        door.store,
        world.blobs,
        world.engineer.actor,
        training_runs.TrainingRequest(
            f"{world.team}/leased", world.base.ref, world.dataset.ref, RECIPE, "legal", ADAPTER_META
        ),
    )
    other = a_person(door.store, "trainer", team=world.team)
    assert door.done(world.trainer, "POST", "/work/lease", {"worker": "w"})["id"] == str(run)
    assert door.refused(other, "POST", f"/work/{run}/beat", {"attempt": 1}) == (409, "lease-lost")
    assert door.refused(world.trainer, "POST", f"/work/{run}/beat", {"attempt": 2}) == (
        409,
        "lease-lost",
    )
    for path, body in {
        "requeue": {"attempt": 2, "reason": "x"},
        "fail": {"attempt": 2, "error": "x"},
        "finish": {"attempt": 2, "report": {}, "key": "x", "signature": "x"},
    }.items():
        assert door.refused(world.trainer, "POST", f"/work/{run}/{path}", body) == (
            409,
            "lease-lost",
        )
        assert door.refused(other, "POST", f"/work/{run}/{path}", {**body, "attempt": 1}) == (
            409,
            "lease-lost",
        )
    key = world.trainer.key
    assert key is not None
    for report, kind in (
        ({"run": str(run)}, "report-mismatch"),
        ({"outputs": "x"}, "report-mismatch"),
    ):
        key_id, signature = key.sign_document(report, "training-report")
        body = {"attempt": 1, "report": report, "key": key_id, "signature": signature}
        assert door.refused(world.trainer, "POST", f"/work/{run}/finish", body) == (409, kind)
    with door.store.read(SYSTEM) as session:
        digest = session.execute(
            text("select recipe_digest from training_run where id = :run"), {"run": run}
        ).scalar_one()
    for outputs in ("x", None, [1], [{"step": []}], [{"step": {}}], [{"step": 1, "ref": 5}]):
        report = {"run": str(run), "attempt": 1, "recipe_digest": digest, "outputs": outputs}
        key_id, signature = key.sign_document(report, "training-report")
        body = {"attempt": 1, "report": report, "key": key_id, "signature": signature}
        assert door.refused(world.trainer, "POST", f"/work/{run}/finish", body) == (
            422,
            "bad-report",
        ), outputs
        assert door.refused(
            world.trainer, "POST", f"/work/{run}/finish", {**body, "signature": "x"}
        ) == (
            422,
            "bad-signature",
        )
    door.done(world.trainer, "POST", f"/work/{run}/fail", {"attempt": 1, "error": "enough"})


def test_an_eval_report_that_says_what_the_samples_do_not(door: Door, world: World) -> None:
    run = evals.queue(door.store, world.blobs, world.engineer.actor, world.versions[0], world.suite)
    given = door.done(world.trainer, "POST", "/work/lease", {"worker": "w"})["evaluation"]
    about = door.done(world.engineer, "GET", f"/versions/{world.versions[0]}")
    samples = door.upload(world.trainer, b"")["sha256"]
    key = world.trainer.key
    assert key is not None

    def finish(report: dict[str, Any]) -> tuple[int, str]:
        key_id, signature = key.sign_document(report, "eval-report")
        body = {"attempt": 1, "report": report, "key": key_id, "signature": signature}
        return door.refused(world.trainer, "POST", f"/work/{run}/finish", body)

    assert finish({}) == (422, "bad-digest")
    assert finish({"samples_sha256": "../../etc/passwd"}) == (422, "bad-digest")
    assert finish({"samples_sha256": "0" * 64}) == (422, "blob-missing")
    assert finish({"samples_sha256": samples})[0] in (409, 422)
    items = door.ask(
        world.trainer, "GET", f"/blobs/{given['items']['sha256']}"
    ).content.splitlines()
    lines = b"".join(
        json.dumps({"item": json.loads(one)["id"], "output": "wrong"}).encode() + b"\n"
        for one in items
    )
    sound = {
        "run": str(run),
        "attempt": 1,
        "suite_digest": given["suite_digest"],
        "subject_root": about["tensor_root"],
        "base_root": about["base_root"],
        "samples_sha256": door.upload(world.trainer, lines)["sha256"],
    }
    for metrics in ([], "x", {}, {"exact_match": 5}, {"exact_match": None}):
        assert finish({**sound, "metrics": metrics}) == (422, "bad-report"), metrics
    assert finish({**sound, "metrics": {"exact_match": {"correct": 60, "n": 60}}}) == (
        422,
        "metric-mismatch",
    )
    assert finish({**sound, "metrics": {"exact_match": {}}}) == (422, "metric-mismatch")
    assert finish({**sound, "suite_digest": "x"}) == (409, "report-mismatch")
    door.done(world.trainer, "POST", f"/work/{run}/fail", {"attempt": 1, "error": "enough"})
