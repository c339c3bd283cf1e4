"""Keepers of a log who lie, and sign the lie with the right key: what only the meaning of the
entries gives away.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from registry import verifier
from registry.documents import canonical
from tests.proof.judging import HEADS, KEY, Judge
from tests.proof.packs import (
    POLICY,
    Log,
    Row,
    catalogue,
    commitment,
    decision,
    identity,
    key_of,
    members,
    moment,
    person,
    route,
    story,
    use_case_version,
    vote,
    zipped,
)


def of(table: str, **columns: Any) -> Callable[[Log, Row], None]:
    """Set columns of the event's row of a table."""

    def change(_: Log, event: Row) -> None:
        for row in event["rows"]:
            if row["table"] == table:
                row["row"].update(columns)

    return change


def event_with(**fields: Any) -> Callable[[Log, Row], None]:
    return lambda _, event: event.update(fields)


def instead(*rows: Callable[[Log], Row], actor: str | None = None) -> Callable[[Log, Row], None]:
    """Make the refused event one that does something else."""
    return lambda log, event: event.update(
        outcome="done", rows=[row(log) for row in rows], actor=actor and identity(actor)
    )


def signing(signer: str = "alice", **fields: Any) -> Callable[[Log, Row], None]:
    """Alice's vote as before, but over a decision with these fields, properly hashed and signed."""

    def change(_: Log, event: Row) -> None:
        row = event["rows"][-1]["row"]
        signed = {
            key: value for key, value in {**row["decision"], **fields}.items() if value is not ...
        }
        row["decision"], row["decision_digest"] = signed, canonical.digest(signed)
        row["signature"] = key_of(signer).sign_document(signed, "decision")[1]

    return change


def drop(_: Log, event: Row) -> None:
    event["rows"] = []


def delete(table: str, key: str) -> Callable[[Log, Row], None]:
    return lambda _, event: event.update(
        rows=[{"table": table, "key": key, "op": "delete", "row": None}]
    )


def forged(_: Log, event: Row) -> None:
    event["rows"][-1]["row"]["decision"]["environment"] = "dev"
    event["rows"][-1]["row"]["decision_digest"] = canonical.digest(
        event["rows"][-1]["row"]["decision"]
    )


def respelt(_: Log, event: Row) -> None:
    """Base64 with other bits where nothing is coded: the same bytes to a lenient reader."""
    row = event["rows"][-1]["row"]
    assert row["signature"][-3] in "AQgw"
    row["signature"] = row["signature"][:-3] + chr(ord(row["signature"][-3]) + 1) + "=="


def twice(_: Log, event: Row) -> None:
    event["rows"].append(deepcopy(event["rows"][0]))


def also(*changes: Callable[[Log, Row], None]) -> Callable[[Log, Row], None]:
    def change(log: Log, event: Row) -> None:
        for one in changes:
            one(log, event)

    return change


