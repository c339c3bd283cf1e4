"""The log as people search it, as a check recomputes it, as a pack carries it, and as the fold of
the tables.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile

import pytest
from sqlalchemy import create_engine, text

from registry.blobs.store import Blobs
from registry.client.log_proofs import check_entry, check_growth
from registry.db.store import Store, open_engine
from registry.db.table import Table
from registry.errors import Conflict, Forbidden, Invalid, NotFound, Unverified
from registry.proof import merkle, notes
from registry.proof.keys import SigningKey, verify_document
from registry.queries import audit, folds, log_checks, log_proofs, packs
from registry.queries.pages import PageRequest
from registry.rules.actions import Action
from registry.rules.actors import SYSTEM, Actor
from registry.sequencer import Sequencer, Witness
from tests.build import World, a_person, a_world, approved, install_policies
from tests.database import Databases

ORIGIN = "countersign.local/test"


class Log:
    """A log of one's own with its key, its sequencer, and a hand that goes around every guard."""

    def __init__(self, store: Store, url: str, home: Path) -> None:
        self.store, self.url = store, url
        self.key = SigningKey.generate()
        self.log_key = notes.verifier_key(ORIGIN, self.key.public)
        self.engine = open_engine(url, "countersign_sequencer")
        self.sequencer = Sequencer(Store(self.engine), self.key, ORIGIN, Witness(home / "heads"))

    @contextmanager
    def tampered(self, table: str, statement: str) -> Iterator[None]:
        """Change a table as its owner can, triggers off: what an intruder with his password would
        do. Then fix it.
        """
        key = {"leaf": "seq", "tree_head": "size"}.get(table, "id")
        columns = ", ".join(
            column.name for column in Table.metadata.tables[table].columns if not column.identity
        )
        other = f"not exists (select from kept where kept.{key} = now.{key})"
        self._as_owner(table, f"create table kept as table {table}", statement)
        try:
            yield
        finally:
            self._as_owner(
                table,
                f"update {table} now set ({columns}) = (select {columns} from kept where "
                f"kept.{key} = now.{key}) "
                f"where not {other}",
                f"delete from {table} now where {other}",
                f"insert into {table} overriding system value select * from kept where "
                f"not exists (select from {table} now where now.{key} = kept.{key})",
                "drop table kept",
            )

    def _as_owner(self, table: str, *statements: str) -> None:
        engine = create_engine(self.url)
        with engine.begin() as connection:
            connection.execute(text(f"alter table {table} disable trigger user"))
            for statement in statements:
                connection.exec_driver_sql(statement)
            connection.execute(text(f"alter table {table} enable trigger user"))
        engine.dispose()

    def problems(self) -> list[str]:
        return audit.check(self.store, SYSTEM, self.log_key).problems

    def differences(self) -> list[str]:
        with self.store.read(SYSTEM) as session:
            return audit.rebuild(session).problems

    def pack(self) -> ZipFile:
        out = io.BytesIO()
        audit.export(self.store, SYSTEM, self.log_key, out)
        return ZipFile(out)


@pytest.fixture
def log(fresh_store: Store, fresh_database: str, tmp_path: Path) -> Iterator[Log]:
    """An empty log but for the built-in policies."""
    opened = Log(fresh_store, fresh_database, tmp_path)
    yield opened
    opened.engine.dispose()


@pytest.fixture(scope="module")
def full(
    databases: Databases, blobs: Blobs, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Log]:
    """A log with an approved version in it, signed; whoever changes it puts it back."""
    url = databases.migrated("full_log")
    store = Store(open_engine(url, "countersign_app"))
    install_policies(store)
    opened = Log(store, url, tmp_path_factory.mktemp("log"))
    approved(a_world(store, blobs, "full"))
    opened.sequencer.step()
    yield opened
    opened.engine.dispose()
    store.engine.dispose()
    databases.drop("full_log")


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages so small that every walk turns one."""
    monkeypatch.setattr(log_checks, "CHUNK", 2)
    monkeypatch.setattr(packs, "CHUNK", 2)
    monkeypatch.setattr(folds, "STREAM", {"stream_results": True, "yield_per": 2})


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


def by_definition(leaves: list[bytes]) -> bytes:
    """The root as RFC 6962, 2.1 defines it, with nothing of ours."""
    if len(leaves) == 1:
        return leaves[0]
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    left, right = by_definition(leaves[:half]), by_definition(leaves[half:])
    return hashlib.sha256(b"\x01" + left + right).digest()


def test_an_entry_is_proven_by_hand(full: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client without our code follows the hashes from the entry's bytes to the signed root."""
    monkeypatch.setattr(log_proofs, "CHUNK", 2)
    with full.store.read(SYSTEM) as session:
        entries = list(
            session.scalars(
                text("select e.entry from event e join leaf l on l.event_id = e.id order by l.seq")
            )
        )
    leaves = [hashlib.sha256(b"\x00" + bytes(entry)).digest() for entry in entries]
    size = len(leaves)
    signed = base64.b64decode(audit.prove(full.store, SYSTEM, seq=0).note.split("\n")[2])
    assert signed == by_definition(leaves)
    for seq in range(size):
        proof = audit.prove(full.store, SYSTEM, seq=seq)
        assert (proof.seq, proof.size, proof.old_size) == (seq, size, None)
        assert proof.leaf == f"sha256:{leaves[seq].hex()}"
        node, place, width = leaves[seq], seq, size
        for sibling in [bytes.fromhex(each.removeprefix("sha256:")) for each in proof.hashes]:
            while 1 < width == place + 1 and place % 2 == 0:  # a last node without a neighbour
                place, width = place // 2, (width + 1) // 2
            pair = sibling + node if place % 2 else node + sibling
            node = hashlib.sha256(b"\x01" + pair).digest()
            place, width = place // 2, (width + 1) // 2
        assert node == signed


