"""Check an evidence pack of a Countersign audit log, offline.

    python verifier.py PACK.zip --key log.pub

This file is all you need: it uses Python's standard library and `cryptography`, and imports nothing
of Countersign. Copy it, read it from top to bottom, then run your copy.

You trust one thing: the log's public key, which you hold. Nothing in the pack is trusted, no server
is asked. The pack's entries are read one after the other; each must be a change that the entries
before it allow. So a keeper of the log who owns its signing key, and who signs a history in which
somebody approved what they never approved, is found by the entries themselves.

What this file cannot tell: whether an entry was left out before its tree head was signed, and when
the pack was made (`created_at` in pack.json is signed by nobody). Compare tree heads with a witness
for the first.

The sections:

1. What a pack is
2. Canonical form and the Merkle tree
3. Keys and signatures
4. The state: the rows that the entries describe
5. An entry
6. People's keys
7. Votes
8. Reviews and their policies
9. What was held or deleted
10. What served
11. The archive
12. The whole pack
13. Command line

Every call of `require` is one check. The comment above it says what the check prevents.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import re
import struct
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from functools import reduce
from itertools import zip_longest
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import ZipFile, ZipInfo

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

# 1. What a pack is --------------------------------------------------------------------------------
#
# A ZIP archive with these members and no other:
#
#   events.jsonl            the entries of the log in their order, one canonical JSON text a line
#   tree_heads/SIZE.note    signed tree heads; the last one covers every entry
#   votes.jsonl             each vote beside its review and the key that signed it
#   pack.json               format, origin, size, root, and the SHA-256 of every other member
#
# An entry says who did what and when, and holds the new image of every row that it changed. It
# therefore suffices to fold the entries, in their order, to know every row at every moment.

FORMAT = "countersign-pack/1"
MEMBER_NAME = re.compile(
    r"pack\.json|events\.jsonl|votes\.jsonl|tree_heads/(0|[1-9][0-9]{0,18})\.note"
)
ENTRIES, VOTES = "events.jsonl", "votes.jsonl"

MAX_LINE = 1 << 24
"""Bytes of one line."""
MAX_TOTAL = 1 << 36
"""Bytes of all members together."""
MAX_RATIO = 200
"""How many times larger than the archive its members may be; honest packs reach some tens."""

Row = dict[str, Any]
"""One row of one table by column, or another JSON object."""


class Rejected(Exception):
    """A check that failed, as a sentence or as the end of a sentence about an entry."""


def require(condition: object, problem: str) -> None:
    """Raise Rejected with the problem unless the condition is true."""
    if not condition:
        raise Rejected(problem)


# 2. Canonical form and the Merkle tree ------------------------------------------------------------


def canonical(value: Any) -> str:
    """A parsed JSON value as RFC 8785 writes it: one value has one spelling, hence one digest."""
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: key.encode("utf-16-be"))
        return "{" + ",".join(f"{canonical(key)}:{canonical(value[key])}" for key in keys) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(canonical, value)) + "]"
    if isinstance(value, float):
        return _canonical_float(value)
    return json.dumps(value, ensure_ascii=False)


def _canonical_float(value: float) -> str:
    """A number as ECMAScript prints it. Python's repr has the same digits, but switches to an
    exponent at other sizes and pads the exponent.
    """
    if value == 0:
        return "0"
    if 1e-6 <= abs(value) < 1e21:
        return format(Decimal(repr(value)), "f").removesuffix(".0")
    return re.sub(r"e([+-])0", r"e\1", repr(value))


def parse(data: bytes, name: str = "") -> Any:
    """The JSON value of canonical bytes.

    Canonical bytes come back when the value is written again; a key given twice, a blank, NaN or
    any other spelling does not.
    """
    with suppress(ValueError, RecursionError):
        value = json.loads(
            data.decode(), parse_int=lambda text: int(text) if len(text) < 16 else float(text)
        )
        if canonical(value).encode() == data:
            return value
    raise Rejected(f"{name}is not canonical JSON (RFC 8785)")


def digest(value: Any) -> str:
    """The digest of a JSON value: SHA-256 of its canonical form."""
    return "sha256:" + hashlib.sha256(canonical(value).encode()).hexdigest()


class Tree:
    """The RFC 6962 Merkle tree of the entries so far.

    It keeps the roots of the full subtrees, largest first: all that appending and the root need.
    """

    def __init__(self) -> None:
        self.size = 0
        self.subtrees: list[bytes] = []

    def append(self, entry: bytes) -> None:
        """Add an entry. Two subtrees of one size become one, as a binary counter carries."""
        node, size = hashlib.sha256(b"\x00" + entry).digest(), self.size
        while size & 1:
            node = hashlib.sha256(b"\x01" + self.subtrees.pop() + node).digest()
            size >>= 1
        self.subtrees.append(node)
        self.size += 1

    def root(self) -> bytes:
        """The root of all entries so far."""
        if not self.subtrees:
            return hashlib.sha256(b"").digest()
        *larger, smallest = self.subtrees
        return reduce(
            lambda right, left: hashlib.sha256(b"\x01" + left + right).digest(),
            reversed(larger),
            smallest,
        )


# 3. Keys and signatures ---------------------------------------------------------------------------

LOG_KEY = re.compile(r"([^\s+]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/]{44})")
TREE_HEAD = re.compile(r"(([^\n]+)\n([0-9]+)\n([^\n]+)\n)\n— ([^\n ]+) ([^\n]+)\n")
ED25519 = b"\x01"


def decode_base64(text: str) -> bytes:
    """The bytes of a base64 text."""
    raw = base64.b64decode(text, validate=True)
    # Prevents: two spellings of one signature, so two different entries with the same meaning.
    require(base64.b64encode(raw).decode() == text, "a base64 text is not in its plain form")
    return raw


def is_signed(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Is this an Ed25519 signature of the message by this key?"""
    with suppress(InvalidSignature, ValueError):
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
        return True
    return False


