"""The log as people search it, as a check recomputes it, as a pack carries it, and as the fold of
the tables.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from zipfile import ZIP_STORED

import pytest
from sqlalchemy import text

from registry.db.store import Store
from registry.errors import Conflict, Forbidden, Invalid, Unverified
from registry.proof import merkle, notes
from registry.proof.keys import SigningKey, verify_document
from registry.queries import audit
from registry.queries.pages import PageRequest
from registry.rules.actors import SYSTEM, Actor
from tests.build import World, a_person
from tests.queries.logs import ORIGIN, Log


def test_events_are_found_by_subject_and_action_newest_first(store: Store, served: World) -> None:
    actor = served.engineer.actor
    found = audit.events(store, actor, subject=f"review:{served.review}").items
    assert [event.action for event in found] == ["review:vote", "review:vote", "review:submit"]
    assert {event.team for event in found} == {served.team}
    assert found[0].actor == served.risk.actor.name
    assert found[0].facts["verdict"] == "approve"
    assert (found[0].via, found[0].outcome) == ("test", "done")
    started = audit.events(store, actor, action="rollout:start").items
    assert len(started) == 1


def test_events_come_page_by_page_each_once(store: Store, served: World) -> None:
    everything = audit.events(store, served.engineer.actor, PageRequest(limit=200))
    assert everything.next is None
    found, cursor = [], None
    while True:
        page = audit.events(store, served.engineer.actor, PageRequest(cursor, 7))
        found += page.items
        cursor = page.next
        if cursor is None:
            break
    assert found == everything.items
    with pytest.raises(Invalid) as refused:
        audit.events(store, served.engineer.actor, PageRequest("x"))
    assert refused.value.kind == "bad-cursor"


def test_only_auditors_and_administrators_read_all_of_it(
    store: Store, served: World, stranger: Actor
) -> None:
    assert audit.events(store, stranger).items == []
    teams = {
        event.team
        for event in audit.events(store, served.engineer.actor, PageRequest(limit=200)).items
    }
    assert teams == {served.team, None}  # his key was enrolled by himself, in no team
    enrolled = audit.events(store, served.engineer.actor, action="key:enroll").items
    assert {event.actor for event in enrolled} == {served.engineer.actor.name}
    for role in ("auditor", "admin"):
        person = a_person(store, role, team="office")
        assert (
            len(
                audit.events(
                    store, person.actor, PageRequest(limit=200), action="account:create"
                ).items
            )
            > 1
        )


def test_a_fresh_log_has_no_head_and_all_its_events_wait(log: Log) -> None:
    assert audit.tree_head(log.store, SYSTEM) is None
    checked = audit.check(log.store, SYSTEM, log.log_key)
    assert (checked.ok, checked.size, checked.heads) == (True, 0, 0)
    assert checked.root == f"sha256:{merkle.EMPTY.hex()}"
    with pytest.raises(Conflict) as refused:
        log.pack()
    assert refused.value.kind == "nothing-signed"
    assert all(event.seq is None for event in audit.events(log.store, SYSTEM).items)


def test_a_whole_log_checks_out(full: Log, small_pages: None) -> None:
    checked = audit.check(full.store, SYSTEM, full.log_key)
    assert checked.problems == []
    assert checked.ok
    assert (checked.votes, checked.heads) == (2, 1)
    assert checked.events == checked.size > 20
    head = audit.tree_head(full.store, SYSTEM)
    assert head is not None
    assert (head.size, head.root, head.pending) == (checked.size, checked.root, 0)
    assert full.log_key.startswith(head.key + "+")
    assert notes.open_tree_head(head.note, full.log_key)[0] == head.size
    newest = audit.events(full.store, SYSTEM).items[0]
    assert (newest.seq, newest.leaf is not None) == (checked.size - 1, True)


def test_a_log_is_followed_from_head_to_head(log: Log, small_pages: None) -> None:
    for _ in range(4):
        a_person(log.store, "engineer", team="full")
        log.sequencer.step()
    checked = audit.check(log.store, SYSTEM, log.log_key)
    assert (checked.ok, checked.heads) == (True, 4)
    a_person(log.store, "engineer", team="full")
    waiting = audit.check(log.store, SYSTEM, log.log_key)
    assert waiting.ok
    assert waiting.events == waiting.size + 2
    about = json.loads(log.pack().read("pack.json"))
    assert about["size"] == checked.size
    assert len(about["members"]) == 4 + 2


@pytest.mark.parametrize(
    ("table", "statement", "told"),
    [
        (
            "event",
            "update event set entry = entry || ' ' where action = 'review:submit'",
            "is not the hash",
        ),
        (
            "event",
            "update event set subject = 'nobody' where action = 'review:submit'",
            "its column subject differs",
        ),
        (
            "event",
            "update event set at = now() where action = 'review:submit'",
            "its column at differs",
        ),
        ("leaf", "update leaf set hash = sha256('x') where seq = 3", "leaf 3 is not the hash"),
        ("leaf", "delete from leaf where seq = 3", "leaf 3 is missing"),
        (
            "leaf",
            "delete from leaf where seq = (select max(seq) from leaf)",
            "are neither in the log nor",
        ),
        (
            "tree_head",
            "update tree_head set root = 'sha256:' || repeat('0', 64)",
            "has another root",
        ),
        (
            "tree_head",
            "update tree_head set note = replace(note, 'test', 'rest')",
            "note has no signature",
        ),
        (
            "vote",
            'update vote set decision = decision || \'{"environment": "dev"}\'',
            "the signature is not over",
        ),
        ("vote", "update vote set verdict = 'reject'", "the signed decision has another verdict"),
        ("vote", "update vote set team = 'other'", "the signed decision has another team"),
        (
            "review",
            "update review set evidence_root = 'sha256:' || repeat('0', 64)",
            "has another evidence_root",
        ),
        (
            "signing_key",
            "update signing_key set revoked_at = enrolled_at",
            "was not the voter's at that moment",
        ),
        ("signing_key", "update signing_key set proof = 'AAAA'", "was enrolled without proof"),
    ],
)
def test_whatever_is_changed_behind_its_back_is_told(
    full: Log, table: str, statement: str, told: str
) -> None:
    with full.tampered(table, statement):
        checked = audit.check(full.store, SYSTEM, full.log_key)
    assert not checked.ok
    assert any(told in problem for problem in checked.problems), checked.problems


def test_a_log_signed_by_another_key_does_not_check_out(full: Log) -> None:
    other = notes.verifier_key(ORIGIN, SigningKey.generate().public)
    assert any(
        "no signature by the given key" in one
        for one in audit.check(full.store, SYSTEM, other).problems
    )
    with pytest.raises(Invalid) as refused:
        audit.check(full.store, SYSTEM, "no key")
    assert refused.value.kind == "bad-verifier-key"
    with pytest.raises(Unverified):
        audit.export(full.store, SYSTEM, other, io.BytesIO())


def test_a_pack_proves_itself_without_us(full: Log, small_pages: None) -> None:
    pack = full.pack()
    about = json.loads(pack.read("pack.json"))
    names = pack.namelist()
    assert names == ["events.jsonl", f"tree_heads/{about['size']}.note", "votes.jsonl", "pack.json"]
    assert {info.compress_type for info in pack.infolist()} == {ZIP_STORED}
    assert about["members"] == {
        name: hashlib.sha256(pack.read(name)).hexdigest() for name in names[:-1]
    }
    assert (about["format"], about["origin"]) == ("countersign-pack/1", ORIGIN)
    lines = pack.read("events.jsonl").split(b"\n")
    assert lines.pop() == b""
    root = merkle.root([merkle.leaf_hash(line) for line in lines])
    assert (len(lines), f"sha256:{root.hex()}") == (about["size"], about["root"])
    assert notes.open_tree_head(pack.read(names[1]).decode(), full.log_key) == (len(lines), root)
    votes = [json.loads(line) for line in pack.read("votes.jsonl").splitlines()]
    assert len(votes) == 2
    images = {
        (row["table"], row["key"]): row["row"] for line in lines for row in json.loads(line)["rows"]
    }
    for one in votes:
        vote = one["vote"]
        assert verify_document(
            one["key"]["public_key"], vote["decision"], "decision", vote["signature"]
        )
        assert images["vote", vote["id"]] == vote
        assert images["review", vote["review_id"]] == one["review"]
        assert images["signing_key", vote["key_id"]] == one["key"]
        assert one["review"]["state"] == "approved"


def test_the_same_log_gives_the_same_pack(full: Log) -> None:
    first, second = io.BytesIO(), io.BytesIO()
    audit.export(full.store, SYSTEM, full.log_key, first)
    audit.export(full.store, SYSTEM, full.log_key, second)
    assert first.getvalue() == second.getvalue()


def test_a_pack_goes_no_further_than_what_was_signed(full: Log) -> None:
    """A vote the newest head does not cover is left out, and a review is shown as it stood under
    that head.
    """
    with full.store.read(SYSTEM) as session:
        leaves = list(session.scalars(text("select hash from leaf order by seq")))[
            :-1
        ]  # all but the last vote
    root = merkle.root(leaves)
    note = notes.sign_note(notes.checkpoint_text(ORIGIN, len(leaves), root), ORIGIN, full.key)
    with full.tampered(
        "tree_head",
        f"update tree_head set size = {len(leaves)}, root = 'sha256:{root.hex()}', note = '{note}'",
    ):
        (only,) = [json.loads(line) for line in full.pack().read("votes.jsonl").splitlines()]
    assert only["review"]["state"] == "open"


def test_a_gap_in_the_log_is_never_exported(full: Log) -> None:
    with (
        full.tampered("leaf", "delete from leaf where seq = 3"),
        pytest.raises(Unverified) as refused,
    ):
        full.pack()
    assert refused.value.kind == "log-gap"


def test_only_some_may_take_the_log_out(store: Store, served: World) -> None:
    key = notes.verifier_key(ORIGIN, SigningKey.generate().public)
    for person in (served.engineer, served.trainer):
        with pytest.raises(Forbidden) as refused:
            audit.export(store, person.actor, key, io.BytesIO())
        assert refused.value.kind == "role-missing"
    for role in ("auditor", "admin", "reviewer"):
        with pytest.raises((Conflict, Unverified)):
            audit.export(store, a_person(store, role, team="office").actor, key, io.BytesIO())


def test_events_that_wait_for_their_number_count_too(log: Log) -> None:
    assert log.differences() == []
    log.sequencer.step()
    a_person(log.store, "engineer", team="full")
    assert log.differences() == []


def test_the_tables_are_the_fold_of_the_log(full: Log, small_pages: None) -> None:
    assert full.differences() == []
    with full.store.read(SYSTEM) as session:
        rebuilt = audit.rebuild(session)
        (events,) = session.execute(text("select count(*) from event")).one()
        (votes,) = session.execute(text("select count(*) from vote")).one()
    assert rebuilt.events == events
    assert rebuilt.rows["vote"] == votes == 2
    assert rebuilt.rows["channel"] == 0


@pytest.mark.parametrize(
    ("table", "statement", "told"),
    [
        ("version", "update version set facts = '{}' where number = 1", "facts: log"),
        (
            "review",
            "update review set state = 'rejected'",
            "state: log 'approved', table 'rejected'",
        ),
        (
            "role_grant",
            "insert into role_grant values (gen_random_uuid(), (select id from account limit 1), "
            "'admin', "
            "null, now())",
            "the table has it, the log does not",
        ),
        ("eval_metric", "delete from eval_metric", "the log has it, the table does not"),
        ("eval_metric", "update eval_metric set ci_low = ci_low / 2", "ci_low: log"),
    ],
)
def test_a_row_changed_without_the_log_is_named(
    full: Log, table: str, statement: str, told: str
) -> None:
    with full.tampered(table, statement):
        found = full.differences()
    assert found
    assert all(one.startswith(f"{table} ") and told in one for one in found), found


def test_the_note_names_its_key_even_without_the_trusted_one(full: Log) -> None:
    head = audit.tree_head(full.store, SYSTEM, full.log_key)
    assert head is not None
    assert head.key == full.log_key
    assert base64.b64decode(head.note.split(" ")[-1])[:4].hex() == full.log_key.split("+")[1]
