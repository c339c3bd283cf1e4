"""Check an export pack of a Countersign audit log: offline, with nothing but this file and
`cryptography`.

    python verifier.py PACK.zip --key log.pub

It trusts the log's public key that you hold, no server and nothing in the pack. It recomputes the
RFC 6962 roots, checks each tree head, and folds the entries into the rows they tell of: each vote
must be a person's own signature over exactly the decision the log shows, each approval must rest on
enough of them, and what was held or deleted is judged by verifier_keeping.py, which must lie beside
it for that. Nobody signed `created_at` in pack.json.
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
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from decimal import Decimal
from functools import reduce
from itertools import zip_longest
from pathlib import Path
from runpy import run_path
from typing import Any, BinaryIO

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

FORMAT = "countersign-pack/1"
NAME = re.compile(r"pack\.json|events\.jsonl|votes\.jsonl|tree_heads/(0|[1-9][0-9]{0,18})\.note")
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z")
KEY = re.compile(r"([^\s+]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/]{44})")
TREE_HEAD = re.compile(r"(([^\n]+)\n([0-9]+)\n([^\n]+)\n)\n— ([^\n ]+) ([^\n]+)\n")
MAX_LINE, MAX_TOTAL, MAX_RATIO = (
    1 << 24,
    1 << 36,
    200,
)  # bytes, bytes; honest packs shrink some tens of times
FLAGS = (
    0x2 | 0x4 | 0x8 | 0x800
)  # compression level, sizes after the data, UTF-8 names; above all not encryption

EVENT = {
    "v": int,
    **dict.fromkeys(("id", "at", "via", "action", "subject", "outcome", "request"), str),
    "actor": str | None,
    "team": str | None,
    "facts": dict,
    "rows": list,
}
# columns that never change once a row is there, beside those set once; nothing named is the whole
# row
FROZEN = {
    "account": "kind",
    "line": "kind team name",
    "channel": "line_id environment name base_version_id",
    "signing_key": "account_id public_key proof enrolled_at",
    "policy_version": "",
    "vote": "",
    "review": "number version_id environment policy_version_id evidence evidence_root submitted_by",
    "version": "line_id number manifest_digest tensor_root base_root base_version_id",
    "route_generation": "channel_id generation kind stable_version_id candidate_version_id "
    "weight_bp valid_from",
}
NEXT = {
    "open": "approved rejected changes_requested withdrawn expired",
    "approved": "voided expired",
}

Row = dict[str, Any]
Changes = dict[
    tuple[str, str], tuple[Row | None, Row | None]
]  # (table, key): the row before and after


class Bad(Exception):
    """What does not check out, as a sentence or the end of one."""


def need(holds: object, otherwise: str) -> None:
    if not holds:
        raise Bad(otherwise)


def canonical(value: Any) -> str:
    """A parsed value as RFC 8785 writes it."""
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: key.encode("utf-16-be"))
        return "{" + ",".join(f"{canonical(key)}:{canonical(value[key])}" for key in keys) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(canonical, value)) + "]"
    return _number(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def _number(value: float) -> str:
    """As ECMAScript prints it: Python's repr has the same shortest digits, other limits and padding
    of the exponent.
    """
    if value == 0 or 1e-6 <= abs(value) < 1e21:
        return format(Decimal(repr(value)), "f").removesuffix(".0") if value else "0"
    return re.sub(r"e([+-])0", r"e\1", repr(value))


def parse(data: bytes, name: str = "") -> Any:
    """The JSON value of canonical bytes: a key given twice, a blank, NaN, any other spelling would
    not come back.
    """
    with suppress(ValueError, RecursionError):
        value = json.loads(
            data.decode(), parse_int=lambda text: int(text) if len(text) < 16 else float(text)
        )
        if canonical(value).encode() == data:
            return value
    raise Bad(f"{name}is not canonical JSON (RFC 8785)")


def digest(value: Any) -> str:
    return "sha256:" + hashlib.sha256(canonical(value).encode()).hexdigest()


def unbase64(text: str) -> bytes:
    raw = base64.b64decode(text, validate=True)
    need(base64.b64encode(raw).decode() == text, "a base64 text is not in its plain form")
    return raw


def signed(public: bytes, message: bytes, signature: bytes) -> bool:
    with suppress(InvalidSignature, ValueError):
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
        return True
    return False


def signed_document(key: Row, document: Any, context: str, signature: str) -> bool:
    message = f"countersign/{context}/1\n{digest(document)}\n".encode()
    return signed(unbase64(key["public_key"]), message, unbase64(signature))


class Tree:
    """RFC 6962 root of the leaves so far: the roots of the full subtrees, largest first."""

    def __init__(self) -> None:
        self.size, self.peaks = 0, list[bytes]()

    def append(self, entry: bytes) -> None:
        node, size = hashlib.sha256(b"\x00" + entry).digest(), self.size
        while size & 1:
            node, size = hashlib.sha256(b"\x01" + self.peaks.pop() + node).digest(), size >> 1
        self.peaks.append(node)
        self.size += 1

    def root(self) -> bytes:
        last = self.peaks[-1] if self.peaks else hashlib.sha256().digest()
        return reduce(
            lambda right, left: hashlib.sha256(b"\x01" + left + right).digest(),
            self.peaks[-2::-1],
            last,
        )


class Trusted:
    """The log's public key as the auditor holds it: `name+hash+key`, where the name is the log's
    origin.
    """

    def __init__(self, text: str) -> None:
        found = KEY.fullmatch(text.strip())
        self.origin, hint, key = found.groups() if found else ("", "", "")
        self.raw = base64.b64decode(key)
        self.hint = hashlib.sha256(self.origin.encode() + b"\n" + self.raw).digest()[:4]
        need(
            self.raw[:1] == b"\x01" and self.hint.hex() == hint,
            "The trusted key is no Ed25519 verifier key.",
        )

    def tree_head(self, name: str, note: bytes, size: int) -> bytes:
        """The root in a C2SP checkpoint of that size, if this key signed it for this origin."""
        found = TREE_HEAD.fullmatch(note.decode())
        text, origin, count, root, signer, signature = found.groups() if found else ("",) * 6
        need(
            origin == signer == self.origin and count == str(size),
            f"{name} is no tree head of this log and size.",
        )
        raw = unbase64(signature)
        genuine = raw[:4] == self.hint and signed(self.raw[1:], text.encode(), raw[4:])
        need(genuine, f"{name} is not signed by the trusted key.")
        return unbase64(root)


class Fold:
    """The rows the entries tell of, rebuilt one entry after the other, each change held against
    what came before.
    """

    def __init__(self) -> None:
        beside = Path(__file__).with_name("verifier_keeping.py")
        second = run_path(str(beside)) if beside.exists() else {}
        self.frozen = FROZEN | second.get("FROZEN", {})
        self.rows: dict[str, dict[str, Row]] = {table: {} for table in self.frozen}
        self.keeping = second["Keeping"](self.rows, need) if second else None
        self.events, self.keys, self.approved = set[str](), set[str](), set[tuple[str, str]]()
        self.votes, self.valid, self.generations = (
            list[Row](),
            dict[str, list[Row]](),
            dict[str, tuple[int, str | None, str | None]](),
        )

    def take(self, event: Any) -> None:
        """Fold one entry; Bad says what is wrong with it. Its rows are taken all the same, for
        later entries' sake.
        """
        need(
            type(event) is dict and event.keys() == EVENT.keys() and event["v"] == 1,
            "is no event of version 1",
        )
        wrong = [
            name
            for name, kind in EVENT.items()
            if type(event[name]) is bool or not isinstance(event[name], kind)
        ]
        need(not wrong, f"has a malformed {wrong}")
        need(
            UUID.fullmatch(event["id"]) and MOMENT.fullmatch(event["at"]),
            "has a malformed id or time",
        )
        need(event["id"] not in self.events, f"repeats event {event['id']}")
        self.events.add(event["id"])
        need(
            event["outcome"] == "done" or (event["outcome"] == "refused" and not event["rows"]),
            "is neither done nor a refusal that changes nothing",
        )
        changes: Changes = {}
        for change in event["rows"]:
            table, key, row = change["table"], change["key"], change["row"]
            proper = (
                row is None
                if change["op"] == "delete"
                else change["op"] == "put" and row["id"] == key
            )
            need(
                proper and len(change) == 4 and (table, key) not in changes,
                f"holds no single image of {table} {key}",
            )
            held = self.rows.get(table, {})
            changes[table, key] = held.pop(key, None), row
            held |= {key: row} if row else {}
            self.votes += [row] if row and table == "vote" else []
        self.check(event, changes)

    def check(self, event: Row, changes: Changes) -> None:
        def of(table: str) -> list[tuple[Row | None, Row]]:
            return [
                (old, new)
                for (name, _), (old, new) in changes.items()
                if name == table and new is not None
            ]

        for (table, key), (old, new) in changes.items():
            draft = (
                table.endswith("version") and old and old.get("state") == "draft"
            ) or table == "version_file"
            need(new or table not in self.rows or draft, f"deletes {table} {key}")
            if old and new and not draft:
                once = filter(
                    old.get, ("revoked_at", "valid_to", "registered_at", "lifted_at", "lifted_by")
                )
                columns = [*(self.frozen[table].split() or [*old, *new]), *once]
                need(
                    all(old[name] == new[name] for name in columns),
                    f"changes what is frozen of {table} {key}",
                )
        for new in (new for old, new in of("signing_key") if old is None):
            self.enrol(event, new)
        for _, new in of("policy_version"):
            need(
                digest(new["rules"]) == new["digest"],
                f"holds policy {new['id']} with a wrong digest",
            )
        for _, new in of("vote"):
            self.vote(f"holds vote {new['id']}", event, new, changes)
            self.valid.setdefault(new["review_id"], []).append(new)
        for _, new in of("line"):
            need(
                not re.fullmatch(r".+\.v[1-9][0-9]{0,8}", new["name"]),
                f"names a line like a version of another: {new['name']}",
            )
        for old, new in of("review"):
            state = old["state"] if old else "open"
            need(
                new["state"] == state or (old and new["state"] in NEXT.get(state, "").split()),
                f"moves review {new['number']} from {state} to {new['state']}",
            )
            need(
                digest(new["evidence"]) == new["evidence_root"],
                f"holds other evidence of review {new['number']}",
            )
            if new["state"] == "approved" != state:
                self.approve(new)
        kept = {table for table, _ in changes} & {
            "deprecation",
            "tombstone",
            "legal_hold",
            "retention_setting",
        }
        gone = any(
            new and (new.get("state") == "deleted" or new.get("collected_at"))
            for _, new in changes.values()
        )
        need(
            self.keeping or not (kept or gone),
            "wants verifier_keeping.py beside this file: it holds or deletes",
        )
        if self.keeping:
            self.keeping.check(event, changes, of)
        for new in sorted(
            (new for old, new in of("route_generation") if not old),
            key=lambda row: row["generation"],
        ):
            self.route(new)

    def enrol(self, event: Row, key: Row) -> None:
        document, public = (
            {"account": key["account_id"], "public_key": key["public_key"]},
            unbase64(key["public_key"]),
        )
        own = (
            hashlib.sha256(public).hexdigest()[:16] == key["id"]
            and event["actor"] == key["account_id"]
        )
        need(
            own and signed_document(key, document, "enrol", key["proof"]),
            f"enrols key {key['id']} without proof that its owner did so and holds it",
        )
        self.keys.add(key["id"])

    def vote(self, name: str, event: Row, vote: Row, changes: Changes) -> None:
        def before(table: str, key: str) -> Row:
            found = changes[table, key][0] if (table, key) in changes else self.rows[table].get(key)
            need(found, f"{name} whose {table} was not there before")
            return found or {}

        voter, review = vote["account_id"], before("review", vote["review_id"])
        need(review["state"] == "open", f"{name} in a review that is {review['state']}")
        need(before("account", voter)["kind"] == "person", f"{name} that is not by a person")
        need(event["actor"] == voter, f"{name} cast by another account")
        key = before("signing_key", vote["key_id"])
        need(
            key["account_id"] == voter and key["id"] in self.keys,
            f"{name} signed with a key the voter did not enrol",
        )
        # Times in the log have one form, so they compare as text.
        need(
            key["revoked_at"] is None or key["revoked_at"] > event["at"],
            f"{name} signed with a revoked key",
        )
        need(voter != review["submitted_by"], f"{name} by the one who submitted the version")
        need(
            all(one["account_id"] != voter for one in self.valid.get(review["id"], [])),
            f"{name}, a second one",
        )
        decision = vote["decision"]
        need(
            digest(decision) == vote["decision_digest"],
            f"{name} whose digest is not of its decision",
        )
        need(
            signed_document(key, decision, "decision", vote["signature"]),
            f"{name} with a wrong signature",
        )
        versions, policy = (
            self.rows["version"],
            self.rows["policy_version"][review["policy_version_id"]],
        )
        version = versions[review["version_id"]]
        line, base = self.rows["line"][version["line_id"]], versions.get(version["base_version_id"])
        expected = {
            **{name: version[name] for name in ("manifest_digest", "tensor_root")},
            "version_id": version["id"],
            **{name: review[name] for name in ("environment", "evidence_root")},
            "review": review["number"],
            "v": 1,
            **{name: vote[name] for name in ("team", "verdict", "reason_commitment")},
            "account": voter,
            "policy": f"{policy['environment']}-v{policy['number']}",
            "policy_digest": policy["digest"],
            "version": f"{line['team']}/{line['name']}@v{version['number']}",
        }
        need(
            decision.keys() == {*expected, "base_root", "use_case"},
            f"{name} over unknown or missing fields",
        )
        wrong = sorted(
            one for one in expected if canonical(decision[one]) != canonical(expected[one])
        )
        need(not wrong, f"{name} whose signed decision differs from the log in {', '.join(wrong)}")
        need(
            policy["environment"] == review["environment"],
            f"{name} under the policy of another environment",
        )
        need(
            decision["base_root"] in (version["base_root"], base and base["base_root"]),
            f"{name} over another base",
        )

    def approve(self, review: Row) -> None:
        quorum = self.rows["policy_version"][review["policy_version_id"]]["rules"]["quorum"]
        votes = [vote for vote in self.valid.get(review["id"], []) if vote["verdict"] == "approve"]
        people, teams = (
            {vote["account_id"] for vote in votes},
            {vote["team"] for vote in votes} - {None},
        )
        name, asked = f"approves review {review['number']}", quorum["approvals"]
        need(
            len(people) >= max(asked, 1),
            f"{name} on {len(people)} valid votes; its policy asks for {asked}",
        )
        need(
            not quorum["distinct_teams"] or len(teams) >= asked,
            f"{name} with voters of {len(teams)} teams; its policy asks for {asked}",
        )
        self.approved.add((review["version_id"], review["environment"]))

    def route(self, route: Row) -> None:
        channel, generation = self.rows["channel"][route["channel_id"]], route["generation"]
        last, *before = self.generations.get(channel["id"], (0, None, None))
        need(generation == last + 1, f"adds generation {generation} of a channel after {last}")
        stable, candidate = route["stable_version_id"], route["candidate_version_id"]
        self.generations[channel["id"]] = generation, stable, candidate
        # What serves already may go on and be promoted, and a rollback may return to what served.
        begins = {candidate, stable if route["kind"] == "promote" else None} - {None, *before}
        need(
            all(self.rows["version"][one]["state"] != "deprecated" for one in begins),
            f"begins to route traffic to version {begins}, which is deprecated",
        )
        for one in {stable, candidate} - {None}:
            where, fit = (
                channel["environment"],
                self.rows["version"][one]["state"] not in ("recalled", "deleted"),
            )
            need(
                fit and (one == channel["base_version_id"] or (one, where) in self.approved),
                f"routes traffic to version {one}, which is deleted, recalled or was never "
                f"approved for {where}",
            )


def members(raw: BinaryIO, pack: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The archive's members, if it holds nothing else: not a byte before, between or behind
    them.
    """
    end, found = raw.seek(0, os.SEEK_END), dict[str, zipfile.ZipInfo]()
    infos = sorted(pack.infolist(), key=lambda info: info.header_offset)
    edges = [*(info.header_offset for info in infos), pack.start_dir]
    listing = sum(46 + len(info.orig_filename) + len(info.extra) for info in infos)
    need(
        edges[0] == 0 and not pack.comment and end - pack.start_dir - listing in (22, 98),
        "The archive holds bytes that belong to no member.",
    )
    for info, stop in zip(infos, edges[1:], strict=True):
        name = info.orig_filename
        need(
            NAME.fullmatch(name) and name == info.filename,
            f"The archive holds {name}, which is no part of a pack.",
        )
        need(name not in found, f"The archive holds {name} twice.")
        need(
            not info.flag_bits & ~FLAGS and not info.comment,
            f"{name} is encrypted or packed in an unusual way.",
        )
        raw.seek(info.header_offset)
        head = struct.unpack("<4s5H3L2H", raw.read(30))
        gap = stop - info.header_offset - 30 - head[9] - head[10] - info.compress_size
        sizes = (
            head[6:9] == (info.CRC, info.compress_size, info.file_size)
            or head[8] == 0xFFFFFFFF
            or head[2] & 8
        )
        tail = gap in (12, 16, 20, 24) if head[2] & 8 else gap == 0
        need(
            sizes and tail and head[2:4] == (info.flag_bits, info.compress_type),
            f"The archive describes {name} in two ways, or holds bytes behind it.",
        )
        found[name] = info
    most = min(MAX_TOTAL, MAX_RATIO * end + MAX_LINE)
    need(
        sum(info.file_size for info in infos) <= most,
        f"The archive would unpack to more than {most} bytes.",
    )
    return found


