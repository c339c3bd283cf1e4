"""PostgreSQL refuses the impossible: each invariant of a row, tried around its rule by raw SQL as
the app role.
"""

from __future__ import annotations

from uuid import uuid4

import pytest

from registry.db.store import Store
from tests.db.around import refused
from tests.db.conftest import Rows

FROZEN, ILLEGAL, UNFIT = "CS003", "CS002", "CS010"


# What is tried: (statement, the row it touches, who or what must refuse it).
UPDATES: dict[str, tuple[str, tuple[str, str], str]] = {
    "the manifest of a version": (
        "update version set manifest_digest = 'sha256:' || repeat('0', 64) where id = %(v2)s",
        ("version", "v2"),
        FROZEN,
    ),
    "the number of a version": (
        "update version set number = 77 where id = %(v2)s",
        ("version", "v2"),
        FROZEN,
    ),
    "the tensor root of a version": (
        "update version set tensor_root = null where id = %(v2)s",
        ("version", "v2"),
        FROZEN,
    ),
    "the base of a version": (
        "update version set base_version_id = %(v1)s where id = %(v2)s",
        ("version", "v2"),
        FROZEN,
    ),
    "the line of a version": (
        "update version set line_id = (select line_id from version where id = %(other)s) "
        "where id = %(v2)s",
        ("version", "v2"),
        FROZEN,
    ),
    "the training of a version": (
        "update version set training_run_id = null where id = %(v2)s",
        ("version", "v2"),
        FROZEN,
    ),
    "the purpose of a version": (
        "update version set meta = '{}' where id = %(v2)s",
        ("version", "v2"),
        FROZEN,
    ),
    "a recalled draft-like version": (
        "update version set meta = '{}' where id = %(fallen)s",
        ("version", "fallen"),
        FROZEN,
    ),
    "a file of a version": (
        "update version_file set blob_id = %(blob)s where id = %(file)s",
        ("version_file", "file"),
        FROZEN,
    ),
    "a file away from its version": (
        "update version_file set version_id = %(draft)s where id = %(file)s",
        ("version_file", "file"),
        FROZEN,
    ),
    "a draft's file into a version": (
        "update version_file set version_id = %(v2)s where id = %(drafted_file)s",
        ("version_file", "drafted_file"),
        FROZEN,
    ),
    "the name of a version": (
        "update node set ref = ref || 'x' where id = %(v2)s",
        ("node", "v2"),
        FROZEN,
    ),
    "the age of a version": (
        "update node set seq = seq + 100000 where id = %(suite)s",
        ("node", "suite"),
        FROZEN,
    ),
    "a reused reference": (
        "update node set ref = (select ref from node where id = %(v2)s) where id = %(draft)s",
        ("node", "draft"),
        "uq_node_ref",
    ),
    "a number without its name": (
        "update version set number = 2, state = 'registered' where id = %(draft)s",
        ("version", "draft"),
        UNFIT,
    ),
    "a numbered draft": (
        "update version set number = 2 where id = %(draft)s",
        ("version", "draft"),
        "ck_version_numbered",
    ),
    "a line's team": ("update line set team = 'x' where id = %(line)s", ("line", "line"), FROZEN),
    "a line's domain": (
        "update line set domain = 'other' where id = %(line)s",
        ("line", "line"),
        FROZEN,
    ),
    "a line's domain away": (
        "update line set domain = null where id = %(line)s",
        ("line", "line"),
        FROZEN,
    ),
    "a blank domain": (
        "update line set domain = ' ' where id = (select line_id from version where id = %(base)s)",
        ("line", "line"),
        FROZEN,
    ),
    "a blob's size": (
        "update blob set size = size + 1 where id = %(blob)s",
        ("blob", "blob"),
        FROZEN,
    ),
    "the rows of a data set": (
        "update dataset_version set rows = 1 where id = %(dataset)s",
        ("dataset_version", "dataset"),
        FROZEN,
    ),
    "an eval suite version": (
        "update eval_suite_version set metric = 'other' where id = %(suite)s",
        ("eval_suite_version", "suite"),
        FROZEN,
    ),
    "a metric": (
        "update eval_metric set value = 1 where id = %(metric)s",
        ("eval_metric", "metric"),
        FROZEN,
    ),
    "a published policy": (
        "update policy_version set rules = '{}' where id = %(policy)s",
        ("policy_version", "policy"),
        FROZEN,
    ),
    "a lineage edge": (
        "update lineage_edge set grade = 'claimed' where id = %(edge)s",
        ("lineage_edge", "edge"),
        FROZEN,
    ),
    "an account's kind": (
        "update account set kind = 'person' where id = %(trainer)s",
        ("account", "trainer"),
        FROZEN,
    ),
    "a grant": (
        "update role_grant set role = 'admin' where id = %(grant)s",
        ("role_grant", "grant"),
        FROZEN,
    ),
    "a token's life": (
        "update token set expires_at = expires_at + interval '1 day' where id = %(token)s",
        ("token", "token"),
        FROZEN,
    ),
    "a revoked token": (
        "update token set revoked_at = null where id = %(token)s",
        ("token", "token"),
        FROZEN,
    ),
    "a key's owner": (
        "update signing_key set account_id = %(risk)s where id = %(key)s",
        ("signing_key", "key"),
        FROZEN,
    ),
    "a vote": ("update vote set verdict = 'reject' where id = %(vote)s", ("vote", "vote"), FROZEN),
    "the evidence of a review": (
        "update review set evidence = '{}' where id = %(opened_review)s",
        ("review", "opened_review"),
        FROZEN,
    ),
    "the verdict of a gate": (
        'update review set verdict = \'{"outcome": "pass"}\' where id = %(failing_review)s',
        ("review", "failing_review"),
        FROZEN,
    ),
    "the expiry of an approval": (
        "update review set expires_at = expires_at + interval '9 years' where id = "
        "%(closed_review)s",
        ("review", "closed_review"),
        FROZEN,
    ),
    "an approval back to open": (
        "update review set state = 'open' where id = %(closed_review)s",
        ("review", "closed_review"),
        ILLEGAL,
    ),
    "the report of a training run": (
        "update training_run set report = '{}' where id = %(run)s",
        ("training_run", "run"),
        FROZEN,
    ),
    "a succeeded training run": (
        "update training_run set state = 'queued' where id = %(run)s",
        ("training_run", "run"),
        FROZEN,
    ),
    "the samples of an eval run": (
        "update eval_run set samples_blob_id = %(blob)s where id = %(eval_run)s",
        ("eval_run", "eval_run"),
        FROZEN,
    ),
    "a recalled version": (
        "update version set state = 'registered' where id = %(fallen)s",
        ("version", "fallen"),
        ILLEGAL,
    ),
    "a version back to draft": (
        "update version set state = 'draft' where id = %(v1)s",
        ("version", "v1"),
        ILLEGAL,
    ),
    "an ended rollout": (
        "update rollout set state = 'canary', ended_at = null where id = %(ended)s",
        ("rollout", "ended"),
        FROZEN,
    ),
    "a terminal rollout with weight": (
        "update rollout set state = 'aborted', ended_at = now() where id = %(active)s",
        ("rollout", "active"),
        "ck_rollout_terminal_weight",
    ),
    "a terminal rollout without an end": (
        "update rollout set state = 'aborted', weight_bp = 0 where id = %(active)s",
        ("rollout", "active"),
        "ck_rollout_ended",
    ),
    "a rollout beyond all traffic": (
        "update rollout set weight_bp = 10001 where id = %(active)s",
        ("rollout", "active"),
        "ck_rollout_weight",
    ),
    "what a generation served": (
        "update route_generation set stable_version_id = %(base)s where id = %(generation2)s",
        ("route_generation", "generation2"),
        FROZEN,
    ),
    "the end of a closed range": (
        "update route_generation set valid_to = valid_to + interval '1 hour' where id = "
        "%(generation1)s",
        ("route_generation", "generation1"),
        FROZEN,
    ),
    "a closed range to open": (
        "update route_generation set valid_to = null where id = %(generation1)s",
        ("route_generation", "generation1"),
        FROZEN,
    ),
    "a range closed with nothing after": (
        "update route_generation set valid_to = now() where id = %(generation2)s",
        ("route_generation", "generation2"),
        "CS005",
    ),
    "a recall that leaves a route": (
        "update version set state = 'recalled' where id = %(v2)s",
        ("version", "v2"),
        "CS004",
    ),
    "a recall that leaves a canary": (
        "update version set state = 'recalled' where id = %(kept)s",
        ("version", "kept"),
        "CS004",
    ),
    "a recall of the base alone": (
        "update version set state = 'recalled' where id = %(base)s",
        ("version", "base"),
        "CS004",
    ),
    "a recall of the data alone": (
        "update dataset_version set state = 'recalled' where id = %(dataset)s",
        ("dataset_version", "dataset"),
        "CS004",
    ),
    "a canary with a promoted state": (
        "update rollout set state = 'succeeded', weight_bp = 0, ended_at = now() "
        "where id = %(active)s",
        ("rollout", "active"),
        ILLEGAL,
    ),
}