def is_signed_document(key: Row, document: Any, context: str, signature: str) -> bool:
    """Did this person's key sign this document? The context keeps a signature made for one purpose
    from serving another.
    """
    message = f"countersign/{context}/1\n{digest(document)}\n".encode()
    return is_signed(decode_base64(key["public_key"]), message, decode_base64(signature))


class LogKey:
    """The log's public key as the auditor holds it: `origin+hash+key` on one line."""

    def __init__(self, text: str) -> None:
        match = LOG_KEY.fullmatch(text.strip())
        self.origin, key_hash, encoded = match.groups() if match else ("", "", "")
        raw = base64.b64decode(encoded)
        self.public_key = raw[1:]
        self.key_hash = hashlib.sha256(self.origin.encode() + b"\n" + raw).digest()[:4]
        # Prevents: trusting a key that was cut, mistyped or of another kind.
        require(
            raw[:1] == ED25519 and self.key_hash.hex() == key_hash,
            "The trusted key is no Ed25519 verifier key.",
        )

    def open_tree_head(self, name: str, note: bytes, size: int) -> bytes:
        """The root in a signed tree head of that size (a C2SP tlog-checkpoint)."""
        match = TREE_HEAD.fullmatch(note.decode())
        text, origin, count, root, signer, encoded = match.groups() if match else ("",) * 6
        # Prevents: a tree head of another log, or of another size than its name says.
        require(
            origin == signer == self.origin and count == str(size),
            f"{name} is no tree head of this log and size.",
        )
        signature = decode_base64(encoded)
        # Prevents: a history that the log's key never signed.
        require(
            signature[:4] == self.key_hash
            and is_signed(self.public_key, text.encode(), signature[4:]),
            f"{name} is not signed by the trusted key.",
        )
        return decode_base64(root)


# 4. The state: the rows that the entries describe -------------------------------------------------

WHOLE_ROW = ""
FROZEN = {
    # who decides
    "account": "kind",
    "signing_key": "account_id public_key proof enrolled_at",
    "role_grant": WHOLE_ROW,
    "policy_version": WHOLE_ROW,
    # what is decided upon
    "line": "kind team name",
    "version": "line_id number manifest_digest tensor_root base_root base_version_id",
    "version_file": WHOLE_ROW,
    "dataset": WHOLE_ROW,
    "dataset_version": "dataset_id number blob_id created_at",
    "lineage_edge": WHOLE_ROW,
    # what was decided
    "review": "number version_id environment policy_version_id evidence evidence_root submitted_by",
    "vote": WHOLE_ROW,
    # what served
    "channel": "line_id environment name base_version_id",
    "route_generation": "channel_id generation kind stable_version_id candidate_version_id "
    "weight_bp valid_from",
    # what was held or deleted
    "legal_hold": "number node_id line_id dataset_id case_commitment reason_commitment placed_by "
    "placed_at",
    "retention_class": WHOLE_ROW,
    "retention_setting": WHOLE_ROW,
    "tombstone": WHOLE_ROW,
    # what nothing new may start on
    "deprecation": WHOLE_ROW,
}
"""The tables that are checked, each with its columns that never change once the row exists."""

SET_ONCE = ("revoked_at", "valid_to", "registered_at", "lifted_at", "lifted_by")
"""Columns that start empty and never change after they were set."""


@dataclass
class State:
    """Everything the entries so far have established."""

    rows: dict[str, dict[str, Row]] = field(default_factory=lambda: {name: {} for name in FROZEN})
    """Table -> key -> the row as it stands."""
    event_ids: set[str] = field(default_factory=set)
    enrolled: set[str] = field(default_factory=set)
    """Ids of the keys whose owner proved to hold them."""
    all_votes: list[Row] = field(default_factory=list)
    """Every vote in the order of the log, for the comparison with votes.jsonl."""
    valid_votes: dict[str, list[Row]] = field(default_factory=lambda: defaultdict(list))
    """Review id -> its votes that passed every check."""
    approved: set[tuple[str, str]] = field(default_factory=set)
    """(version id, environment) of every approval that passed every check."""
    routes: dict[str, Row] = field(default_factory=dict)
    """Channel id -> its newest route generation."""
    children: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Version id -> what derives from it, by lineage or as its base."""

    def version(self, which: str) -> Row:
        """The version or data set version of that id; empty when there is none."""
        return self.rows["version"].get(which) or self.rows["dataset_version"].get(which) or {}

    def has_role(self, account: str | None, role: str) -> bool:
        """Was this role ever granted to the account?"""
        grants = self.rows["role_grant"].values()
        return any((grant["role"], grant["account_id"]) == (role, account) for grant in grants)


@dataclass(frozen=True)
class Change:
    """A row before and after an entry; None where it did not exist."""

    table: str
    key: str
    before: Row | None
    after: Row | None


@dataclass(frozen=True)
class Entry:
    """Who acted (None: the system), when, and the rows that it changed."""

    actor: str | None
    at: str
    changes: dict[tuple[str, str], Change]

    def images(self, table: str) -> list[tuple[Row | None, Row]]:
        """The rows of a table that the entry leaves behind: each as it was, and as it is."""
        return [
            (change.before, change.after)
            for change in self.changes.values()
            if change.table == table and change.after is not None
        ]

    def new(self, table: str) -> list[Row]:
        """The rows of a table that the entry creates."""
        return [after for before, after in self.images(table) if before is None]


# 5. An entry --------------------------------------------------------------------------------------

EVENT_FIELDS: dict[str, Any] = {
    "v": int,
    "id": str,
    "at": str,
    "actor": str | None,
    "via": str,
    "action": str,
    "subject": str,
    "team": str | None,
    "outcome": str,
    "request": str,
    "facts": dict,
    "rows": list,
}
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z")


def fold(state: State, event: Any) -> None:
    """Apply one event to the state, then run every check on what it changed.

    Raises Rejected with the first check that fails. The rows are applied all the same: later
    entries are then checked against what the log claims, and each problem is reported once.
    """
    check_event(state, event)
    entry = apply(state, event)
    check_changes(entry)
    for key in entry.new("signing_key"):
        check_enrolment(state, entry, key)
    for _, policy in entry.images("policy_version"):
        check_policy(policy)
    for _, vote in entry.images("vote"):
        check_vote(state, entry, vote)
        state.valid_votes[vote["review_id"]].append(vote)
    for _, line in entry.images("line"):
        check_line(line)
    for before, review in entry.images("review"):
        check_review(state, before, review)
    check_retention(state, entry)
    for route in sorted(entry.new("route_generation"), key=lambda row: row["generation"]):
        check_route(state, route)


def check_event(state: State, event: Any) -> None:
    """An event has exactly its fields, each of its kind."""
    # Prevents: an entry with fields that this file does not know, and so does not check.
    require(
        type(event) is dict and event.keys() == EVENT_FIELDS.keys() and event["v"] == 1,
        "is no event of version 1",
    )
    malformed = [
        name
        for name, kind in EVENT_FIELDS.items()
        if type(event[name]) is bool or not isinstance(event[name], kind)
    ]
    # Prevents: a field whose kind makes a later comparison meaningless.
    require(not malformed, f"has a malformed {malformed}")
    # Prevents: times that do not compare as text.
    require(
        UUID.fullmatch(event["id"]) and TIME.fullmatch(event["at"]), "has a malformed id or time"
    )
    # Prevents: one act that is told twice.
    require(event["id"] not in state.event_ids, f"repeats event {event['id']}")
    state.event_ids.add(event["id"])
    # Prevents: an act that was refused and took effect all the same.
    require(
        event["outcome"] == "done" or (event["outcome"] == "refused" and not event["rows"]),
        "is neither done nor a refusal that changes nothing",
    )


def apply(state: State, event: Row) -> Entry:
    """Put the event's row images into the state."""
    changes: dict[tuple[str, str], Change] = {}
    for image in event["rows"]:
        table, key, row = image["table"], image["key"], image["row"]
        if image["op"] == "delete":
            is_sound = row is None
        else:
            is_sound = image["op"] == "put" and row["id"] == key
        # Prevents: a second image of a row in one entry, of which only the last would be checked,
        # and a row stored under another row's key.
        require(
            is_sound and len(image) == 4 and (table, key) not in changes,
            f"holds no single image of {table} {key}",
        )
        rows = state.rows.get(table, {})
        changes[table, key] = Change(table, key, rows.pop(key, None), row)
        if row:
            rows[key] = row
            if table == "vote":
                state.all_votes.append(row)
    return Entry(event["actor"], event["at"], changes)


