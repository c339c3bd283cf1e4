"""Votes and approvals around the rules: who may not vote, on what, with which key, and what no
approval may rest on.
"""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from registry.blobs.store import Blobs
from registry.commands import accounts, reviews, versions
from registry.db.store import Store
from registry.documents import canonical
from registry.queries import reviews as asked
from registry.rules.actors import SYSTEM
from tests.build import ADAPTER_META, Person, a_person, a_world, adapter_files, register
from tests.db.around import App, as_app, audit, cause, settle
from tests.db.conftest import Rows

REFUSED, UNMET = "CS006", "CS007"
VOTE = (
    "insert into vote (id, review_id, account_id, team, verdict, reason_commitment, decision, "
    "decision_digest, signature, "
    "key_id, at) values (%(id)s, %(review)s, %(account)s, %(team)s, %(verdict)s, %(reason)s, "
    "%(decision)s, %(digest)s, "
    "%(signature)s, %(key)s, now())"
)


def ballot(rows: Rows, number: int, review: UUID, person: Person, **changes: Any) -> dict[str, Any]:
    """A vote's columns, sound unless changed: properly signed over the decision that this person
    would be shown.
    """
    assert person.key is not None
    decision = asked.draft(rows.world.store, rows.world.risk.actor, number).decision
    team = next(iter(person.actor.grants)).team
    decision |= {
        "account": str(person.id),
        "team": team,
        "verdict": "approve",
        "reason_commitment": "sha256:" + "0" * 64,
    }
    decision |= changes.pop("decision", {})
    key, signature = person.key.sign_document(decision, "decision")
    return {
        "id": uuid4(),
        "review": review,
        "account": person.id,
        "team": team,
        "verdict": decision["verdict"],
        "reason": decision["reason_commitment"],
        "decision": json.dumps(decision),
        "digest": canonical.digest(decision),
        "signature": signature,
        "key": key,
        **changes,
    }


def cast(connection: App, *votes: dict[str, Any]) -> None:
    audit(connection, *(("vote", vote["id"]) for vote in votes))
    for vote in votes:
        connection.execute(VOTE, vote)


def said(store: Store, *votes: dict[str, Any]) -> tuple[str, str]:
    """What refused the last of these votes, and its words."""
    with as_app(store) as connection:
        cast(connection, *votes[:-1])
        with pytest.raises(psycopg.Error) as refusal:
            cast(connection, votes[-1])
            settle(connection)
        return cause(refusal.value), str(refusal.value.diag.message_primary)


def reviewer(rows: Rows, person: Person) -> Person:
    """Let somebody who may not vote hold the role all the same: the role is not what must stop
    him.
    """
    accounts.create(rows.world.store, SYSTEM, person.actor.name, ["reviewer"], rows.world.team)
    return person


def test_a_sound_vote_is_let_through(store: Store, rows: Rows) -> None:
    with as_app(store) as connection:
        cast(
            connection,
            ballot(rows, rows.ids["opened"], rows.ids["opened_review"], rows.world.compliance),
        )
        settle(connection)


@pytest.mark.parametrize("who", ["engineer", "data_owner"])
def test_makers_do_not_vote(store: Store, rows: Rows, who: str) -> None:
    """The engineer submitted and asked for the training, the owner brought the data."""
    person = reviewer(rows, getattr(rows.world, who))
    vote = ballot(rows, rows.ids["opened"], rows.ids["opened_review"], person)
    assert said(store, vote) == (
        REFUSED,
        "those who made, submitted or brought data for a version may not vote on it",
    )


def test_whoever_registered_it_does_not_vote(
    store: Store, blobs: Blobs, team: str, rows: Rows
) -> None:
    world = a_world(store, blobs, team)
    maker = a_person(store, "engineer", team=team)
    draft = versions.Draft(
        "adapter",
        f"{team}/own",
        adapter_files(blobs),
        {**ADAPTER_META, "domain": "legal"},
        world.base.ref,
    )
    added = register(store, blobs, maker.actor, draft)
    opened = reviews.submit(
        store,
        blobs,
        world.engineer.actor,
        reviews.Submission(added.ref, "production", world.use_case, "please"),
    )
    own = Rows(world)
    review = own.find(
        "review", "select id from review where number = :number", number=opened.review
    )
    vote = ballot(own, opened.review, review, reviewer(own, maker))
    assert said(store, vote) == (
        REFUSED,
        "those who made, submitted or brought data for a version may not vote on it",
    )


