"""Check an evidence pack of a Countersign audit log, offline.

    python verifier.py PACK.zip --key log.pub

This file is all you need: it uses Python's standard library and `cryptography`, and imports nothing
of Countersign. Copy it, read it from top to bottom, then run your copy.

You trust one thing: the log's public key, which you hold. The verifier trusts nothing in the pack
and asks no server. It reads the entries one after the other; each must be a change that the entries
before it allow. A keeper of the log, who owns its signing key, may sign a history in which somebody
approved what they never approved: the entries themselves expose it.

This file cannot find out whether an entry was left out before its tree head was signed; compare the
tree heads with a witness. Nor can it find out when the pack was made: nobody signs `created_at` in
pack.json.

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

Every call of `require` is one check. The comment above it states what the check prevents.
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
# An entry states who did what and when, and holds the new image of every row that it changed.
# Folding the entries in their order therefore gives every row at every moment.

FORMAT = "countersign-pack/1"
ENTRIES, VOTES = "events.jsonl", "votes.jsonl"
MEMBER_NAME = re.compile(
    r"pack\.json|events\.jsonl|votes\.jsonl|tree_heads/(0|[1-9][0-9]{0,18})\.note"
)

MAX_LINE_BYTES = 1 << 24
MAX_TOTAL_BYTES = 1 << 36
"""Bytes of all members together."""
MAX_RATIO = 200
"""How many times larger than the archive its members may be; honest packs reach some tens."""

Row = dict[str, Any]
"""One row of one table by column, or another JSON object."""


class Rejected(Exception):
    """A failed check, as a sentence, or as the end of a sentence that begins with an entry."""


def require(condition: object, problem: str) -> None:
    """Raise Rejected with the problem unless the condition is true."""
    if not condition:
        raise Rejected(problem)


# 2. Canonical form and the Merkle tree ------------------------------------------------------------


def canonical(value: Any) -> str:
    """A parsed JSON value as RFC 8785 writes it: one value has one spelling, and so one digest."""
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: key.encode("utf-16-be"))
        return "{" + ",".join(f"{canonical(key)}:{canonical(value[key])}" for key in keys) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(canonical, value)) + "]"
    if isinstance(value, float):
        return _canonical_float(value)
    return json.dumps(value, ensure_ascii=False)


def _canonical_float(value: float) -> str:
    """A number as ECMAScript prints it. Python's repr gives the same digits, but uses an exponent
    for other sizes and pads it.
    """
    if value == 0:
        return "0"
    if 1e-6 <= abs(value) < 1e21:
        return format(Decimal(repr(value)), "f").removesuffix(".0")
    return re.sub(r"e([+-])0", r"e\1", repr(value))


def parse(data: bytes, name: str = "") -> Any:
    """The JSON value of canonical bytes; Rejected for a repeated key, a blank, NaN or any other
    spelling, because writing the value again would not give the same bytes.
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
    """The RFC 6962 Merkle tree of the entries so far, kept as the roots of its full subtrees, the
    largest first. Appending and computing the root need no more.
    """

    def __init__(self) -> None:
        self.size = 0
        self.subtrees: list[bytes] = []

    def append(self, entry: bytes) -> None:
        """Add an entry. Two subtrees of one size are joined, as a binary counter carries."""
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
        *larger, node = self.subtrees
        for left in reversed(larger):
            node = hashlib.sha256(b"\x01" + left + node).digest()
        return node


# 3. Keys and signatures ---------------------------------------------------------------------------

LOG_KEY = re.compile(r"([^\s+]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/]{44})")
TREE_HEAD = re.compile(r"(([^\n]+)\n([0-9]+)\n([^\n]+)\n)\n— ([^\n ]+) ([^\n]+)\n")
ED25519 = b"\x01"


def decode_base64(text: str) -> bytes:
    """The bytes of a base64 text."""
    raw = base64.b64decode(text, validate=True)
    # Prevents: two spellings of one signature, and so two different entries with the same meaning.
    require(base64.b64encode(raw).decode() == text, "holds base64 text not in its plain form")
    return raw