def check_changes(entry: Entry) -> None:
    """What is frozen does not change, and what is checked is not deleted."""
    for change in entry.changes.values():
        table, before, after = change.table, change.before, change.after
        is_draft = table == "version_file" or bool(
            table.endswith("version") and before and before.get("state") == "draft"
        )
        # Prevents: a vote, review, key, hold or version that disappears. Drafts may be changed and
        # discarded; files are checked in section 9.
        require(after or table not in FROZEN or is_draft, f"deletes {table} {change.key}")
        if before and after and not is_draft:
            columns = FROZEN[table].split() or [*before, *after]
            columns += [name for name in SET_ONCE if before.get(name)]
            # Prevents: bytes, votes, evidence or policies exchanged after they were decided upon,
            # and a revoked key or a lifted hold that comes back.
            require(
                all(before[name] == after[name] for name in columns),
                f"changes what is frozen of {table} {change.key}",
            )


# 6. People's keys ---------------------------------------------------------------------------------


def check_enrolment(state: State, entry: Entry, key: Row) -> None:
    """A person enrols a key themselves, and shows that they hold its private half."""
    document = {"account": key["account_id"], "public_key": key["public_key"]}
    key_id = hashlib.sha256(decode_base64(key["public_key"])).hexdigest()[:16]
    # Prevents: a key that an administrator made and put into somebody else's name.
    require(
        key_id == key["id"]
        and entry.actor == key["account_id"]
        and is_signed_document(key, document, "enrol", key["proof"]),
        f"enrols key {key['id']} without proof that its owner did so and holds it",
    )
    state.enrolled.add(key["id"])


# 7. Votes -----------------------------------------------------------------------------------------


def check_vote(state: State, entry: Entry, vote: Row) -> None:
    """A vote is a person's own signature over exactly the decision that the log shows."""
    name = f"holds vote {vote['id']}"
    voter = vote["account_id"]
    review = _row_before(state, entry, name, "review", vote["review_id"])
    account = _row_before(state, entry, name, "account", voter)
    key = _row_before(state, entry, name, "signing_key", vote["key_id"])

    # Prevents: a vote added to a review that is already decided.
    require(review["state"] == "open", f"{name} in a review that is {review['state']}")
    # Prevents: a program that approves.
    require(account["kind"] == "person", f"{name} that is not by a person")
    # Prevents: an account that votes in the name of another.
    require(entry.actor == voter, f"{name} cast by another account")
    # Prevents: a signature with a key that somebody else holds.
    require(
        key["account_id"] == voter and key["id"] in state.enrolled,
        f"{name} signed with a key the voter did not enrol",
    )
    # Prevents: a vote with a key that was taken away, because it was lost or its owner left.
    require(
        key["revoked_at"] is None or key["revoked_at"] > entry.at,
        f"{name} signed with a revoked key",
    )
    # Prevents: people who approve their own work.
    require(voter != review["submitted_by"], f"{name} by the one who submitted the version")
    # Prevents: one person who counts twice.
    require(
        all(earlier["account_id"] != voter for earlier in state.valid_votes[review["id"]]),
        f"{name}, a second one of the same person",
    )
    # Prevents: a digest in the log that is not of the decision beside it.
    require(
        digest(vote["decision"]) == vote["decision_digest"],
        f"{name} whose digest is not of its decision",
    )
    # Prevents: a decision that the voter never signed.
    require(
        is_signed_document(key, vote["decision"], "decision", vote["signature"]),
        f"{name} with a wrong signature",
    )
    check_decision(state, name, vote, review)


def _row_before(state: State, entry: Entry, name: str, table: str, key: str) -> Row:
    """A row as it stood before the entry: a vote must not rest on what its own entry brings."""
    change = entry.changes.get((table, key))
    row = change.before if change else state.rows[table].get(key)
    # Prevents: a vote on a review, or with a key, that is made up in the very same entry.
    require(row, f"{name} whose {table} was not there before")
    return row or {}


