"""Small audit logs and export packs, built with the proof room: honest ones, and ones whose keeper
lies.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid5

from registry.documents import canonical
from registry.proof import merkle, notes
from registry.proof.keys import SigningKey

ORIGIN = "countersign.local/7f3a"
Row = dict[str, Any]
Twist = Callable[["Log", str, Row], None]
"""Gets the log so far, an event's step name and its content just before it is written, and may
change the content.
"""


def identity(name: str) -> str:
    """A fixed UUID by name."""
    return str(uuid5(UUID(int=0), name))


def moment(number: int) -> str:
    """A second for each number."""
    return f"2026-11-22T10:{number // 60:02}:{number % 60:02}.000000Z"


def commitment(text: str) -> str:
    """Some digest."""
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


@dataclass
class Log:
    """Entries in the order of the log, and the folded rows."""

    twist: Twist | None = None
    entries: list[bytes] = field(default_factory=list)
    rows: dict[tuple[str, str], Row] = field(default_factory=dict)
    votes: list[Row] = field(default_factory=list)

    @property
    def now(self) -> str:
        return moment(len(self.entries))

    def put(self, table: str, **row: Any) -> Row:
        """One row change, the row as it stands with these columns set."""
        image = {**self.rows.get((table, row["id"]), {}), **row}
        return {"table": table, "key": row["id"], "op": "put", "row": image}

    def event(self, step: str, *rows: Row, actor: str | None = None, outcome: str = "done") -> None:
        """Write an event of these changes."""
        event: Row = {
            "v": 1,
            "id": identity(f"event {len(self.entries)}"),
            "at": self.now,
            "actor": actor and identity(actor),
            "via": "rest",
            "action": step,
            "subject": "a subject",
            "team": None,
            "outcome": outcome,
            "request": "r-1",
            "facts": {"share": 0.05, "größe": "€ \U0001f600"},
            "rows": list(rows),
        }
        if self.twist is not None:
            self.twist(self, step, event)
        self.entries.append(canonical.encode(event))
        for change in event["rows"]:
            place = change["table"], change["key"]
            if change["row"] is None:
                self.rows.pop(place, None)
                continue
            self.rows[place] = change["row"]
            if change["table"] == "vote":
                self.votes.append(change["row"])


POLICY = {
    "environment": "production",
    "quorum": {"approvals": 2, "roles": ["reviewer"], "distinct_teams": True},
    "evidence": {"superiority": {"confidence": 0.95, "min_items": 40}},
}
RUNS = {"adapter": {"succeeded": [{"run": "run"}]}, "base": {"succeeded": []}}
EVIDENCE = {
    "subject": "acme/a@v1",
    "suite": {"digest": "sha256:suite"},
    "runs": RUNS,
    "eval": {"n": 64, "correct": 35, "share": 0.546875},
}


def key_of(name: str) -> SigningKey:
    """A person's key, the same at every call."""
    return KEYS.setdefault(name, SigningKey.generate())


KEYS: dict[str, SigningKey] = {}


def person(log: Log, name: str, kind: str = "person") -> None:
    """Make an account and enrol its key."""
    key = key_of(name)
    log.event(
        f"create {name}",
        log.put(
            "account",
            id=identity(name),
            kind=kind,
            name_commitment=commitment(name),
            created_at=log.now,
        ),
    )
    document = {"account": identity(name), "public_key": key.public_text}
    log.event(
        f"enrol {name}",
        log.put(
            "signing_key",
            id=key.id,
            account_id=identity(name),
            label="laptop",
            public_key=key.public_text,
            proof=key.sign_document(document, "enrol")[1],
            enrolled_at=log.now,
            revoked_at=None,
        ),
        actor=name,
    )


def version(log: Log, line: str, kind: str, **columns: Any) -> None:
    """Register version 1 of a line."""
    name = f"{line} v1"
    log.event(
        f"register {line}",
        log.put("line", id=identity(line), kind=kind, team="acme", name=line),
        log.put(
            "version",
            **{
                "id": identity(name),
                "line_id": identity(line),
                "number": 1,
                "state": "registered",
                "manifest_digest": commitment(name),
                "tensor_root": commitment(f"{name} tensors"),
                "base_root": None,
                "base_version_id": None,
                "meta": {},
                **columns,
            },
        ),
        actor="engineer",
    )


def catalogue(log: Log) -> None:
    """A base model, and an adapter on it."""
    version(log, "base", "base", base_root=commitment("base root"))
    version(
        log, "a", "adapter", base_root=commitment("base root"), base_version_id=identity("base v1")
    )


def use_case_version(log: Log, number: int) -> Row:
    """A version of the one use case, which pins the one suite."""
    return log.put(
        "use_case_version",
        id=identity(f"case v{number}"),
        use_case_id=identity("case"),
        number=number,
        suite_version_id=identity("suite"),
    )


def measured(log: Log) -> None:
    """A suite, a use case that pins it, and a run of the suite on the adapter."""
    log.event(
        "measure",
        log.put("eval_suite_version", id=identity("suite"), digest="sha256:suite"),
        log.put("use_case", id=identity("case"), team="acme", name="notices"),
        use_case_version(log, 1),
        log.put(
            "eval_run",
            id="run",
            subject_id=identity("a v1"),
            suite_version_id=identity("suite"),
            state="succeeded",
        ),
        actor="engineer",
    )