ALICE = key_of("alice").id
LIES: dict[str, tuple[str, Callable[[Log, Row], None], str]] = {
    "service votes": ("create alice", of("account", kind="service"), "not by a person"),
    "vote cast by another": (
        "vote alice",
        event_with(actor=identity("bob")),
        "cast by another account",
    ),
    "vote by nobody": ("vote alice", event_with(actor=None), "cast by another account"),
    "key never enrolled": ("enrol alice", drop, "whose signing_key was not there before"),
    "account never made": ("create alice", drop, "whose account was not there before"),
    "enrolment without proof": ("enrol alice", of("signing_key", proof="AAAA"), "without proof"),
    "enrolment by another": ("enrol alice", event_with(actor=identity("bob")), "without proof"),
    "enrolment for another": (
        "enrol alice",
        of("signing_key", account_id=identity("bob")),
        "without proof",
    ),
    "enrolled another's key": (
        "enrol alice",
        of("signing_key", public_key=key_of("bob").public_text),
        "without proof",
    ),
    "signed with bob's key": (
        "vote alice",
        of("vote", key_id=key_of("bob").id),
        "the voter did not enrol",
    ),
    "signed by bob": ("vote alice", signing("bob"), "wrong signature"),
    "key revoked before": (
        "refused",
        instead(lambda log: log.put("signing_key", id=ALICE, revoked_at=moment(1))),
        "revoked key",
    ),
    "key comes back": (
        "recall",
        instead(lambda log: log.put("signing_key", id=ALICE, revoked_at=None)),
        "what is frozen of signing_key",
    ),
    "public key exchanged": (
        "refused",
        instead(lambda log: log.put("signing_key", id=ALICE, public_key=key_of("bob").public_text)),
        "what is frozen of signing_key",
    ),
    "digest of something else": (
        "vote alice",
        of("vote", decision_digest=commitment("x")),
        "digest is not of its",
    ),
    "decision changed": ("vote alice", forged, "wrong signature"),
    "signature mangled": ("vote alice", of("vote", signature="A" * 86 + "=="), "wrong signature"),
    "signature spelt otherwise": ("vote alice", respelt, "not in its plain form"),
    "field missing": ("vote alice", signing(use_case=...), "unknown or missing fields"),
    "field added": ("vote alice", signing(extra=1), "unknown or missing fields"),
    "other base": ("vote alice", signing(base_root=commitment("x")), "over another base"),
    "row says rejected": ("vote alice", of("vote", verdict="reject"), "in verdict"),
    "row of another team": ("vote alice", of("vote", team="risk"), "in team"),
    "row of another reason": (
        "vote alice",
        of("vote", reason_commitment=commitment("x")),
        "in reason_commitment",
    ),
    "by the submitter": (
        "submit",
        of("review", submitted_by=identity("alice")),
        "by the person who submitted",
    ),
    "policy of another place": ("policy", of("policy_version", environment="dev"), "in policy"),
    "policy changed, digest kept": (
        "policy",
        lambda _, event: event["rows"][0]["row"].update(rules={**POLICY, "quorum": {}}),
        "with a wrong digest",
    ),
    "evidence exchanged": ("submit", of("review", evidence={}), "holds other evidence"),
    "a bad run left out": (
        "measure",
        lambda log, event: event["rows"].append(
            log.put(
                "eval_run",
                id="bad run",
                subject_id=identity("a v1"),
                suite_version_id=identity("suite"),
                state="succeeded",
            )
        ),
        "on other eval runs than those that count",
    ),
    "a run made up": ("measure", of("eval_run", state="failed"), "on other eval runs"),
    "another suite": (
        "measure",
        of("eval_suite_version", digest="sha256:other"),
        "on a use case or suite that is not in force",
    ),
    "suite changed later": (
        "refused",
        instead(lambda log: log.put("eval_suite_version", id=identity("suite"), digest="x")),
        "what is frozen of eval_suite_version",
    ),
    "use case changed later": (
        "refused",
        instead(
            lambda log: log.put("use_case_version", id=identity("case v1"), suite_version_id="x")
        ),
        "what is frozen of use_case_version",
    ),
    "use case replaced under a review": (
        "refused",
        instead(lambda log: use_case_version(log, 2)),
        "out of turn, or under its reviews",
    ),
    "use case version skipped": (
        "measure",
        lambda log, event: event["rows"].append(use_case_version(log, 3)),
        "out of turn",
    ),
    "vote on another use case": ("vote alice", signing(use_case="acme/other"), "in use_case"),
    "vote on an older use case": ("vote alice", signing(use_case_version=0), "in use_case_version"),
    "born approved": ("submit", of("review", state="approved"), "from open to approved"),
    "approved on one vote": (
        "vote alice",
        lambda log, event: event["rows"].append(
            log.put("review", id=identity("review"), state="approved")
        ),
        "on 1 valid votes",
    ),
    "approved on a rejection": (
        "vote alice",
        also(signing(verdict="reject"), of("vote", verdict="reject")),
        "on 1 valid votes; its policy asks for 2",
    ),
    "approved without votes": (
        "vote bob",
        lambda _, event: event["rows"].pop(),
        "on 1 valid votes",
    ),
    "both of one team": (
        "vote bob",
        also(signing("bob", team="compliance"), of("vote", team="compliance")),
        "of 1 teams; its policy asks for 2",
    ),
    "reopened": (
        "route 1",
        instead(lambda log: log.put("review", id=identity("review"), state="open")),
        "from approved to open",
    ),
    "vote changed later": (
        "revoke",
        instead(lambda log: log.put("vote", id=identity("vote of bob"), team="x")),
        "what is frozen of vote",
    ),
    "vote deleted later": ("revoke", delete("vote", identity("vote of bob")), "deletes vote"),
    "review deleted": ("revoke", delete("review", identity("review")), "deletes review"),
    "key deleted": ("revoke", delete("signing_key", ALICE), "deletes signing_key"),
    "version deleted": ("revoke", delete("version", identity("a v1")), "deletes version"),
    "version changed": (
        "revoke",
        instead(lambda log: log.put("version", id=identity("a v1"), tensor_root="x")),
        "what is frozen of version",
    ),
    "policy changed": (
        "revoke",
        instead(lambda log: log.put("policy_version", id=identity("policy"), number=2)),
        "what is frozen of policy_version",
    ),
    "refusal changes rows": (
        "create bob",
        event_with(outcome="refused"),
        "a refusal that changes nothing",
    ),
    "unknown outcome": ("create bob", event_with(outcome="maybe"), "neither done nor a refusal"),
    "event twice": ("create bob", event_with(id=identity("event 0")), "repeats event"),
    "id malformed": ("create bob", event_with(id="1"), "malformed id or time"),
    "time malformed": ("create bob", event_with(at="yesterday"), "malformed id or time"),
    "field of a wrong type": ("create bob", event_with(facts=[]), "malformed ['facts']"),
    "version 2": ("create bob", event_with(v=2), "no event of version 1"),
    "version true": ("create bob", event_with(v=True), "malformed ['v']"),
    "event with more": ("create bob", event_with(more=1), "no event of version 1"),
    "row twice": ("create bob", twice, "no single image of account"),
    "row of another key": (
        "create bob",
        lambda _, event: event["rows"][0].update(key="x"),
        "no single image",
    ),
    "unknown change": (
        "create bob",
        lambda _, event: event["rows"][0].update(op="move"),
        "no single image",
    ),
    "delete with a row": (
        "create bob",
        lambda _, event: event["rows"][0].update(op="delete"),
        "no single image",
    ),
    "row with more": (
        "create bob",
        lambda _, event: event["rows"][0].update(more=1),
        "no single image",
    ),
    "row without columns": (
        "submit",
        lambda _, event: event["rows"][0]["row"].pop("evidence"),
        "of a wrong shape",
    ),
    "row of nonsense": (
        "submit",
        lambda _, event: event["rows"][0]["row"].update(state=["open"]),
        "to ['open']",
    ),
    "route skips": (
        "route 1",
        of("route_generation", generation=2),
        "adds generation 2 of a channel after 0",
    ),
}
for name in (
    "v",
    "review",
    "version_id",
    "version",
    "manifest_digest",
    "tensor_root",
    "environment",
    "policy",
    "policy_digest",
    "evidence_root",
    "account",
    "team",
    "verdict",
    "reason_commitment",
):
    LIES[f"signed another {name}"] = (
        "vote alice",
        signing(**{name: "other"}),
        f"differs from the log in {name}",
    )


