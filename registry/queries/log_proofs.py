"""Merkle proofs about the log: that it contains an entry, and that an older log is its prefix."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry.db.audit import Leaf, TreeHead
from registry.db.store import Store
from registry.errors import Invalid, NotFound
from registry.proof import merkle
from registry.rules.actors import Actor
from registry.views.audit import LogProofView

CHUNK_ROWS = 1000


def prove(
    store: Store,
    actor: Actor,
    seq: int | None = None,
    old_size: int | None = None,
    size: int | None = None,
) -> LogProofView:
    """The proof of one entry (`seq`) or of growth (`old_size`) against a signed tree head.

    The head is that of `size` entries, the newest by default. The proof costs one pass over the
    leaf hashes. Raises Invalid `bad-proof-range`, NotFound `tree-head-missing`.
    """
    if (seq is None) == (old_size is None):
        raise Invalid(
            "bad-proof-range",
            "A proof is of one entry (seq) or of the log's growth (old_size).",
            "Give one of the two.",
        )
    with store.read(actor) as session:
        head, note = _signed(session, size)
        leaf = None
        with _leaves(session, head.size) as leaves:
            if seq is not None:
                proof = merkle.inclusion_proof(seq, head.size, leaves)
                leaf = session.execute(select(Leaf.hash).where(Leaf.seq == seq)).scalar_one()
            else:
                proof = merkle.consistency_proof(old_size or 0, head.size, leaves)
        return LogProofView(
            size=head.size,
            root=head.root,
            note=note,
            hashes=[_text(hash_) for hash_ in proof],
            seq=seq,
            leaf=None if leaf is None else _text(leaf),
            old_size=old_size,
        )


def _signed(session: Session, size: int | None) -> tuple[TreeHead, str]:
    statement = select(TreeHead).where(TreeHead.note.is_not(None))
    if size is not None:
        statement = statement.where(TreeHead.size == size)
    head = session.scalars(statement.order_by(TreeHead.size.desc()).limit(1)).one_or_none()
    if head is None or head.note is None:
        raise NotFound(
            "tree-head-missing",
            "Nothing has been signed yet."
            if size is None
            else f"No tree head over {size} entries was signed.",
            "Ask without a size for a proof against the newest tree head.",
        )
    return head, head.note


@contextmanager
def _leaves(session: Session, size: int) -> Iterator[Iterable[bytes]]:
    """The first `size` leaf hashes, read as they are needed."""
    statement = select(Leaf.hash).where(Leaf.seq < size).order_by(Leaf.seq)
    leaves = session.scalars(statement.execution_options(yield_per=CHUNK_ROWS))
    try:
        yield leaves
    finally:
        leaves.close()


def _text(hash_: bytes) -> str:
    return f"sha256:{hash_.hex()}"