def check_decision(state: State, name: str, vote: Row, review: Row) -> None:
    """The signed decision names this version, its bytes, the evidence and the policy."""
    decision = vote["decision"]
    version = state.rows["version"][review["version_id"]]
    line = state.rows["line"][version["line_id"]]
    base = state.rows["version"].get(version["base_version_id"])
    policy = state.rows["policy_version"][review["policy_version_id"]]
    expected = {
        "v": 1,
        "review": review["number"],
        "version_id": version["id"],
        "version": f"{line['team']}/{line['name']}@v{version['number']}",
        "manifest_digest": version["manifest_digest"],
        "tensor_root": version["tensor_root"],
        "environment": review["environment"],
        "evidence_root": review["evidence_root"],
        "policy": f"{policy['environment']}-v{policy['number']}",
        "policy_digest": policy["digest"],
        "account": vote["account_id"],
        "team": vote["team"],
        "verdict": vote["verdict"],
        "reason_commitment": vote["reason_commitment"],
    }
    # Prevents: a signed field that nobody compares with the log.
    require(
        decision.keys() == {*expected, "base_root", "use_case"},
        f"{name} over unknown or missing fields",
    )
    wrong = [
        field
        for field in sorted(expected)
        if canonical(decision[field]) != canonical(expected[field])
    ]
    # Prevents: a signature for one version, place, evidence or verdict that is used for another.
    require(not wrong, f"{name} whose signed decision differs from the log in {', '.join(wrong)}")
    # Prevents: an approval for production under the softer policy of another environment.
    require(
        policy["environment"] == review["environment"],
        f"{name} under the policy of another environment",
    )
    # Prevents: an approval of an adapter on a base model that the voter was not shown.
    require(
        decision["base_root"] in (version["base_root"], base and base["base_root"]),
        f"{name} over another base",
    )


# 8. Reviews and their policies --------------------------------------------------------------------

TRANSITIONS = {
    "open": ("approved", "rejected", "changes_requested", "withdrawn", "expired"),
    "approved": ("voided", "expired"),
}
"""From which state a review may move to which."""


def check_line(line: Row) -> None:
    """A line's name is not the name of a version of another line."""
    # Prevents: clients without revisions that ask for version 3 of `claims` as `claims.v3`, and
    # get another line.
    require(
        not re.fullmatch(r".+\.v[1-9][0-9]{0,8}", line["name"]),
        f"names a line like a version of another: {line['name']}",
    )


def check_policy(policy: Row) -> None:
    """A policy version is named by the digest of its rules."""
    # Prevents: rules that were exchanged under a digest that voters signed.
    require(
        digest(policy["rules"]) == policy["digest"],
        f"holds policy {policy['id']} with a wrong digest",
    )


def check_review(state: State, before: Row | None, review: Row) -> None:
    """A review moves as its states allow; its evidence is what its root says."""
    was, now = (before["state"] if before else "open"), review["state"]
    # Prevents: a review that is born approved, reopened, or approved after a rejection.
    require(
        now == was or (before and now in TRANSITIONS.get(was, ())),
        f"moves review {review['number']} from {was} to {now}",
    )
    # Prevents: evidence that was exchanged after people voted on it.
    require(
        digest(review["evidence"]) == review["evidence_root"],
        f"holds other evidence of review {review['number']}",
    )
    if now == "approved" != was:
        check_approval(state, review)
        state.approved.add((review["version_id"], review["environment"]))


def check_approval(state: State, review: Row) -> None:
    """An approval rests on as many valid votes as the review's policy asks for."""
    policy = state.rows["policy_version"][review["policy_version_id"]]
    quorum = policy["rules"]["quorum"]
    votes = [vote for vote in state.valid_votes[review["id"]] if vote["verdict"] == "approve"]
    people = {vote["account_id"] for vote in votes}
    teams = {vote["team"] for vote in votes} - {None}
    name, needed = f"approves review {review['number']}", quorum["approvals"]
    # Prevents: an approval that too few people gave, or nobody at all.
    require(
        len(people) >= max(needed, 1),
        f"{name} on {len(people)} valid votes; its policy asks for {needed}",
    )
    # Prevents: an approval by one team alone where the policy asks for several.
    require(
        not quorum["distinct_teams"] or len(teams) >= needed,
        f"{name} with voters of {len(teams)} teams; its policy asks for {needed}",
    )


# 9. What was held or deleted ----------------------------------------------------------------------
#
# A deletion leaves a tombstone; the row stays. It is allowed when no legal hold covers the version,
# its retention time has passed, and nothing that still exists was made from it. Each deletion is
# judged by the time of its own entry.

DELETED = ("deleted", "recalled")
"""States that a version with a tombstone may have: a recall outranks a deletion."""

DEFAULT_CLASS: Row = {"name": "standard", "keep_days": 184, "counted_from": "service"}
"""The retention class where nobody chose one, and the log defines no class of that name."""


NEXT_VERSION_STATES: dict[str | None, tuple[str, ...]] = {
    None: ("draft", "registered"),
    "draft": ("registered", "recalled", "deleted"),
    "registered": ("deprecated", "recalled", "deleted"),
    "deprecated": ("recalled", "deleted"),
    "deleted": ("recalled",),
    "recalled": (),
}
"""State of a version -> the states that may follow it; None stands for no version yet."""