@pytest.mark.parametrize("name", LIES)
def test_a_lie_signed_with_the_right_key_is_found(judge: Judge, name: str) -> None:
    step, change, because = LIES[name]
    told = []

    def twist(log: Log, current: str, event: Row) -> None:
        if current == step:
            told.append(len(log.entries))
            change(log, event)

    log = story(twist)
    assert len(told) == 1
    judge.refuses(zipped(members(log, KEY, HEADS)), because)


def test_a_vote_after_the_decision_is_refused(judge: Judge) -> None:
    log = story()
    person(log, "carol")
    vote(log, "carol", "legal")
    judge.refuses(zipped(members(log, KEY)), "in a review that is approved")


def test_votes_under_the_policy_of_another_environment_are_refused(judge: Judge) -> None:
    def elsewhere(log: Log, step: str, event: Row) -> None:
        if step == "policy":
            event["rows"][0]["row"]["environment"] = "dev"
        if step.startswith("vote"):
            signing(step.removeprefix("vote "), policy="dev-v1")(log, event)

    judge.refuses(zipped(members(story(elsewhere), KEY)), "under the policy of another environment")


def test_a_second_vote_of_the_same_person_is_refused(judge: Judge) -> None:
    def again(log: Log, step: str, event: Row) -> None:
        if step == "vote bob":
            signed = decision(log, "alice", "legal", "approve")
            row = log.put(
                "vote",
                id=identity("another"),
                review_id=identity("review"),
                account_id=identity("alice"),
                team="legal",
                verdict="approve",
                reason_commitment=signed["reason_commitment"],
                decision=signed,
                decision_digest=canonical.digest(signed),
                signature=key_of("alice").sign_document(signed, "decision")[1],
                key_id=ALICE,
                at=log.now,
            )
            event.update(outcome="done", rows=[row], actor=identity("alice"))

    assert "a second vote" in judge(zipped(members(story(again), KEY)))["problems"][0]


