"""The evidence pack: the log up to its newest signed tree head, to verify without this service."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from registry.db.audit import Event, Leaf, TreeHead
from registry.db.store import Store, utc
from registry.documents import canonical
from registry.errors import Conflict, Unverified
from registry.proof import notes
from registry.rules.actors import Actor, Matter, require_reader

CHUNK_ROWS = 500
MEMBER_TIME = (1980, 1, 1, 0, 0, 0)
"""The time of every member, the oldest that a ZIP can state, so that the same log gives the same
bytes.
"""

# The newest image of each row in the signed log. A later image would be of an entry that the pack
# does not contain.
VOTES = text(
    """
    with logged as (
        select w.table_name, w.row_key, max(l.seq) as seq
        from event_row w join leaf l on l.event_id = w.event_id
        where w.table_name in ('vote', 'review', 'signing_key') and l.seq < :size
        group by w.table_name, w.row_key
    )
    select v.id::text as vote, lv.seq as vote_seq,
           v.review_id::text as review, lr.seq as review_seq,
           v.key_id as key, lk.seq as key_seq
    from vote v
    join logged lv on lv.table_name = 'vote' and lv.row_key = v.id::text
    join logged lr on lr.table_name = 'review' and lr.row_key = v.review_id::text
    join logged lk on lk.table_name = 'signing_key' and lk.row_key = v.key_id
    where (lv.seq, v.id::text) > (:after_seq, :after_vote) order by lv.seq, v.id::text limit :chunk
    """
)


def export(store: Store, actor: Actor, log_key: str, out: BinaryIO) -> None:
    """Write the pack to `out` as a ZIP of uncompressed members, in pages.

    Raises Forbidden `role-missing`, Conflict `nothing-signed` while no tree head is signed, and
    Unverified if the newest head is not signed by `log_key` or the log has a gap.
    """
    require_reader(actor, Matter.LOG)
    with store.read(actor) as session, ZipFile(out, "w", ZIP_STORED) as pack:
        head = session.scalars(
            select(TreeHead)
            .where(TreeHead.note.is_not(None))
            .order_by(TreeHead.size.desc())
            .limit(1)
        ).one_or_none()
        if head is None or head.note is None:
            raise Conflict("nothing-signed", "No tree head is signed yet.")
        notes.open_tree_head(head.note, log_key)
        members = {"events.jsonl": _member(pack, "events.jsonl", _events(session, head.size))}
        for size, note in _heads(session, head.size):
            name = f"tree_heads/{size}.note"
            members[name] = _member(pack, name, [note.encode()])
        members["votes.jsonl"] = _member(pack, "votes.jsonl", _votes(session, head.size))
        about = {
            "format": "countersign-pack/1",
            "origin": notes.parse_verifier_key(log_key)[0],
            "size": head.size,
            "root": head.root,
            "created_at": utc(head.made_at),
            "members": members,
        }
        _member(pack, "pack.json", [canonical.encode(about)])


def _member(pack: ZipFile, name: str, chunks: Iterable[bytes]) -> str:
    """Write one member chunk by chunk; the hex SHA-256 of its bytes."""
    info = ZipInfo(name, MEMBER_TIME)
    info.external_attr = 0o644 << 16
    digest = hashlib.sha256()
    with pack.open(info, "w", force_zip64=True) as member:
        for chunk in chunks:
            digest.update(chunk)
            member.write(chunk)
    return digest.hexdigest()


def _events(session: Session, size: int) -> Iterator[bytes]:
    expected = 0
    statement = (
        select(Leaf.seq, Event.entry)
        .join(Event, Event.id == Leaf.event_id)
        .order_by(Leaf.seq)
        .limit(CHUNK_ROWS)
    )
    while rows := session.execute(statement.where(Leaf.seq >= expected, Leaf.seq < size)).all():
        for seq, entry in rows:
            if seq != expected:
                break
            yield entry + b"\n"
            expected += 1
        else:
            continue
        break
    if expected != size:
        raise Unverified("log-gap", f"Leaf {expected} of the {size} that were signed is missing.")


def _heads(session: Session, size: int) -> Iterator[tuple[int, str]]:
    after = -1
    statement = select(TreeHead.size, TreeHead.note).where(
        TreeHead.note.is_not(None), TreeHead.size <= size
    )
    statement = statement.order_by(TreeHead.size).limit(CHUNK_ROWS)
    while rows := session.execute(statement.where(TreeHead.size > after)).all():
        yield from ((row.size, row.note) for row in rows if row.note is not None)
        after = rows[-1].size


def _votes(session: Session, size: int) -> Iterator[bytes]:
    after = {"after_seq": -1, "after_vote": ""}
    while rows := session.execute(VOTES, {"size": size, "chunk": CHUNK_ROWS, **after}).all():
        seqs = {seq for row in rows for seq in (row.vote_seq, row.review_seq, row.key_seq)}
        entries = session.execute(
            select(Leaf.seq, Event.entry)
            .join(Event, Event.id == Leaf.event_id)
            .where(Leaf.seq.in_(seqs))
        )
        images = {row.seq: _images(row.entry) for row in entries}
        for row in rows:
            vote = {
                "vote": images[row.vote_seq]["vote", row.vote],
                "review": images[row.review_seq]["review", row.review],
                "key": images[row.key_seq]["signing_key", row.key],
            }
            yield canonical.encode(vote) + b"\n"
        after = {"after_seq": rows[-1].vote_seq, "after_vote": rows[-1].vote}


def _images(entry: bytes) -> dict[tuple[str, str], Any]:
    return {(row["table"], row["key"]): row["row"] for row in json.loads(entry)["rows"]}