def check_retention(state: State, entry: Entry) -> None:
    """Run every check on versions' states and times, deprecations, holds, retention settings, deletions and bytes."""
    versions = entry.images("version") + entry.images("dataset_version")
    for before, version in versions:
        check_version(state, entry, before, version)
    for _, edge in entry.images("lineage_edge"):
        state.children[edge["parent_id"]].add(edge["child_id"])
    state_before: dict[str, str | None] = {
        version["id"]: before["state"] if before else None for before, version in versions
    }
    for _, deprecation in entry.images("deprecation"):
        check_deprecation(state, entry, deprecation, state_before.get(deprecation["id"]))
    for before, hold in entry.images("legal_hold"):
        check_hold(state, entry, before, hold)
    for _, setting in entry.images("retention_setting"):
        check_setting(state, entry, setting)
    for change in entry.changes.values():
        if change.table == "version_file" and change.before:
            owner = change.before["version_id"]
            was = state_before.get(owner, state.version(owner)["state"])
            # Prevents: files that are taken out of a registered version.
            require(was == "draft", f"takes {change.before['path']} away from version {owner}")
    for _, tombstone in entry.images("tombstone"):
        which = tombstone["id"]
        was = state_before.get(which, state.version(which).get("state"))
        check_tombstone(state, entry, tombstone, was)
    for before, route in entry.images("route_generation"):
        ended = route["valid_to"] if before and not before["valid_to"] else None
        # Prevents: a service time cut short afterwards, so that a version may be deleted earlier.
        require(ended is None or ended >= entry.at, "ends a route before its own time")
    collected = {blob["id"] for _, blob in entry.images("blob") if blob.get("collected_at")}
    if collected:
        check_collection(state, collected)


def check_version(state: State, entry: Entry, before: Row | None, version: Row) -> None:
    """A version's times are those of its entries, and a deleted version has a tombstone."""
    which = version["id"]
    created = version.get("created_at") if before is None else None
    was_registered = before and before.get("registered_at")
    registered = None if was_registered else version.get("registered_at")
    # Prevents: a version that is dated back, so that its retention time seems to have passed.
    require({created, registered} <= {None, entry.at}, f"gives version {which} a time not its own")
    if which in state.rows["tombstone"]:
        is_consistent = version["state"] in DELETED
    else:
        is_consistent = version["state"] != "deleted"
    # Prevents: a deletion that escapes the checks of a tombstone, and a version that returns.
    require(is_consistent, f"deletes or revives version {which} without its tombstone")
    was = before["state"] if before else None
    # Prevents: a version that takes a step which no rule allows, such as back from its recall.
    require(
        version["state"] == was or version["state"] in NEXT_VERSION_STATES[was],
        f"moves version {which} from {was or 'nothing'} to {version['state']}",
    )
    is_deprecated = which in state.rows["deprecation"]
    # Prevents: a deprecation that nobody gave a reason for.
    require(
        is_deprecated or version["state"] != "deprecated",
        f"deprecates version {which} without a reason",
    )
    # Prevents: a deprecation that has no effect.
    require(
        not is_deprecated or version["state"] not in ("draft", "registered"),
        f"holds a deprecation of version {which} that is {version['state']}",
    )
    old_base = before.get("base_version_id") if before else None
    base = version.get("base_version_id")
    if old_base and old_base != base:
        state.children[old_base].discard(which)
    if base:
        state.children[base].add(which)


def check_deprecation(state: State, entry: Entry, deprecation: Row, was: str | None) -> None:
    """Only a registered version is deprecated, by the account that says so and at that time."""
    name = f"deprecates {deprecation['id']}"
    # Prevents: a deprecation in somebody else's name.
    require(
        (entry.actor, entry.at) == (deprecation["deprecated_by"], deprecation["at"]),
        f"{name} in another's name or time",
    )
    # Prevents: a deprecation of a draft, of something recalled, or one without effect.
    require(
        (was, state.version(deprecation["id"]).get("state")) == ("registered", "deprecated"),
        f"{name}, which was not registered, or leaves it so",
    )


def check_hold(state: State, entry: Entry, before: Row | None, hold: Row) -> None:
    """A hold is lifted by a reviewer other than the person who placed it."""
    name = f"hold {hold['number']}"
    # Prevents: a hold that seems to be placed by somebody else, so that its placer may lift it.
    require(before or entry.actor == hold["placed_by"], f"places {name} in another's name")
    is_lifted = hold["lifted_at"] and not (before and before["lifted_at"])
    if not is_lifted:
        return
    # Prevents: a lift that is put into a reviewer's name.
    require(entry.actor == hold["lifted_by"], f"lifts {name} in another's name")
    # Prevents: one person who decides alone that evidence may go.
    require(hold["lifted_by"] != hold["placed_by"], f"lifts {name} by the one who placed it")
    # Prevents: a lift by somebody who has an interest in the deletion.
    require(
        state.has_role(hold["lifted_by"], "reviewer"), f"lifts {name} by one who is no reviewer"
    )


def check_setting(state: State, entry: Entry, setting: Row) -> None:
    """Only an administrator chooses a retention class that keeps for a shorter time."""
    name = f"puts {setting['name'] or setting['team']} under a class"
    # Prevents: a setting in an administrator's name, or one that seems to be older than it is.
    require(
        (entry.actor, entry.at) == (setting["set_by"], setting["set_at"]),
        f"{name} in another's name or time",
    )
    earlier = [
        other
        for other in settings_over(state, setting["team"], setting["kind"], setting["name"])
        if other["id"] != setting["id"]
    ]
    was, now = class_in_force(state, earlier), class_in_force(state, [setting])
    counts_earlier = (now["counted_from"], was["counted_from"]) == ("registration", "service")
    # Prevents: an engineer who shortens the retention time, then deletes.
    require(
        not (now["keep_days"] < was["keep_days"] or counts_earlier)
        or state.has_role(setting["set_by"], "admin"),
        f"{name} that is shorter, and by no administrator",
    )


def check_tombstone(state: State, entry: Entry, tombstone: Row, was: str | None) -> None:
    """What is deleted is not held, not kept by its retention class, and nothing stands on it."""
    which = tombstone["id"]
    name = f"deletes {which}"
    # Prevents: a registered version deleted as if it were a draft, which has no retention time.
    require(
        (tombstone["was"], tombstone["at"]) == (was, entry.at)
        and (was == "draft") == (tombstone["how"] != "deleted"),
        f"{name} with a tombstone that does not match it",
    )
    # Prevents: a tombstone beside a version that can still be served.
    require(state.version(which)["state"] in DELETED, f"{name} and lets it stand")
    holds = holds_over(state, which)
    # Prevents: the deletion of what somebody ordered to keep.
    require(not holds, f"{name} while legal hold {holds} stands over it")
    children = {
        child
        for child in state.children[which]
        if child not in state.rows["tombstone"]
        and state.version(child).get("state", "draft") != "draft"
    }
    # Prevents: a version that can no longer be explained, since what it was made from is gone.
    require(not children, f"{name} while {sorted(children)} stands on it")
    now = datetime.fromisoformat(entry.at)
    until = now if was == "draft" else kept_until(state, which, entry.at)
    # Prevents: a deletion before the retention time has passed.
    require(until <= now, f"{name} before {until}, until when it is kept")