def lines(pack: zipfile.ZipFile, name: str, declared: str) -> Iterator[bytes]:
    """The lines of a member without their ends; at the last, Bad unless the whole has the digest
    declared.
    """
    hasher = hashlib.sha256()
    with pack.open(name) as file:
        while line := file.readline(MAX_LINE):
            need(line.endswith(b"\n"), f"{name} holds a line that is cut off or too long.")
            hasher.update(line)
            yield line[:-1]
    need(hasher.hexdigest() == declared, f"{name} is not the file that pack.json declares.")


def check(raw: BinaryIO, pack: zipfile.ZipFile, trusted: Trusted, report: Row) -> None:
    """Check the whole pack: what concerns one entry goes into the report, what ends the reading is
    raised as Bad.
    """
    infos = members(raw, pack)
    need(
        "pack.json" in infos and infos["pack.json"].file_size <= MAX_LINE,
        "The archive holds no proper pack.json.",
    )
    about = parse(pack.read("pack.json").removesuffix(b"\n"), "pack.json ")
    need(
        type(about) is dict and about.get("format") == FORMAT,
        f"pack.json is not of the format {FORMAT}.",
    )
    need(
        about.keys() == {"format", "origin", "size", "root", "created_at", "members"}
        and MOMENT.fullmatch(about["created_at"]),
        "pack.json misses a field or holds an unknown one.",
    )
    need(
        about["origin"] == trusted.origin,
        f"The pack is of {about['origin']}, the trusted key of {trusted.origin}.",
    )
    declared = about["members"]
    odd = sorted(
        {*declared, "pack.json"} ^ infos.keys() | {"events.jsonl", "votes.jsonl"} - declared.keys()
    )
    need(
        not odd and "pack.json" not in declared,
        f"{odd} is missing, or was added without being declared.",
    )
    roots: dict[int, bytes] = {}
    for name in sorted(
        declared.keys() - {"events.jsonl", "votes.jsonl"}, key=lambda name: (len(name), name)
    ):
        size = report["size"] = int(name[len("tree_heads/") : -len(".note")])
        note = b"".join(line + b"\n" for line in lines(pack, name, declared[name]))
        roots[size] = trusted.tree_head(name, note, size)
    tree, fold, agreed = Tree(), Fold(), 0
    need(roots.get(0, tree.root()) == tree.root(), "Tree head 0 has a wrong root.")
    for number, entry in enumerate(lines(pack, "events.jsonl", declared["events.jsonl"])):
        try:
            fold.take(parse(entry))
        except Bad as bad:
            report["problems"].append(f"Entry {number} {bad}.")
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            report["problems"].append(
                f"Entry {number} holds a row of a wrong shape ({type(error).__name__}: {error})."
            )
        tree.append(entry)
        report["events"], report["votes"] = tree.size, len(fold.votes)
        if tree.size in roots:
            if roots[tree.size] != tree.root():
                report["problems"].append(
                    f"Entries {agreed} to {number} are not those of tree head {tree.size}."
                )
            agreed = tree.size
    report["root"] = "sha256:" + tree.root().hex()
    need(
        tree.size == report["size"] and tree.size in roots,
        f"The last tree head is not over all {tree.size} entries.",
    )
    need(
        about["size"] == tree.size and about["root"] == report["root"],
        "pack.json states another size or root.",
    )
    told = (
        {
            "vote": vote,
            "review": fold.rows["review"].get(vote["review_id"]),
            "key": fold.rows["signing_key"].get(vote["key_id"]),
        }
        for vote in fold.votes
    )
    for number, (vote, line) in enumerate(
        zip_longest(told, lines(pack, "votes.jsonl", declared["votes.jsonl"]))
    ):
        need(
            vote and canonical(vote).encode() == line,
            f"Vote {number} in votes.jsonl is not that of the log.",
        )