def test_growth_is_proven_against_each_signed_head(log: Log) -> None:
    heads = {}
    for number in range(5):
        with log.store.write(SYSTEM, Action.POLICY_PUBLISH) as tx:
            tx.audit(f"policy:{number}", number=number)
        log.sequencer.step()
        head = audit.tree_head(log.store, SYSTEM)
        assert head is not None
        heads[head.size] = head
    assert len(heads) == 5
    with log.store.read(SYSTEM) as session:
        leaves = list(session.scalars(text("select hash from leaf order by seq")))
    for old, new in ((a, b) for a in heads for b in heads if a <= b):
        proof = audit.prove(log.store, SYSTEM, old_size=old, size=new)
        assert (proof.size, proof.old_size, proof.note) == (new, old, heads[new].note)
        check_growth(proof, heads[old].note, log.log_key)
        assert proof.root == f"sha256:{by_definition([bytes(leaf) for leaf in leaves[:new]]).hex()}"
    newest = max(heads)
    assert audit.prove(log.store, SYSTEM, old_size=newest).hashes == []
    # A proof of one head does not fit another, nor a key of somebody else.
    proof = audit.prove(log.store, SYSTEM, old_size=min(heads))
    with pytest.raises(Unverified) as refused:
        check_growth(proof, heads[newest - 1].note, log.log_key)
    assert refused.value.kind == "proof-wrong"
    other = notes.verifier_key(ORIGIN, SigningKey.generate().public)
    with pytest.raises(Unverified) as refused:
        check_growth(proof, heads[min(heads)].note, other)
    assert refused.value.kind == "note-unsigned"


def test_a_changed_leaf_gives_a_proof_that_the_client_refuses(full: Log) -> None:
    for lie in ("seq = 3", "seq = 4"):
        change = f"update leaf set hash = decode(repeat('00', 32), 'hex') where {lie}"
        with full.tampered("leaf", change):
            proof = audit.prove(full.store, SYSTEM, seq=3)
        with pytest.raises(Unverified) as refused:
            check_entry(proof, 3, proof.leaf, full.log_key)
        assert refused.value.kind == "proof-wrong"
    proof = audit.prove(full.store, SYSTEM, seq=3)
    check_entry(proof, 3, proof.leaf, full.log_key)
    for leaf in (
        None,
        "",
        "sha256:zz",
        "sha256:" + "0" * 64,
        audit.prove(full.store, SYSTEM, 4).leaf,
    ):
        with pytest.raises(Unverified):
            check_entry(proof, 3, leaf, full.log_key)
    with pytest.raises(Unverified):
        check_entry(proof, 4, proof.leaf, full.log_key)


def test_no_proof_beyond_the_tree_or_of_an_unsigned_size(full: Log) -> None:
    head = audit.tree_head(full.store, SYSTEM)
    assert head is not None
    for wrong in (
        {},
        {"seq": 1, "old_size": 1},
        {"seq": head.size},
        {"old_size": head.size + 1},
        {"old_size": 0},
    ):
        with pytest.raises(Invalid) as refused:
            audit.prove(full.store, SYSTEM, **wrong)
        assert refused.value.kind == "bad-proof-range"
    with pytest.raises(NotFound) as missing:
        audit.prove(full.store, SYSTEM, seq=0, size=head.size - 1)
    assert missing.value.kind == "tree-head-missing"