def check_collection(state: State, blobs: set[str]) -> None:
    """Bytes go only after everything that names them was deleted, and none of it is held."""
    owners = {
        file["version_id"]
        for file in state.rows["version_file"].values()
        if file["blob_id"] in blobs
    }
    owners |= {
        version["id"]
        for version in state.rows["dataset_version"].values()
        if version["blob_id"] in blobs
    }
    kept = sorted(
        owner
        for owner in owners
        if owner not in state.rows["tombstone"] or holds_over(state, owner)
    )
    # Prevents: a version that still exists, or is held, and has lost its bytes.
    require(not kept, f"collects bytes of {kept}, which are held or not deleted")


def holds_over(state: State, which: str) -> list[int]:
    """Numbers of the holds that stand over a version, its line, or what derives from it.

    What was made from a held thing needs it too: without its base or data nobody could make it
    again.
    """
    covered, wave = set[str](), {which}
    while wave:
        covered |= wave
        wave = {child for parent in wave for child in state.children[parent]} - covered
    for version in [state.version(each) for each in covered]:
        covered.add(version.get("line_id") or version.get("dataset_id") or which)
    return sorted(
        hold["number"]
        for hold in state.rows["legal_hold"].values()
        if not hold["lifted_at"]
        and covered & {hold["node_id"], hold["line_id"], hold["dataset_id"]}
    )


def settings_over(state: State, team: str, kind: str | None, name: str | None) -> list[Row]:
    """The retention settings of a line or data set and of its team, oldest first."""
    return sorted(
        (
            setting
            for setting in state.rows["retention_setting"].values()
            if setting["team"] == team
            and (setting["kind"], setting["name"]) in ((None, None), (kind, name))
        ),
        key=lambda setting: int(setting["number"]),
    )


def class_in_force(state: State, settings: Sequence[Row]) -> Row:
    """The class that these settings choose: the newest of the thing itself, else of its team, else
    the default.
    """
    own = [setting for setting in settings if setting["kind"]]
    classes = list(state.rows["retention_class"].values())
    if chosen := own or list(settings):
        return next(each for each in classes if each["id"] == chosen[-1]["class_id"])
    named = (each for each in classes if each["name"] == DEFAULT_CLASS["name"])
    return next(named, DEFAULT_CLASS)


def kept_until(state: State, which: str, now: str) -> datetime:
    """The latest time that any class says which the version was under since its registration.

    No later setting shortens: the longest term counts. A class counts from the registration or
    from the end of the last service.
    """
    version = state.version(which)
    since = version.get("registered_at") or version["created_at"]
    kind = "line" if "line_id" in version else "dataset"
    owner = state.rows[kind][version[f"{kind}_id"]]
    settings = settings_over(state, owner["team"], kind, owner["name"])
    first_own = min((setting["set_at"] for setting in settings if setting["kind"]), default=None)
    classes = [class_in_force(state, [each for each in settings if each["set_at"] <= since])]
    for setting in settings:
        # A team's setting has no effect once the line or data set has one of its own.
        has_effect = setting["kind"] or first_own is None or first_own > setting["set_at"]
        if setting["set_at"] > since and has_effect:
            classes.append(class_in_force(state, [setting]))
    last_service = max([since, *_ends_of_service(state, which, now)])
    return max(
        datetime.fromisoformat(last_service if each["counted_from"] == "service" else since)
        + timedelta(days=each["keep_days"])
        for each in classes
    )


def _ends_of_service(state: State, which: str, now: str) -> Iterator[str]:
    """When each route that names the version ended; now, for one that is still open."""
    for route in state.rows["route_generation"].values():
        base = state.rows["channel"][route["channel_id"]]["base_version_id"]
        if which in (route["stable_version_id"], route["candidate_version_id"], base):
            yield route["valid_to"] or now


# 10. What served ----------------------------------------------------------------------------------


def check_route(state: State, route: Row) -> None:
    """A channel's generations have no gap, and name only what was approved and not taken back."""
    channel, generation = state.rows["channel"][route["channel_id"]], route["generation"]
    before = state.routes.get(channel["id"])
    last = before["generation"] if before else 0
    # Prevents: a generation that served and is missing from the history.
    require(generation == last + 1, f"adds generation {generation} of a channel after {last}")
    state.routes[channel["id"]] = route
    stable, candidate = route["stable_version_id"], route["candidate_version_id"]
    # What serves already may go on and be promoted, and a rollback may return to what served.
    starts = {candidate, stable if route["kind"] == "promote" else None} - {None}
    if before:
        starts -= {before["stable_version_id"], before["candidate_version_id"]}
    # Prevents: new traffic to a version that nothing new may start on.
    require(
        all(state.rows["version"][which]["state"] != "deprecated" for which in starts),
        f"begins to route traffic to version {sorted(starts)}, which is deprecated",
    )
    environment = channel["environment"]
    for which in {stable, candidate} - {None}:
        is_fit = state.rows["version"][which]["state"] not in DELETED
        is_approved = (which, environment) in state.approved or which == channel["base_version_id"]
        # Prevents: traffic to a version that nobody approved for this place, or that was recalled.
        require(
            is_fit and is_approved,
            f"routes traffic to version {which}, which is deleted, recalled or was never "
            f"approved for {environment}",
        )


# 11. The archive ----------------------------------------------------------------------------------
#
# A ZIP describes each member twice, before its data and in a listing at the end, and readers differ
# in which of the two they believe. So every byte must belong to a member, and both descriptions
# must agree: all readers then see the same pack.