def test_no_service_votes(store: Store, rows: Rows) -> None:
    vote = ballot(rows, rows.ids["opened"], rows.ids["opened_review"], rows.world.trainer)
    assert said(store, vote) == (REFUSED, "only people vote")


def test_nobody_votes_without_the_role(store: Store, rows: Rows) -> None:
    stranger = a_person(store, "auditor", team="compliance")
    vote = ballot(rows, rows.ids["opened"], rows.ids["opened_review"], stranger)
    assert said(store, vote) == (REFUSED, "the voter holds no role that the policy names")


def test_nobody_speaks_for_a_team_that_is_not_his(store: Store, rows: Rows) -> None:
    vote = ballot(
        rows,
        rows.ids["opened"],
        rows.ids["opened_review"],
        rows.world.compliance,
        team="risk",
        decision={"team": "risk"},
    )
    assert said(store, vote) == (REFUSED, "the voter holds no role that the policy names")


def test_another_ones_key_does_not_vote(store: Store, rows: Rows) -> None:
    assert rows.world.risk.key is not None
    vote = ballot(
        rows,
        rows.ids["opened"],
        rows.ids["opened_review"],
        rows.world.compliance,
        key=rows.world.risk.key.id,
    )
    assert "is not an enrolled key of the voter" in said(store, vote)[1]
    unknown = ballot(
        rows, rows.ids["opened"], rows.ids["opened_review"], rows.world.compliance, key="0" * 16
    )
    assert "is not an enrolled key of the voter" in said(store, unknown)[1]


def test_a_revoked_key_does_not_vote(store: Store, rows: Rows) -> None:
    person = a_person(store, "reviewer", team="compliance")
    vote = ballot(rows, rows.ids["opened"], rows.ids["opened_review"], person)
    with as_app(store) as connection:
        audit(connection, ("signing_key", vote["key"]))
        connection.execute("update signing_key set revoked_at = now() where id = %(key)s", vote)
        with pytest.raises(psycopg.Error) as refusal:
            cast(connection, vote)
    assert "is not an enrolled key of the voter" in str(refusal.value)


def test_a_closed_review_takes_no_vote(store: Store, rows: Rows) -> None:
    person = a_person(store, "reviewer", team="legal")
    vote = ballot(rows, rows.ids["closed"], rows.ids["closed_review"], person)
    assert said(store, vote) == (REFUSED, f"review {rows.ids['closed']} is approved, not open")


@pytest.mark.parametrize(
    "decision",
    [
        {"evidence_root": "sha256:" + "1" * 64},
        {"review": 1_000_000},
        {"review": "1"},
        {"environment": "dev"},
        {"version_id": str(uuid4())},
        {"policy_digest": "sha256:" + "1" * 64},
        {"account": str(uuid4())},
        {"team": "other"},
    ],
    ids=lambda decision: next(iter(decision)),
)
def test_a_decision_about_something_else_is_no_vote_here(
    store: Store, rows: Rows, decision: dict[str, Any]
) -> None:
    vote = ballot(
        rows,
        rows.ids["opened"],
        rows.ids["opened_review"],
        rows.world.compliance,
        decision=decision,
    )
    assert said(store, vote) == (REFUSED, "the signed decision is not about this review")


@pytest.mark.parametrize("column", ["verdict", "reason"])
def test_the_row_says_what_the_decision_says(store: Store, rows: Rows, column: str) -> None:
    other = {"verdict": "reject", "reason": "sha256:" + "2" * 64}[column]
    vote = ballot(
        rows,
        rows.ids["opened"],
        rows.ids["opened_review"],
        rows.world.compliance,
        **{column: other},
    )
    assert said(store, vote) == (REFUSED, "the signed decision is not about this review")


def test_a_second_vote_of_one_person_is_refused(store: Store, rows: Rows) -> None:
    votes = [
        ballot(rows, rows.ids["opened"], rows.ids["opened_review"], rows.world.compliance)
        for _ in range(2)
    ]
    assert said(store, *votes)[0] == "uq_vote_review_id_account_id"


APPROVE = (
    "update review set state = 'approved', decided_at = now(), expires_at = now() + "
    "%(days)s * interval '1 day' where id = %(review)s"
)