@pytest.mark.parametrize(("stable", "candidate"), [("a v1", None), ("base v1", "a v1")])
def test_no_traffic_for_what_nobody_approved(
    judge: Judge, stable: str, candidate: str | None
) -> None:
    log = Log()
    catalogue(log)
    route(log, 1, stable, candidate)
    judge.refuses(zipped(members(log, KEY)), "Entry 2 routes traffic to version")


def test_no_traffic_for_what_is_recalled(judge: Judge) -> None:
    log = story()
    route(log, 4, "a v1")
    judge.refuses(
        zipped(members(log, KEY)), "which is deleted, recalled or was never approved for production"
    )


SPELLINGS: list[Callable[[bytes], bytes]] = [
    lambda entry: entry.replace(b":", b": ", 1),
    lambda entry: entry + b" ",
    lambda entry: entry.replace(b'{"action"', b'{"action":"x","action"', 1),
    lambda entry: entry.replace(b'"v":1', b'"v":1.0', 1),
    lambda entry: entry.replace(b'"v":1', b'"v":1e0', 1),
    lambda entry: entry.replace(b'"share":0.05', b'"share":5e-2', 1),
    lambda entry: entry.replace(b'"share":0.05', b'"share":0.050', 1),
    lambda entry: entry.replace(b'"share":0.05', b'"share":NaN', 1),
    lambda entry: entry.replace(b'"share":0.05', b'"share":1e999', 1),
    lambda entry: entry.replace(b'"share":0.05', b'"share":9007199254740993', 1),
    lambda entry: entry.replace(b'"share":0.05', b'"share":' + b"9" * 5000, 1),
    lambda entry: entry.replace(b'"share":0.05', b'"share":-0', 1),
    lambda entry: entry.replace(b'"share":0.05', b'"share":' + b"[" * 100_000 + b"]" * 100_000, 1),
    lambda entry: entry.replace(b'"via":"rest"', b'"via":"\\u0072est"', 1),
    lambda entry: entry.replace(b'"via":"rest"', b'"via":"\\ud800"', 1),
    lambda entry: entry.replace(b'"via":"rest"', b'"via":"\xff"', 1),
    lambda entry: b"\xef\xbb\xbf" + entry,
    lambda entry: b"",
]


@pytest.mark.parametrize("spelling", range(len(SPELLINGS)))
def test_an_entry_spelt_otherwise_is_refused(judge: Judge, spelling: int) -> None:
    log = story()
    changed = SPELLINGS[spelling](log.entries[12])
    assert changed != log.entries[12]
    log.entries[12] = changed
    judge.refuses(zipped(members(log, KEY)), "Entry 12 is not canonical JSON")


@pytest.mark.parametrize("value", ["null", "[]", "1", '"text"', "{}"])
def test_an_entry_that_is_no_event_is_refused(judge: Judge, value: str) -> None:
    log = story()
    log.entries[12] = value.encode()
    judge.refuses(zipped(members(log, KEY)), "Entry 12 is no event")


def test_both_canonical_writers_agree() -> None:
    numbers = [
        0,
        -1,
        0.1,
        1e-7,
        1.5e-7,
        1e-6,
        123456.789,
        1e21,
        1.25e22,
        -1e300,
        5e-324,
        1e15,
        9e15,
        2.5,
        1 / 3,
    ]
    value = {
        "n": numbers,
        "\ufb33": "\x7f\x1f",
        "\U0001f600": None,
        "é": [True, {}],
        "": "\u2028</",
    }
    assert verifier.canonical(value).encode() == canonical.encode(value)
    assert verifier.parse(canonical.encode(value)) == value