LOCAL_HEADER = struct.Struct("<4s5H3L2H")
LISTING_ENTRY = 46
"""Bytes of one entry of the listing, without its name and extra field."""
END_RECORDS = (22, 22 + 56 + 20)
"""Bytes behind the listing: the end record, or with the two ZIP64 records before it."""
SIZES_BEHIND_DATA = 0x8
ALLOWED_FLAGS = 0x2 | 0x4 | SIZES_BEHIND_DATA | 0x800
"""Compression level, sizes behind the data, UTF-8 names; above all not encryption."""
ZIP64 = 0xFFFFFFFF
"""The size that stands in a header when the real one is in its ZIP64 field."""


def open_members(raw: BinaryIO, pack: ZipFile) -> dict[str, ZipInfo]:
    """The archive's members by name."""
    length = raw.seek(0, os.SEEK_END)
    infos = sorted(pack.infolist(), key=lambda info: info.header_offset)
    starts = [*(info.header_offset for info in infos), pack.start_dir]
    listing = sum(LISTING_ENTRY + len(info.orig_filename) + len(info.extra) for info in infos)
    # Prevents: a program or a second archive hidden before, between or behind the members.
    require(
        starts[0] == 0 and not pack.comment and length - pack.start_dir - listing in END_RECORDS,
        "The archive holds bytes that belong to no member.",
    )
    members: dict[str, ZipInfo] = {}
    for info, end in zip(infos, starts[1:], strict=True):
        name = info.orig_filename
        # Prevents: members that no check reads, and names that another reader spells otherwise.
        require(
            MEMBER_NAME.fullmatch(name) and name == info.filename,
            f"The archive holds {name}, which is no part of a pack.",
        )
        # Prevents: two members of one name, of which readers show different ones.
        require(name not in members, f"The archive holds {name} twice.")
        check_member(raw, info, end)
        members[name] = info
    limit = min(MAX_TOTAL, MAX_RATIO * length + MAX_LINE)
    # Prevents: a small archive that fills the auditor's disk or memory.
    require(
        sum(info.file_size for info in infos) <= limit,
        f"The archive would unpack to more than {limit} bytes.",
    )
    return members


def check_member(raw: BinaryIO, info: ZipInfo, end: int) -> None:
    """Both descriptions of a member agree, and its data fill the space up to the next member."""
    name = info.orig_filename
    # Prevents: data that this file cannot read, or a listing that another reader shows.
    require(
        not info.flag_bits & ~ALLOWED_FLAGS and not info.comment,
        f"{name} is encrypted or packed in an unusual way.",
    )
    raw.seek(info.header_offset)
    header = LOCAL_HEADER.unpack(raw.read(LOCAL_HEADER.size))
    flags, method = header[2:4]
    sizes = header[6:9]
    name_length, extra_length = header[9:11]
    data = info.header_offset + LOCAL_HEADER.size + name_length + extra_length
    gap = end - data - info.compress_size
    sizes_follow = bool(flags & SIZES_BEHIND_DATA)
    same_sizes = sizes == (info.CRC, info.compress_size, info.file_size) or sizes[2] == ZIP64
    # Prevents: a member that one reader unpacks to other bytes than another.
    require(
        (flags, method) == (info.flag_bits, info.compress_type)
        and (same_sizes or sizes_follow)
        and gap in ((12, 16, 20, 24) if sizes_follow else (0,)),
        f"The archive describes {name} in two ways, or holds bytes behind it.",
    )


def read_lines(pack: ZipFile, name: str, declared: str) -> Iterator[bytes]:
    """The lines of a member, without their line breaks."""
    hasher = hashlib.sha256()
    with pack.open(name) as file:
        while line := file.readline(MAX_LINE):
            # Prevents: a cut-off end, and a line that fills the memory.
            require(line.endswith(b"\n"), f"{name} holds a line that is cut off or too long.")
            hasher.update(line)
            yield line[:-1]
    # Prevents: a member that was exchanged after pack.json was written.
    require(hasher.hexdigest() == declared, f"{name} is not the file that pack.json declares.")


# 12. The whole pack -------------------------------------------------------------------------------


@dataclass
class Report:
    """What was read, and the problems found. The pack is valid when there are none."""

    events: int = 0
    size: int = 0
    root: str = ""
    votes: int = 0
    problems: list[str] = field(default_factory=list)


def check_pack(raw: BinaryIO, pack: ZipFile, key: LogKey, report: Report) -> None:
    """Check the whole pack. A problem of one entry goes into the report; one that makes the rest
    unreadable raises Rejected.
    """
    about = read_about(open_members(raw, pack), pack, key)
    declared = about["members"]
    roots = read_tree_heads(pack, declared, key)
    report.size = max(roots, default=0)
    state = check_entries(pack, declared[ENTRIES], roots, report)
    # Prevents: entries behind the last signed tree head, which nobody vouches for.
    require(
        report.events == report.size and report.size in roots,
        f"The last tree head is not over all {report.events} entries.",
    )
    # Prevents: a summary that a person reads and that says something else than the log.
    require(
        (about["size"], about["root"]) == (report.events, report.root),
        "pack.json states another size or root.",
    )
    check_votes_file(pack, declared[VOTES], state)


def read_about(members: dict[str, ZipInfo], pack: ZipFile, key: LogKey) -> Row:
    """pack.json, which declares exactly the other members."""
    # Prevents: an archive that is no pack, and a pack.json that fills the memory.
    require(
        "pack.json" in members and members["pack.json"].file_size <= MAX_LINE,
        "The archive holds no proper pack.json.",
    )
    about: Row = parse(pack.read("pack.json").removesuffix(b"\n"), "pack.json ")
    # Prevents: a pack of a later format, of which this file would check only a part.
    require(
        type(about) is dict and about.get("format") == FORMAT,
        f"pack.json is not of the format {FORMAT}.",
    )
    # Prevents: statements in pack.json that nobody checks.
    require(
        about.keys() == {"format", "origin", "size", "root", "created_at", "members"}
        and TIME.fullmatch(about["created_at"]),
        "pack.json misses a field or holds an unknown one.",
    )
    # Prevents: the pack of another log that was signed by the same keeper.
    require(
        about["origin"] == key.origin,
        f"The pack is of {about['origin']}, the trusted key of {key.origin}.",
    )
    declared = about["members"]
    undeclared = {*declared, "pack.json"} ^ members.keys()
    missing = {ENTRIES, VOTES} - declared.keys()
    # Prevents: members that were added or removed.
    require(
        not undeclared | missing and "pack.json" not in declared,
        f"{sorted(undeclared | missing)} is missing, or was added without being declared.",
    )
    return about