def approving(
    rows: Rows, review: str, *people: Person, days: int = 1, verdict: str = "approve"
) -> tuple[str, str]:
    """What refuses an approval on these people's votes, and its words; nothing when it is let
    through.
    """
    number, review_id = rows.ids[review], rows.ids[f"{review}_review"]
    with as_app(rows.world.store) as connection:
        cast(
            connection,
            *(
                ballot(
                    rows,
                    number,
                    review_id,
                    one,
                    decision={"verdict": verdict if last else "approve"},
                )
                for one, last in ((one, one is people[-1]) for one in people)
            ),
        )
        audit(connection, ("review", review_id))
        try:
            connection.execute(APPROVE, {"review": review_id, "days": days})
            settle(connection)
        except psycopg.Error as refusal:
            return cause(refusal), str(refusal.diag.message_primary)
    return "", ""


def test_an_approval_rests_on_its_quorum(rows: Rows) -> None:
    world = rows.world
    colleague = a_person(world.store, "reviewer", team="compliance")
    assert approving(rows, "opened") == (
        UNMET,
        f"review {rows.ids['opened']} has 0 approvals from 0 teams; its policy asks for 2",
    )
    assert approving(rows, "opened", world.compliance)[0] == UNMET
    one_team = approving(rows, "opened", world.compliance, colleague)
    assert (one_team[0], "2 approvals from 1 teams" in one_team[1]) == (UNMET, True)
    assert approving(rows, "opened", world.compliance, world.risk, verdict="reject")[0] == UNMET
    assert approving(rows, "opened", world.compliance, world.risk) == ("", "")


def test_an_approval_outlives_no_policy(rows: Rows) -> None:
    world = rows.world
    assert approving(rows, "opened", world.compliance, world.risk, days=180) == ("", "")
    lasting = approving(rows, "opened", world.compliance, world.risk, days=181)
    assert (lasting[0], "lasts longer" in lasting[1]) == (UNMET, True)


def test_no_votes_outweigh_a_failed_gate(rows: Rows) -> None:
    refusal = approving(rows, "failing", rows.world.compliance, rows.world.risk)
    assert refusal == (UNMET, f"the gate of review {rows.ids['failing']} did not pass")


def test_a_recalled_version_is_never_approved(store: Store, rows: Rows) -> None:
    rows.find("doubtful", "select number from review where id = :doubtful_review")
    # The recall ended the review, so not even a vote is taken.
    with pytest.raises(psycopg.DatabaseError, match="is voided, not open"):
        approving(rows, "doubtful", rows.world.compliance, rows.world.risk)


def test_an_approval_that_ran_out_serves_nothing(store: Store, rows: Rows) -> None:
    world, review = rows.world, rows.ids["opened_review"]
    votes = [
        ballot(rows, rows.ids["opened"], review, one) for one in (world.compliance, world.risk)
    ]
    rollout = uuid4()
    params = {**rows.ids, "review": review, "rollout": rollout}
    start = (
        "insert into rollout values (%(rollout)s, %(channel)s, %(v3)s, %(review)s, "
        "'pending', 0, null, null, now(), null)"
    )
    with as_app(store) as connection:
        cast(connection, *votes)
        audit(connection, ("review", review), ("rollout", rollout))
        with connection.transaction(force_rollback=True):
            connection.execute(APPROVE, {**params, "days": 1})
            connection.execute(start, params)
        connection.execute(APPROVE.replace("now() + %(days)s", "now() - 1"), params)
        with pytest.raises(psycopg.Error) as refusal:
            connection.execute(start, params)
    assert (cause(refusal.value), "no approval in force" in str(refusal.value)) == ("CS004", True)


def test_a_policy_that_was_replaced_opens_no_review(store: Store, rows: Rows) -> None:
    new, policy = uuid4(), uuid4()
    with as_app(store) as connection:
        audit(connection, ("review", new), ("policy_version", policy))
        connection.execute(
            "insert into policy_version select %s, environment, number + 1, digest, rules, text, "
            "null, now() "
            "from policy_version where id = %s",
            (policy, rows.ids["policy"]),
        )
        with pytest.raises(psycopg.Error) as refusal:
            connection.execute(
                "insert into review (id, version_id, environment, use_case_version_id, "
                "policy_version_id, evidence, evidence_root, "
                "verdict, note_commitment, submitted_by, state, opened_at) select %s, %s, "
                "environment, use_case_version_id, "
                "policy_version_id, evidence, evidence_root, verdict, note_commitment, "
                "submitted_by, 'open', now() "
                "from review where id = %s",
                (new, rows.ids["v1"], rows.ids["closed_review"]),
            )
    assert cause(refusal.value) == "CS009"