def trusted_key(named: Path | None) -> Trusted:
    """The key from --key, else from COUNTERSIGN_VERIFY_KEY (a file or the key itself), else as
    pinned at first `up`.
    """
    given = "" if named else os.environ.get("COUNTERSIGN_VERIFY_KEY", "")
    try:
        if given and not Path(given).is_file():
            return Trusted(given)
        home = Path(os.environ.get("COUNTERSIGN_HOME") or Path.home() / ".countersign")
        with (named or Path(given or home / "log.pub")).open(encoding="utf-8") as file:
            return Trusted(file.read(4096))
    except (OSError, ValueError, RuntimeError) as error:
        raise Bad(
            f"There is no trusted log key ({error}): give --key FILE. One in the pack proves "
            "nothing."
        ) from None


def main(arguments: Sequence[str] | None = None) -> int:
    """countersign-verify PACK.zip [--key FILE] [--gates] [--json]"""
    parser = argparse.ArgumentParser(
        "countersign-verify", description="Check an exported audit log offline."
    )
    parser.add_argument("pack", type=Path, metavar="PACK.zip")
    parser.add_argument(
        "--key", type=Path, metavar="FILE", help="the log's public key as you hold it"
    )
    parser.add_argument("--gates", action="store_true", help="also run the gates again")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    asked = parser.parse_args(arguments)
    report: Row = {"ok": False, "events": 0, "size": 0, "root": "", "votes": 0, "problems": []}
    try:
        need(
            not asked.gates,
            f"A pack of the format {FORMAT} holds no gate evidence, so no gate can be run again.",
        )
        with asked.pack.open("rb") as raw, zipfile.ZipFile(raw) as pack:
            check(raw, pack, trusted_key(asked.key), report)
    except Bad as bad:
        report["problems"].append(str(bad))
    except (
        Exception
    ) as error:  # hostile bytes reach far into zipfile: whatever breaks there is a No, not a crash
        report["problems"].append(f"The pack cannot be read ({type(error).__name__}: {error}).")
    # What an attacker wrote must not steer the reader's terminal.
    shown = [one[:400].encode("unicode_escape").decode() for one in report["problems"][:100]]
    words = (
        f"{report['events']} entries read, {report['votes']} votes, problems: "
        f"{len(report['problems'])}."
    )
    words = (
        f"{f'NOT VALID: {shown[0]}' if shown else 'VALID.'}\n{words}\nThe root is "
        f"{report['root'] or 'unknown'}."
    )
    print(json.dumps({**report, "ok": not shown, "problems": shown}) if asked.json else words)
    return 8 if shown else 0


if __name__ == "__main__":
    sys.exit(main())