def decision(log: Log, voter: str, team: str | None, verdict: str) -> Row:
    """What a person signs about the one review."""
    review, subject = log.rows["review", identity("review")], log.rows["version", identity("a v1")]
    return {
        "v": 1,
        "review": review["number"],
        "version_id": subject["id"],
        "version": "acme/a@v1",
        "manifest_digest": subject["manifest_digest"],
        "tensor_root": subject["tensor_root"],
        "base_root": subject["base_root"],
        "environment": "production",
        "use_case": "acme/notices",
        "use_case_version": 1,
        "policy": "production-v1",
        "policy_digest": canonical.digest(POLICY),
        "evidence_root": review["evidence_root"],
        "account": identity(voter),
        "team": team,
        "verdict": verdict,
        "reason_commitment": commitment("because"),
    }


def vote(
    log: Log, voter: str, team: str | None, verdict: str = "approve", *, state: str | None = None
) -> None:
    """Cast a vote, and move the review where `state` says."""
    signed = decision(log, voter, team, verdict)
    key, signature = key_of(voter).sign_document(signed, "decision")
    rows = [
        log.put(
            "vote",
            id=identity(f"vote of {voter}"),
            review_id=identity("review"),
            account_id=identity(voter),
            team=team,
            verdict=verdict,
            reason_commitment=signed["reason_commitment"],
            decision=signed,
            decision_digest=canonical.digest(signed),
            signature=signature,
            key_id=key,
            at=log.now,
        )
    ]
    if state is not None:
        rows.insert(0, log.put("review", id=identity("review"), state=state, decided_at=log.now))
    log.event(f"vote {voter}", *rows, actor=voter)


def route(log: Log, number: int, stable: str, candidate: str | None = None) -> None:
    """Append a route generation, closing the one before."""
    rows = []
    if number > 1:
        rows.append(
            log.put("route_generation", id=identity(f"generation {number - 1}"), valid_to=log.now)
        )
    else:
        rows.append(
            log.put(
                "channel",
                id=identity("channel"),
                line_id=identity("a"),
                environment="production",
                name="production",
                base_version_id=identity("base v1"),
            )
        )
    rows.append(
        log.put(
            "route_generation",
            id=identity(f"generation {number}"),
            channel_id=identity("channel"),
            generation=number,
            kind="canary" if candidate else "promote",
            stable_version_id=identity(stable),
            candidate_version_id=candidate and identity(candidate),
            weight_bp=500 if candidate else 0,
            valid_from=log.now,
            valid_to=None,
        )
    )
    log.event(f"route {number}", *rows, actor="engineer")


def story(twist: Twist | None = None) -> Log:
    """The main job in 21 entries: people, versions, a refused self-approval, two votes, canary,
    promotion, recall.
    """
    log = Log(twist)
    for name in ("engineer", "alice", "bob"):
        person(log, name)
    person(log, "trainer", "service")
    log.event(
        "policy",
        log.put(
            "policy_version",
            id=identity("policy"),
            environment="production",
            number=1,
            digest=canonical.digest(POLICY),
            rules=POLICY,
        ),
    )
    catalogue(log)
    measured(log)
    log.event(
        "submit",
        log.put(
            "review",
            id=identity("review"),
            number=1,
            version_id=identity("a v1"),
            environment="production",
            use_case_version_id=identity("case v1"),
            policy_version_id=identity("policy"),
            evidence=EVIDENCE,
            evidence_root=canonical.digest(EVIDENCE),
            submitted_by=identity("engineer"),
            state="open",
            opened_at=log.now,
            decided_at=None,
        ),
        actor="engineer",
    )
    log.event("refused", actor="engineer", outcome="refused")
    vote(log, "alice", "compliance")
    vote(log, "bob", "risk", state="approved")
    route(log, 1, "base v1", "a v1")
    route(log, 2, "a v1")
    log.event(
        "revoke", log.put("signing_key", id=key_of("alice").id, revoked_at=log.now), actor="alice"
    )
    log.event("recall", log.put("version", id=identity("a v1"), state="recalled"), actor="bob")
    route(log, 3, "base v1")
    return log


def members(
    log: Log,
    key: SigningKey,
    heads: Sequence[int] = (),
    *,
    origin: str = ORIGIN,
    votes: list[bytes] | None = None,
) -> dict[str, bytes]:
    """The members of the pack of a log, signed at these sizes and at its end."""
    leaves = [merkle.leaf_hash(entry) for entry in log.entries]
    if votes is None:
        votes = [
            canonical.encode(
                {
                    "vote": vote,
                    "review": log.rows.get(("review", vote["review_id"])),
                    "key": log.rows.get(("signing_key", vote["key_id"])),
                }
            )
            for vote in log.votes
        ]
    found = {"events.jsonl": b"".join(entry + b"\n" for entry in log.entries)}
    for size in sorted({*heads, len(leaves)}):
        text = notes.checkpoint_text(origin, size, merkle.root(leaves[:size]))
        found[f"tree_heads/{size}.note"] = notes.sign_note(text, origin, key).encode()
    found["votes.jsonl"] = b"".join(line + b"\n" for line in votes)
    return declare(found, len(leaves), merkle.root(leaves), origin)


def declare(
    found: Mapping[str, bytes], size: int, root: bytes, origin: str = ORIGIN
) -> dict[str, bytes]:
    """The members with the pack.json that declares them."""
    about = {
        "format": "countersign-pack/1",
        "origin": origin,
        "size": size,
        "root": "sha256:" + root.hex(),
        "created_at": moment(3599),
        "members": {name: hashlib.sha256(data).hexdigest() for name, data in found.items()},
    }
    return {"pack.json": canonical.encode(about), **found}


def zipped(found: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """The pack as an archive, the same bytes at every call."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", method) as pack:
        for name, data in found.items():
            pack.writestr(zipfile.ZipInfo(name), data, method)
    return archive.getvalue()