def is_signed(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether this is an Ed25519 signature of the message by this key."""
    with suppress(InvalidSignature, ValueError):
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
        return True
    return False


def is_signed_document(key: Row, document: Any, context: str, signature: str) -> bool:
    """Whether this person's key signed the document for this purpose, which the context names."""
    message = f"countersign/{context}/1\n{digest(document)}\n".encode()
    return is_signed(decode_base64(key["public_key"]), message, decode_base64(signature))


class LogKey:
    """The auditor's copy of the log's public key: `origin+hash+key` on one line."""

    def __init__(self, text: str) -> None:
        match = LOG_KEY.fullmatch(text.strip())
        self.origin, key_hash, encoded = match.groups() if match else ("", "", "")
        raw = base64.b64decode(encoded)
        self.public_key = raw[1:]
        self.key_hash = hashlib.sha256(self.origin.encode() + b"\n" + raw).digest()[:4]
        is_sound = raw[:1] == ED25519 and self.key_hash.hex() == key_hash
        # Prevents: trusting a key that is truncated, mistyped or of another kind.
        require(is_sound, "The trusted key is no Ed25519 verifier key.")

    def open_tree_head(self, name: str, note: bytes, size: int) -> bytes:
        """The root in a signed tree head of that size (a C2SP tlog-checkpoint)."""
        match = TREE_HEAD.fullmatch(note.decode())
        text, origin, count, root, signer, encoded = match.groups() if match else ("",) * 6
        is_ours = origin == signer == self.origin and count == str(size)
        # Prevents: a tree head of another log, or of another size than its name states.
        require(is_ours, f"{name} is no tree head of this log and size.")
        raw = decode_base64(encoded)
        key_hash, signature = raw[:4], raw[4:]
        is_valid = key_hash == self.key_hash and is_signed(
            self.public_key, text.encode(), signature
        )
        # Prevents: a history that the log's key never signed.
        require(is_valid, f"{name} is not signed by the trusted key.")
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
    "use_case": WHOLE_ROW,
    "use_case_version": WHOLE_ROW,
    "eval_suite_version": WHOLE_ROW,
    "eval_run": "subject_id suite_version_id",
    "review": "number version_id environment use_case_version_id policy_version_id evidence "
    "evidence_root submitted_by",
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
    """Table -> key -> the row as it is now."""
    event_ids: set[str] = field(default_factory=set)
    enrolled: set[str] = field(default_factory=set)
    """Ids of the keys whose owners proved that they hold them."""
    all_votes: list[Row] = field(default_factory=list)
    """Every vote in the order of the log, to compare with votes.jsonl."""
    valid_votes: dict[str, list[Row]] = field(default_factory=lambda: defaultdict(list))
    """Review id -> its votes that passed every check."""
    approved: set[tuple[str, str]] = field(default_factory=set)
    """(version id, environment) of every approval that passed every check."""
    routes: dict[str, Row] = field(default_factory=dict)
    """Channel id -> its newest route generation."""
    children: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Version id -> what derives from it, by lineage or as its base."""

    def version(self, which: str) -> Row:
        """The version or data set version of that id; empty if there is none."""
        return self.rows["version"].get(which) or self.rows["dataset_version"].get(which) or {}

    def has_role(self, account: str | None, role: str) -> bool:
        """Whether this role was ever granted to the account."""
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
    """Who acted (None: the system), when, and the rows that the act changed."""

    actor: str | None
    at: str
    changes: dict[tuple[str, str], Change]

    def images(self, table: str) -> list[tuple[Row | None, Row]]:
        """The rows of a table that the entry puts: each before and after it."""
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
    **dict.fromkeys(("id", "at", "via", "action", "subject", "outcome", "request"), str),
    **dict.fromkeys(("actor", "team"), str | None),
    **{"v": int, "facts": dict, "rows": list},
}
"""Every field of an event with its type."""
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z")


def fold(state: State, event: Any) -> None:
    """Apply one event to the state, then run every check on what it changed.

    Raises Rejected with the first check that fails. The rows are applied even then, so that later
    entries are checked against what the log claims and each problem is reported once.
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
    for case in entry.new("use_case_version"):
        check_use_case(state, case)
    for before, review in entry.images("review"):
        check_review(state, before, review)
    check_retention(state, entry)
    for route in sorted(entry.new("route_generation"), key=lambda row: row["generation"]):
        check_route(state, route)


def check_event(state: State, event: Any) -> None:
    """An event has exactly its fields, each of its type."""
    is_known = type(event) is dict and event.keys() == EVENT_FIELDS.keys() and event["v"] == 1
    # Prevents: an entry with fields that this file does not know and so does not check.
    require(is_known, "is no event of version 1")
    malformed = [
        name
        for name, kind in EVENT_FIELDS.items()
        if type(event[name]) is bool or not isinstance(event[name], kind)
    ]
    # Prevents: a field whose type makes a later comparison meaningless.
    require(not malformed, f"has a malformed {malformed}")
    is_well_formed = UUID.fullmatch(event["id"]) and TIME.fullmatch(event["at"])
    # Prevents: times that do not compare as text.
    require(is_well_formed, "has a malformed id or time")
    # Prevents: one act that is recorded twice.
    require(event["id"] not in state.event_ids, f"repeats event {event['id']}")
    state.event_ids.add(event["id"])
    # Prevents: an act that was refused and still took effect.
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
        is_single = len(image) == 4 and (table, key) not in changes
        # Prevents: a second image of a row in one entry, of which only the last would be checked,
        # and a row stored under another row's key.
        require(is_sound and is_single, f"holds no single image of {table} {key}")
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
            is_kept = all(before[name] == after[name] for name in columns)
            # Prevents: bytes, votes, evidence or policies that are replaced after a decision on
            # them, and a revoked key or a lifted hold that comes back.
            require(is_kept, f"changes what is frozen of {table} {change.key}")


# 6. People's keys ---------------------------------------------------------------------------------


def check_enrolment(state: State, entry: Entry, key: Row) -> None:
    """People enrol their keys themselves, and prove that they hold the private half."""
    document = {"account": key["account_id"], "public_key": key["public_key"]}
    key_id = hashlib.sha256(decode_base64(key["public_key"])).hexdigest()[:16]
    # Prevents: a key that an administrator made and enrolled in somebody else's name.
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
    review = _row_before(state, entry, vote, "review", vote["review_id"])
    account = _row_before(state, entry, vote, "account", voter)
    key = _row_before(state, entry, vote, "signing_key", vote["key_id"])

    # Prevents: a vote added to a review that is already decided.
    require(review["state"] == "open", f"{name} in a review that is {review['state']}")
    # Prevents: a program that approves.
    require(account["kind"] == "person", f"{name} that is not by a person")
    # Prevents: an account that votes in the name of another.
    require(entry.actor == voter, f"{name} cast by another account")
    is_own_key = key["account_id"] == voter and key["id"] in state.enrolled
    # Prevents: a signature with a key that somebody else holds.
    require(is_own_key, f"{name} signed with a key the voter did not enrol")
    is_in_force = key["revoked_at"] is None or key["revoked_at"] > entry.at
    # Prevents: a vote with a key that was revoked, because it was lost or its owner left.
    require(is_in_force, f"{name} signed with a revoked key")
    # Prevents: people who approve their own work.
    require(voter != review["submitted_by"], f"{name} by the person who submitted the version")
    voters = {earlier["account_id"] for earlier in state.valid_votes[review["id"]]}
    # Prevents: one person who counts twice.
    require(voter not in voters, f"{name}, a second vote of the same person")
    is_digest = digest(vote["decision"]) == vote["decision_digest"]
    # Prevents: a digest in the log that is not of the decision beside it.
    require(is_digest, f"{name} whose digest is not of its decision")
    is_valid = is_signed_document(key, vote["decision"], "decision", vote["signature"])
    # Prevents: a decision that the voter never signed.
    require(is_valid, f"{name} with a wrong signature")
    check_decision(state, name, vote, review)


def _row_before(state: State, entry: Entry, vote: Row, table: str, key: str) -> Row:
    """A row before the entry: a vote must not rest on what its own entry brings."""
    change = entry.changes.get((table, key))
    row = change.before if change else state.rows[table].get(key)
    # Prevents: a vote on a review, or with a key, that is made up in the very same entry.
    require(row, f"holds vote {vote['id']} whose {table} was not there before")
    return row or {}


def check_decision(state: State, name: str, vote: Row, review: Row) -> None:
    """The signed decision names this version, its bytes, the evidence and the policy."""
    decision = vote["decision"]
    version = state.rows["version"][review["version_id"]]
    line = state.rows["line"][version["line_id"]]
    base = state.rows["version"].get(version["base_version_id"])
    policy = state.rows["policy_version"][review["policy_version_id"]]
    case = state.rows["use_case_version"][review["use_case_version_id"]]
    use_case = state.rows["use_case"][case["use_case_id"]]
    expected = {
        "v": 1,
        "review": review["number"],
        "version_id": version["id"],
        "version": f"{line['team']}/{line['name']}@v{version['number']}",
        "manifest_digest": version["manifest_digest"],
        "tensor_root": version["tensor_root"],
        "environment": review["environment"],
        "evidence_root": review["evidence_root"],
        "use_case": f"{use_case['team']}/{use_case['name']}",
        "use_case_version": case["number"],
        "policy": f"{policy['environment']}-v{policy['number']}",
        "policy_digest": policy["digest"],
        "account": vote["account_id"],
        "team": vote["team"],
        "verdict": vote["verdict"],
        "reason_commitment": vote["reason_commitment"],
    }
    is_complete = decision.keys() == {*expected, "base_root"}
    # Prevents: a signed field that nobody compares with the log.
    require(is_complete, f"{name} over unknown or missing fields")
    wrong = [
        column
        for column, value in sorted(expected.items())
        if canonical(decision[column]) != canonical(value)
    ]
    # Prevents: a signature for one version, place, evidence or verdict that is used for another.
    require(not wrong, f"{name} whose signed decision differs from the log in {', '.join(wrong)}")
    is_own_policy = policy["environment"] == review["environment"]
    # Prevents: an approval for production under the softer policy of another environment.
    require(is_own_policy, f"{name} under the policy of another environment")
    is_same_base = decision["base_root"] in (version["base_root"], base and base["base_root"])
    # Prevents: an approval of an adapter on a base model that the voter was not shown.
    require(is_same_base, f"{name} over another base")


# 8. Reviews and their policies --------------------------------------------------------------------

TRANSITIONS = {
    "open": ("approved", "rejected", "changes_requested", "withdrawn", "expired", "voided"),
    "approved": ("voided", "expired"),
}
"""State of a review -> the states that may follow it."""


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
    is_digest = digest(policy["rules"]) == policy["digest"]
    # Prevents: rules that were replaced under a digest that voters signed.
    require(is_digest, f"holds policy {policy['id']} with a wrong digest")


def check_review(state: State, before: Row | None, review: Row) -> None:
    """A review moves as its states allow, and its evidence matches its root."""
    was, now = (before["state"] if before else "open"), review["state"]
    is_allowed = now == was or (before and now in TRANSITIONS.get(was, ()))
    # Prevents: a review that is approved from the start, reopened, or approved after a rejection.
    require(is_allowed, f"moves review {review['number']} from {was} to {now}")
    is_digest = digest(review["evidence"]) == review["evidence_root"]
    # Prevents: evidence that was replaced after people voted on it.
    require(is_digest, f"holds other evidence of review {review['number']}")
    if before is None:
        check_evidence(state, review)
    if now == "approved" != was:
        check_approval(state, review)
        state.approved.add((review["version_id"], review["environment"]))


def check_evidence(state: State, review: Row) -> None:
    """A review opens on its use case as it is, the suite this pins, and all runs on that suite."""
    evidence, name = review["evidence"], f"opens review {review['number']}"
    case = state.rows["use_case_version"][review["use_case_version_id"]]
    suite = state.rows["eval_suite_version"][case["suite_version_id"]]
    is_current = case["number"] == max(_versions_of(state, case["use_case_id"]))
    is_pinned = evidence["suite"]["digest"] == suite["digest"]
    # Prevents: a decision on what a use case said before, or on a suite that it does not pin.
    require(is_current and is_pinned, f"{name} on a use case or suite that is not in force")
    subjects = (review["version_id"], state.version(review["version_id"])["base_version_id"])
    counted = {
        key
        for key, run in state.rows["eval_run"].items()
        if run["subject_id"] in subjects
        and (run["suite_version_id"], run["state"]) == (suite["id"], "succeeded")
    }
    named = {run["run"] for side in evidence["runs"].values() for run in side["succeeded"]}
    # Prevents: an eval run that went badly and is left out.
    require(named == counted, f"{name} on other eval runs than those that count")


def check_use_case(state: State, case: Row) -> None:
    """A version of a use case is the next, and nothing rests on the one before any more."""
    versions = _versions_of(state, case["use_case_id"])
    standing = any(
        review["state"] in ("open", "approved")
        and review["use_case_version_id"] in versions.values()
        for review in state.rows["review"].values()
        if review["use_case_version_id"] != case["id"]
    )
    is_next = max(versions) == len(versions) == case["number"]
    # Prevents: a suite or purpose that is replaced under an open review or an approval.
    require(is_next and not standing, "changes a use case out of turn, or under its reviews")


def _versions_of(state: State, use_case: str) -> dict[int, str]:
    cases = state.rows["use_case_version"].values()
    return {case["number"]: case["id"] for case in cases if case["use_case_id"] == use_case}


def check_approval(state: State, review: Row) -> None:
    """An approval rests on as many valid votes as the policy of the review requires."""
    policy = state.rows["policy_version"][review["policy_version_id"]]
    quorum = policy["rules"]["quorum"]
    votes = [vote for vote in state.valid_votes[review["id"]] if vote["verdict"] == "approve"]
    people = {vote["account_id"] for vote in votes}
    teams = {vote["team"] for vote in votes} - {None}
    name, needed = f"approves review {review['number']}", quorum["approvals"]
    is_enough = len(people) >= max(needed, 1)
    # Prevents: an approval that too few people gave, or nobody at all.
    require(is_enough, f"{name} on {len(people)} valid votes; its policy asks for {needed}")
    is_spread = not quorum["distinct_teams"] or len(teams) >= needed
    # Prevents: an approval by one team alone where the policy asks for several.
    require(is_spread, f"{name} with voters of {len(teams)} teams; its policy asks for {needed}")


# 9. What was held or deleted ----------------------------------------------------------------------
#
# A deletion leaves a tombstone; the row stays. A deletion is allowed when no legal hold covers the
# version, its retention time has passed, and nothing that still exists was made from it. The time
# that counts is that of the deletion's own entry.

DELETED = ("deleted", "recalled")
"""States that a version with a tombstone may have: a recall outranks a deletion."""

DEFAULT_CLASS: Row = {"name": "standard", "keep_days": 184, "counted_from": "service"}
"""The retention class where nobody chose one and the log defines no class of that name."""

NEXT_VERSION_STATES: dict[str | None, tuple[str, ...]] = {
    None: ("draft", "registered"),
    "draft": ("registered", "recalled", "deleted"),
    "registered": ("deprecated", "recalled", "deleted"),
    "deprecated": ("recalled", "deleted"),
    "deleted": ("recalled",),
    "recalled": (),
}
"""State of a version -> the states that may follow it; None is before its first entry."""


def check_retention(state: State, entry: Entry) -> None:
    """Check versions' states and times, deprecations, holds, settings, deletions and bytes."""
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
            # Prevents: files that are removed from a registered version.
            require(was == "draft", f"removes {change.before['path']} from version {owner}")
    for _, tombstone in entry.images("tombstone"):
        which = tombstone["id"]
        was = state_before.get(which, state.version(which).get("state"))
        check_tombstone(state, entry, tombstone, was)
    for before, route in entry.images("route_generation"):
        ended = route["valid_to"] if before and not before["valid_to"] else None
        # Prevents: a time of service that is shortened later, so that a version may be deleted.
        require(ended is None or ended >= entry.at, "ends a route before its own time")
    collected = {blob["id"] for _, blob in entry.images("blob") if blob.get("collected_at")}
    if collected:
        check_collection(state, collected)


def check_version(state: State, entry: Entry, before: Row | None, version: Row) -> None:
    """A version has the times of its entries, allowed states, and a tombstone once deleted."""
    which = version["id"]
    created = version.get("created_at") if before is None else None
    was_registered = before and before.get("registered_at")
    registered = None if was_registered else version.get("registered_at")
    # Prevents: a version that is backdated, so that its retention time seems to have passed.
    require({created, registered} <= {None, entry.at}, f"gives version {which} a time not its own")
    was, now = before["state"] if before else None, version["state"]
    has_tombstone = which in state.rows["tombstone"]
    is_consistent = now in DELETED if has_tombstone else now != "deleted"
    # Prevents: a deletion that escapes the checks of a tombstone, and a version that returns.
    require(is_consistent, f"deletes or revives version {which} without its tombstone")
    is_allowed = now == was or now in NEXT_VERSION_STATES[was]
    # Prevents: a version that takes a step which no rule allows, such as back from its recall.
    require(is_allowed, f"moves version {which} from {was or 'nothing'} to {now}")
    is_deprecated = which in state.rows["deprecation"]
    # Prevents: a deprecation that nobody gave a reason for.
    require(is_deprecated or now != "deprecated", f"deprecates version {which} without a reason")
    has_effect = not is_deprecated or now not in ("draft", "registered")
    # Prevents: a deprecation that has no effect.
    require(has_effect, f"holds a deprecation of version {which} that is {now}")
    old_base = before.get("base_version_id") if before else None
    base = version.get("base_version_id")
    if old_base and old_base != base:
        state.children[old_base].discard(which)
    if base:
        state.children[base].add(which)


def check_deprecation(state: State, entry: Entry, deprecation: Row, was: str | None) -> None:
    """Only a registered version is deprecated, in the name and at the time of the entry."""
    name = f"deprecates {deprecation['id']}"
    is_own = (entry.actor, entry.at) == (deprecation["deprecated_by"], deprecation["at"])
    # Prevents: a deprecation in somebody else's name.
    require(is_own, f"{name} in another's name or time")
    states = (was, state.version(deprecation["id"]).get("state"))
    # Prevents: a deprecation of a draft, of something recalled, or one without effect.
    require(
        states == ("registered", "deprecated"), f"{name}, which was not registered, or leaves it so"
    )


def check_hold(state: State, entry: Entry, before: Row | None, hold: Row) -> None:
    """A hold is lifted by a reviewer who did not place it."""
    name = f"hold {hold['number']}"
    # Prevents: a hold placed in somebody else's name, so that its real author may lift it.
    require(before or entry.actor == hold["placed_by"], f"places {name} in another's name")
    is_lifted = hold["lifted_at"] and not (before and before["lifted_at"])
    if not is_lifted:
        return
    # Prevents: a lift in a reviewer's name by somebody else.
    require(entry.actor == hold["lifted_by"], f"lifts {name} in another's name")
    # Prevents: one person who decides alone that evidence may be deleted.
    require(hold["lifted_by"] != hold["placed_by"], f"lifts {name} by the person who placed it")
    # Prevents: a lift by somebody who has an interest in the deletion.
    require(state.has_role(hold["lifted_by"], "reviewer"), f"lifts {name} by no reviewer")


def check_setting(state: State, entry: Entry, setting: Row) -> None:
    """Only an administrator chooses a retention class that keeps for a shorter time."""
    name = f"puts {setting['name'] or setting['team']} under a class"
    is_own = (entry.actor, entry.at) == (setting["set_by"], setting["set_at"])
    # Prevents: a setting in an administrator's name, or one that seems to be older than it is.
    require(is_own, f"{name} in another's name or time")
    settings = settings_over(state, setting["team"], setting["kind"], setting["name"])
    earlier = [other for other in settings if other["id"] != setting["id"]]
    was, now = class_in_force(state, earlier), class_in_force(state, [setting])
    counts_earlier = (now["counted_from"], was["counted_from"]) == ("registration", "service")
    # Prevents: an engineer who shortens the retention time, then deletes.
    require(
        not (now["keep_days"] < was["keep_days"] or counts_earlier)
        or state.has_role(setting["set_by"], "admin"),
        f"{name} that is shorter, and by no administrator",
    )


def check_tombstone(state: State, entry: Entry, tombstone: Row, was: str | None) -> None:
    """What is deleted is under no hold and past its retention time, and nothing derives from it."""
    which = tombstone["id"]
    name = f"deletes {which}"
    # Prevents: a registered version deleted as if it were a draft, which has no retention time.
    require(
        (tombstone["was"], tombstone["at"]) == (was, entry.at)
        and (was == "draft") == (tombstone["how"] != "deleted"),
        f"{name} with a tombstone that does not match it",
    )
    # Prevents: a tombstone beside a version that can still be served.
    require(state.version(which)["state"] in DELETED, f"{name} without a change of its state")
    holds = holds_over(state, which)
    # Prevents: the deletion of what somebody ordered to keep.
    require(not holds, f"{name} while legal hold {holds} covers it")
    children = {
        child
        for child in state.children[which]
        if child not in state.rows["tombstone"]
        and state.version(child).get("state", "draft") != "draft"
    }
    # Prevents: a version that can no longer be explained, because what it was made from is deleted.
    require(not children, f"{name} while {sorted(children)} derives from it")
    now = datetime.fromisoformat(entry.at)
    until = now if was == "draft" else kept_until(state, which, entry.at)
    # Prevents: a deletion before the retention time has passed.
    require(until <= now, f"{name} before {until}, the end of its retention")


def check_collection(state: State, blobs: set[str]) -> None:
    """Bytes are removed only when everything that names them is deleted and under no hold."""
    files, datasets = state.rows["version_file"].values(), state.rows["dataset_version"].values()
    owners = {file["version_id"] for file in files if file["blob_id"] in blobs}
    owners |= {version["id"] for version in datasets if version["blob_id"] in blobs}
    tombstones = state.rows["tombstone"]
    needed = sorted(id_ for id_ in owners if id_ not in tombstones or holds_over(state, id_))
    # Prevents: a version that still exists, or is under a hold, and has lost its bytes.
    require(not needed, f"collects bytes of {needed}, which are under a hold or not deleted")


def holds_over(state: State, which: str) -> list[int]:
    """Numbers of the holds in force over a version, its line, or what derives from it.

    What derives from it counts, because without its base or data nobody could make it again.
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
    """The class that these settings choose: the newest own, else the team's, else the default."""
    own = [setting for setting in settings if setting["kind"]]
    classes = list(state.rows["retention_class"].values())
    if chosen := own or list(settings):
        return next(each for each in classes if each["id"] == chosen[-1]["class_id"])
    named = (each for each in classes if each["name"] == DEFAULT_CLASS["name"])
    return next(named, DEFAULT_CLASS)


def kept_until(state: State, which: str, now: str) -> datetime:
    """The latest end of retention by any class the version was under since its registration.

    The longest term counts, so no later setting shortens it. A class counts from the registration
    or from the end of the last service.
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
    """When each route that names the version ended; now for a route still in force."""
    for route in state.rows["route_generation"].values():
        base = state.rows["channel"][route["channel_id"]]["base_version_id"]
        if which in (route["stable_version_id"], route["candidate_version_id"], base):
            yield route["valid_to"] or now


# 10. What served ----------------------------------------------------------------------------------


def check_route(state: State, route: Row) -> None:
    """A channel's generations have no gap, and name only what is approved and not recalled."""
    channel, generation = state.rows["channel"][route["channel_id"]], route["generation"]
    before = state.routes.get(channel["id"])
    last = before["generation"] if before else 0
    # Prevents: a generation that served and is missing from the history.
    require(generation == last + 1, f"adds generation {generation} of a channel after {last}")
    state.routes[channel["id"]] = route
    stable, candidate = route["stable_version_id"], route["candidate_version_id"]
    # What serves may stay and be promoted, and a rollback may return to what served before.
    starts = {candidate, stable if route["kind"] == "promote" else None} - {None}
    if before:
        starts -= {before["stable_version_id"], before["candidate_version_id"]}
    versions = state.rows["version"]
    deprecated = sorted(which for which in starts if versions[which]["state"] == "deprecated")
    # Prevents: new traffic to a version that nothing new may start on.
    require(not deprecated, f"begins to route traffic to version {deprecated}, which is deprecated")
    environment = channel["environment"]
    for which in {stable, candidate} - {None}:
        is_fit = versions[which]["state"] not in DELETED
        is_approved = (which, environment) in state.approved or which == channel["base_version_id"]
        # Prevents: traffic to a version that nobody approved for this place, or that was recalled.
        require(
            is_fit and is_approved,
            f"routes traffic to version {which}, which is deleted, recalled or was never approved "
            f"for {environment}",
        )


# 11. The archive ----------------------------------------------------------------------------------
#
# A ZIP describes each member twice, before its data and in a listing at the end, and readers differ
# in which of the two they believe. Every byte must therefore belong to a member, and both
# descriptions must agree, so that all readers see the same pack.

LOCAL_HEADER = struct.Struct("<4s5H3L2H")
LISTING_ENTRY = 46
"""Bytes of one entry of the listing, without its name and extra field."""
END_RECORDS = (22, 22 + 56 + 20)
"""Bytes behind the listing: the end record, with or without the two ZIP64 records before it."""
SIZES_BEHIND_DATA = 0x8
ALLOWED_FLAGS = 0x2 | 0x4 | SIZES_BEHIND_DATA | 0x800
"""Compression level, sizes behind the data, UTF-8 names; no other, and no encryption."""
ZIP64 = 0xFFFFFFFF
"""The size in a header whose real size is in its ZIP64 field."""


def open_members(raw: BinaryIO, pack: ZipFile) -> dict[str, ZipInfo]:
    """The archive's members by name."""
    length = raw.seek(0, os.SEEK_END)
    infos = sorted(pack.infolist(), key=lambda info: info.header_offset)
    starts = [*(info.header_offset for info in infos), pack.start_dir]
    listing = sum(LISTING_ENTRY + len(info.orig_filename) + len(info.extra) for info in infos)
    is_filled = starts[0] == 0 and length - pack.start_dir - listing in END_RECORDS
    # Prevents: a program or a second archive hidden before, between or behind the members.
    require(is_filled and not pack.comment, "The archive holds bytes that belong to no member.")
    members: dict[str, ZipInfo] = {}
    for info, end in zip(infos, starts[1:], strict=True):
        name = info.orig_filename
        is_known = MEMBER_NAME.fullmatch(name) and name == info.filename
        # Prevents: members that no check reads, and names that another reader spells differently.
        require(is_known, f"The archive holds {name}, which is no part of a pack.")
        # Prevents: two members of one name, of which readers show different ones.
        require(name not in members, f"The archive holds {name} twice.")
        check_member(raw, info, end)
        members[name] = info
    limit = min(MAX_TOTAL_BYTES, MAX_RATIO * length + MAX_LINE_BYTES)
    total = sum(info.file_size for info in infos)
    # Prevents: a small archive that fills the auditor's disk or memory.
    require(total <= limit, f"The archive would unpack to more than {limit} bytes.")
    return members


def check_member(raw: BinaryIO, info: ZipInfo, end: int) -> None:
    """Both descriptions of a member agree, and its data fill the space up to the next member."""
    name = info.orig_filename
    is_plain = not info.flag_bits & ~ALLOWED_FLAGS and not info.comment
    # Prevents: data that this file cannot read, or a listing that another reader shows.
    require(is_plain, f"{name} is encrypted or packed in an unusual way.")
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
        while line := file.readline(MAX_LINE_BYTES):
            # Prevents: a truncated end, and a line that fills the memory.
            require(line.endswith(b"\n"), f"{name} holds a line that is cut off or too long.")
            hasher.update(line)
            yield line[:-1]
    # Prevents: a member that was replaced after pack.json was written.
    require(hasher.hexdigest() == declared, f"{name} is not the file that pack.json declares.")


# 12. The whole pack -------------------------------------------------------------------------------


@dataclass
class Report:
    """What was read, and the problems. The pack is valid when there are none."""

    events: int = 0
    size: int = 0
    root: str = ""
    votes: int = 0
    problems: list[str] = field(default_factory=list)


def check_pack(raw: BinaryIO, pack: ZipFile, key: LogKey, report: Report) -> None:
    """Check the whole pack.

    A wrong entry becomes a problem of the report; Rejected is raised when the rest cannot be read.
    """
    about = read_about(open_members(raw, pack), pack, key)
    declared = about["members"]
    roots = read_tree_heads(pack, declared, key)
    report.size = max(roots, default=0)
    state = check_entries(pack, declared[ENTRIES], roots, report)
    is_covered = report.events == report.size and report.size in roots
    # Prevents: entries behind the last signed tree head, which nobody vouches for.
    require(is_covered, f"The last tree head is not over all {report.events} entries.")
    is_same = (about["size"], about["root"]) == (report.events, report.root)
    # Prevents: a summary for people that differs from the log.
    require(is_same, "pack.json states another size or root.")
    check_votes_file(pack, declared[VOTES], state)


def read_about(members: dict[str, ZipInfo], pack: ZipFile, key: LogKey) -> Row:
    """pack.json, which declares exactly the other members."""
    is_readable = "pack.json" in members and members["pack.json"].file_size <= MAX_LINE_BYTES
    # Prevents: an archive that is no pack, and a pack.json that fills the memory.
    require(is_readable, "The archive holds no proper pack.json.")
    about: Row = parse(pack.read("pack.json").removesuffix(b"\n"), "pack.json ")
    is_our_format = type(about) is dict and about.get("format") == FORMAT
    # Prevents: a pack of a later format, of which this file would check only a part.
    require(is_our_format, f"pack.json is not of the format {FORMAT}.")
    has_fields = about.keys() == {"format", "origin", "size", "root", "created_at", "members"}
    # Prevents: statements in pack.json that nobody checks.
    require(
        has_fields and TIME.fullmatch(about["created_at"]),
        "pack.json lacks a field or holds an unknown or malformed one.",
    )
    origin = about["origin"]
    # Prevents: the pack of another log that was signed by the same keeper.
    require(origin == key.origin, f"The pack is of {origin}, the trusted key of {key.origin}.")
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
    """Fold every entry, and compare the Merkle root with each tree head as its size is reached."""
    tree, state, last_agreed = Tree(), State(), 0
    for number, line in enumerate(read_lines(pack, ENTRIES, declared)):
        try:
            fold(state, parse(line))
        except Rejected as rejected:
            report.problems.append(f"Entry {number} {rejected}.")
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            cause = f"{type(error).__name__}: {error}"
            report.problems.append(f"Entry {number} holds a row of a wrong shape ({cause}).")
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
        is_same = vote and canonical(vote).encode() == line
        # Prevents: a vote that is shown to the auditor and is not in the signed log.
        require(is_same, f"Vote {number} in votes.jsonl is not that of the log.")


# 13. Command line ---------------------------------------------------------------------------------

INVALID = 8
"""The exit status for a pack that is not valid."""
MAX_SHOWN = 100
"""How many problems are printed."""
MAX_SENTENCE = 400
"""Characters printed of each problem."""


def trusted_key(path: Path | None) -> LogKey:
    """The log's key from --key, else COUNTERSIGN_VERIFY_KEY (a file or the key itself), else the
    file that the first `countersign up` left in its home.
    """
    setting = "" if path else os.environ.get("COUNTERSIGN_VERIFY_KEY", "")
    try:
        if setting and not Path(setting).is_file():
            return LogKey(setting)
        home = Path(os.environ.get("COUNTERSIGN_HOME") or Path.home() / ".countersign")
        with (path or Path(setting or home / "log.pub")).open(encoding="utf-8") as file:
            return LogKey(file.read(4096))
    except (OSError, ValueError, RuntimeError) as error:
        way_out = "give --key FILE. A key in the pack proves nothing."
        raise Rejected(f"There is no trusted log key ({error}): {way_out}") from None


def verify(path: Path, key: Path | None, gates: bool) -> Report:
    """Check a pack. Every failure is a problem in the report; none is raised."""
    report = Report()
    no_evidence = f"A pack of the format {FORMAT} holds no gate evidence, so no gate can run again."
    try:
        # Prevents: a gate that the auditor believes to have run again.
        require(not gates, no_evidence)
        with path.open("rb") as raw, ZipFile(raw) as pack:
            check_pack(raw, pack, trusted_key(key), report)
    except Rejected as rejected:
        report.problems.append(str(rejected))
    except Exception as error:
        # Hostile bytes reach far into zipfile; any error there refuses the pack.
        report.problems.append(f"The pack cannot be read ({type(error).__name__}: {error}).")
    return report


def main(arguments: Sequence[str] | None = None) -> int:
    """countersign-verify PACK.zip [--key FILE] [--gates] [--json]: 0 for a valid pack, else 8."""
    description = "Check an exported audit log offline."
    parser = argparse.ArgumentParser("countersign-verify", description=description)
    parser.add_argument("pack", type=Path, metavar="PACK.zip")
    parser.add_argument(
        "--key", type=Path, metavar="FILE", help="your copy of the log's public key"
    )
    parser.add_argument(
        "--gates",
        action="store_true",
        help="run the gates again; always refused today, because packs hold no gate evidence",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args(arguments)
    report = verify(options.pack, options.key, options.gates)
    # An attacker's text must not control the reader's terminal.
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