def read_tree_heads(pack: ZipFile, declared: Row, key: LogKey) -> dict[int, bytes]:
    """Size -> root of every tree head in the pack, each signed by the trusted key."""
    roots: dict[int, bytes] = {}
    names = declared.keys() - {ENTRIES, VOTES}
    for name in sorted(names, key=lambda name: (len(name), name)):
        size = int(name.removeprefix("tree_heads/").removesuffix(".note"))
        note = b"".join(line + b"\n" for line in read_lines(pack, name, declared[name]))
        roots[size] = key.open_tree_head(name, note, size)
    empty = Tree().root()
    # Prevents: a signed start of the log that was not empty.
    require(roots.get(0, empty) == empty, "Tree head 0 has a wrong root.")
    return roots


def check_entries(pack: ZipFile, declared: str, roots: dict[int, bytes], report: Report) -> State:
    """Fold every entry, and compare the Merkle root with each tree head on the way."""
    tree, state, last_agreed = Tree(), State(), 0
    for number, line in enumerate(read_lines(pack, ENTRIES, declared)):
        try:
            fold(state, parse(line))
        except Rejected as rejected:
            report.problems.append(f"Entry {number} {rejected}.")
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            report.problems.append(
                f"Entry {number} holds a row of a wrong shape ({type(error).__name__}: {error})."
            )
        tree.append(line)
        report.events, report.votes = tree.size, len(state.all_votes)
        if tree.size in roots:
            if roots[tree.size] != tree.root():
                report.problems.append(
                    f"Entries {last_agreed} to {number} are not those of tree head {tree.size}."
                )
            last_agreed = tree.size
    report.root = "sha256:" + tree.root().hex()
    return state


def check_votes_file(pack: ZipFile, declared: str, state: State) -> None:
    """votes.jsonl, which people read, holds exactly the votes of the log."""
    expected = (
        {
            "vote": vote,
            "review": state.rows["review"].get(vote["review_id"]),
            "key": state.rows["signing_key"].get(vote["key_id"]),
        }
        for vote in state.all_votes
    )
    lines = read_lines(pack, VOTES, declared)
    for number, (vote, line) in enumerate(zip_longest(expected, lines)):
        # Prevents: a vote that is shown to the auditor and is not in the signed log.
        require(
            vote and canonical(vote).encode() == line,
            f"Vote {number} in votes.jsonl is not that of the log.",
        )


# 13. Command line ---------------------------------------------------------------------------------

INVALID = 8
"""The exit status for a pack that is not valid."""
MAX_SHOWN, MAX_SENTENCE = 100, 400
"""How many problems are printed, and characters of each."""


def trusted_key(path: Path | None) -> LogKey:
    """The log's key from --key, else COUNTERSIGN_VERIFY_KEY (a file or the key itself), else the
    one that the first `countersign up` pinned in its home.
    """
    given = "" if path else os.environ.get("COUNTERSIGN_VERIFY_KEY", "")
    try:
        if given and not Path(given).is_file():
            return LogKey(given)
        home = Path(os.environ.get("COUNTERSIGN_HOME") or Path.home() / ".countersign")
        with (path or Path(given or home / "log.pub")).open(encoding="utf-8") as file:
            return LogKey(file.read(4096))
    except (OSError, ValueError, RuntimeError) as error:
        raise Rejected(
            f"There is no trusted log key ({error}): give --key FILE. One in the pack proves "
            "nothing."
        ) from None


def verify(path: Path, key: Path | None, gates: bool) -> Report:
    """Check a pack; whatever fails is a problem in the report, and no exception."""
    report = Report()
    try:
        # Prevents: a gate that the auditor believes to have been run again.
        require(
            not gates,
            f"A pack of the format {FORMAT} holds no gate evidence, so no gate can be run again.",
        )
        with path.open("rb") as raw, ZipFile(raw) as pack:
            check_pack(raw, pack, trusted_key(key), report)
    except Rejected as rejected:
        report.problems.append(str(rejected))
    except Exception as error:
        # Hostile bytes reach far into zipfile: whatever breaks there is a refusal, not a crash.
        report.problems.append(f"The pack cannot be read ({type(error).__name__}: {error}).")
    return report


def main(arguments: Sequence[str] | None = None) -> int:
    """countersign-verify PACK.zip [--key FILE] [--gates] [--json]: 0 for a valid pack, else 8."""
    parser = argparse.ArgumentParser(
        "countersign-verify", description="Check an exported audit log offline."
    )
    parser.add_argument("pack", type=Path, metavar="PACK.zip")
    parser.add_argument(
        "--key", type=Path, metavar="FILE", help="the log's public key as you hold it"
    )
    parser.add_argument(
        "--gates",
        action="store_true",
        help="run the gates again; always refused today, since packs hold no gate evidence",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args(arguments)
    report = verify(options.pack, options.key, options.gates)
    # What an attacker wrote must not steer the reader's terminal.
    shown = [
        problem[:MAX_SENTENCE].encode("unicode_escape").decode()
        for problem in report.problems[:MAX_SHOWN]
    ]
    if options.json:
        print(json.dumps({"ok": not shown, **vars(report), "problems": shown}))
    else:
        print(f"NOT VALID: {shown[0]}" if shown else "VALID.")
        print(
            f"{report.events} entries read, {report.votes} votes, problems: {len(report.problems)}."
        )
        print(f"The root is {report.root or 'unknown'}.")
    return INVALID if shown else 0


if __name__ == "__main__":
    sys.exit(main())