@pytest.mark.parametrize("what", UPDATES)
def test_nobody_changes(store: Store, rows: Rows, what: str) -> None:
    statement, (table, key), refuser = UPDATES[what]
    assert refused(store, statement, rows.ids, (table, rows.ids[key]))[0] == refuser


INSERTS: dict[str, tuple[str, str, str, str]] = {
    "a file of a registered version": (
        "version_file",
        "insert into version_file values (%(new)s, %(v2)s, 'more', %(blob)s)",
        FROZEN,
        "frozen",
    ),
    "a version that begins registered": (
        "version",
        "insert into version (id, line_id, number, state, manifest_digest, tensor_root, meta, "
        "facts, created_at) "
        "select id, %(line)s, 9, 'registered', 'sha256:' || repeat('1', 64), 'sha256:x', '{}', "
        "'{}', now() from node "
        "where id = %(suite)s",
        UNFIT,
        "not bound to a base",
    ),
    "an edge from older to younger": (
        "lineage_edge",
        "insert into lineage_edge select %(new)s, c.id, c.seq, p.id, p.seq, 'derived_from', "
        "'claimed', now() "
        "from node c, node p where c.id = %(base)s and p.id = %(v2)s",
        "ck_lineage_edge_parent_older",
        "",
    ),
    "an edge to oneself": (
        "lineage_edge",
        "insert into lineage_edge select %(new)s, id, seq, id, seq, 'derived_from', 'claimed', "
        "now() "
        "from node where id = %(v2)s",
        "ck_lineage_edge_parent_older",
        "",
    ),
    "an edge with a parent's forged age": (
        "lineage_edge",
        "insert into lineage_edge select %(new)s, c.id, c.seq, p.id, c.seq - 1, 'derived_from', "
        "'claimed', "
        "now() from node c, node p where c.id = %(base)s and p.id = %(v2)s",
        "fk_lineage_edge_parent_id_parent_seq",
        "",
    ),
    "an edge with a child's forged age": (
        "lineage_edge",
        "insert into lineage_edge select %(new)s, c.id, p.seq + 1, p.id, p.seq, 'derived_from', "
        "'claimed', "
        "now() from node c, node p where c.id = %(base)s and p.id = %(v2)s",
        "fk_lineage_edge_child_id_child_seq",
        "",
    ),
    "a second live review": (
        "review",
        "insert into review (id, version_id, environment, use_case_version_id, policy_version_id, "
        "evidence, evidence_root, "
        "verdict, note_commitment, submitted_by, state, opened_at) select %(new)s, version_id, "
        "environment, use_case_version_id, "
        "policy_version_id, evidence, evidence_root, verdict, note_commitment, submitted_by, "
        "'open', now() from review "
        "where id = %(kept_review)s",
        "uq_review_live",
        "",
    ),
    "a review under another environment's policy": (
        "review",
        "insert into review (id, version_id, environment, use_case_version_id, policy_version_id, "
        "evidence, evidence_root, "
        "verdict, note_commitment, submitted_by, state, opened_at) select %(new)s, %(v1)s, "
        "'staging', use_case_version_id, "
        "policy_version_id, evidence, evidence_root, verdict, note_commitment, submitted_by, "
        "'open', now() from review "
        "where id = %(closed_review)s",
        "CS009",
        "another policy",
    ),
    "a review of a draft": (
        "review",
        "insert into review (id, version_id, environment, use_case_version_id, policy_version_id, "
        "evidence, evidence_root, "
        "verdict, note_commitment, submitted_by, state, opened_at) select %(new)s, %(draft)s, "
        "environment, use_case_version_id, "
        "policy_version_id, evidence, evidence_root, verdict, note_commitment, submitted_by, "
        "'open', now() from review "
        "where id = %(closed_review)s",
        UNFIT,
        "is draft",
    ),
    "a review that begins approved": (
        "review",
        "insert into review (id, version_id, environment, use_case_version_id, policy_version_id, "
        "evidence, evidence_root, "
        "verdict, note_commitment, submitted_by, state, opened_at, decided_at, expires_at) select "
        "%(new)s, %(v1)s, "
        "environment, use_case_version_id, policy_version_id, evidence, evidence_root, verdict, "
        "note_commitment, submitted_by, "
        "'approved', now(), now(), now() + interval '1 day' from review where id = "
        "%(closed_review)s",
        "CS007",
        "0 approvals",
    ),
    "a token for ever": (
        "token",
        "insert into token values (%(new)s, %(engineer)s, 'sha256:' || repeat('a', 64), '[]', "
        "now(), "
        "now() + interval '367 days', null)",
        "ck_token_expiry",
        "",
    ),
    "a token that keeps its secret": (
        "token",
        "insert into token values (%(new)s, %(engineer)s, 'the secret itself', '[]', now(), "
        "now() + interval '1 day', null)",
        "ck_token_hash",
        "",
    ),
    "an engineer's token bound to an environment": (
        "token",
        "insert into token values (%(new)s, %(engineer)s, 'sha256:' || repeat('a', 64), "
        '\'[{"role": "engineer", '
        '"team": null, "environment": "dev"}]\', now(), now() + interval \'1 day\', null)',
        "ck_token_environment",
        "",
    ),
    "a gateway's token for no environment there is": (
        "token",
        "insert into token values (%(new)s, %(engineer)s, 'sha256:' || repeat('a', 64), "
        '\'[{"role": "gateway", '
        '"team": null, "environment": "mars"}]\', now(), now() + interval \'1 day\', null)',
        "ck_token_environment",
        "",
    ),
    "a channel named like a version": (
        "channel",
        "insert into channel values (%(new)s, %(line)s, 'production', 'v7', %(use_case)s, "
        "%(base)s, now())",
        "ck_channel_name",
        "",
    ),
    "a rollout of an unapproved version": (
        "rollout",
        "insert into rollout select %(new)s, %(channel)s, %(v3)s, %(opened_review)s, 'pending', "
        "0, null, null, "
        "now(), null",
        "CS004",
        "has no approval",
    ),
    "a rollout on another version's review": (
        "rollout",
        "insert into rollout select %(new)s, %(channel)s, %(v3)s, %(closed_review)s, 'pending', "
        "0, null, null, "
        "now(), null",
        "CS004",
        "not about this rollout",
    ),
    "a rollout on another environment's review": (
        "rollout",
        "insert into rollout select %(new)s, %(channel)s, %(kept)s, %(kept_review)s, 'pending', "
        "0, null, null, "
        "now(), null",
        "CS004",
        "not about this rollout",
    ),
    "a rollout of a recalled version": (
        "rollout",
        "insert into rollout select %(new)s, %(staging)s, %(fallen)s, %(doubtful_review)s, "
        "'pending', 0, null, "
        "null, now(), null",
        "CS004",
        "is recalled",
    ),
    "two active rollouts of a channel": (
        "rollout",
        "insert into rollout select %(new)s, %(staging)s, %(kept)s, %(kept_review)s, 'pending', "
        "0, null, null, "
        "now(), null",
        "uq_rollout_active",
        "",
    ),
    "a rollout that begins as a canary": (
        "rollout",
        "insert into rollout select %(new)s, %(channel)s, %(v2)s, %(closed_review)s, 'canary', "
        "500, null, null, "
        "now(), null",
        ILLEGAL,
        "from nothing to canary",
    ),
}


@pytest.mark.parametrize("what", INSERTS)
def test_nobody_adds(store: Store, rows: Rows, what: str) -> None:
    table, statement, refuser, words = INSERTS[what]
    new = uuid4()
    keys = [(table, new), (table, rows.ids["suite"])]
    got, said = refused(
        store, statement, {**rows.ids, "new": new if table != "token" else new.hex[:12]}, *keys
    )
    assert (got, words in said) == (refuser, True), said
