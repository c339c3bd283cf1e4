"""Collect bytes that no row needs: mark them in their rows and in the log, then remove them."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime, timedelta

from registry.blobs.store import Blobs
from registry.db import blobs as table
from registry.db import senders, tombstones
from registry.db.store import Store, Tx
from registry.documents import canonical
from registry.errors import Conflict
from registry.rules.actions import Action
from registry.rules.actors import Actor
from registry.views.retention import CollectionView

GRACE = timedelta(hours=24)
"""How long bytes stay untouched before a collection may take them.

It is longer than the time between an upload and the row that names its bytes.
"""
SENDING = timedelta(hours=2)
"""The longest time between two parts of an upload.

The slowest sender allowed (MIN_BYTES in WAIT_SECONDS, api/bytes) needs about 64 minutes for one
part of an object store (PART bytes, drafts).
"""
BATCH = 500
"""Digests marked in one transaction; it holds one advisory lock for each until it ends."""


def collect(store: Store, blobs: Blobs, actor: Actor, grace: timedelta = GRACE) -> CollectionView:
    """Remove the bytes that no row, or only tombstones, named during the last `grace`.

    An interruption at any step loses nothing: a row that says its bytes are here is always right,
    and the next collection takes what this one left. Bytes that a transaction is naming at this
    moment are skipped.
    """
    store.check(actor, Action.BLOB_COLLECT, None)
    with store.upkeep("plan a collection") as session:
        before = table.moment(session) - grace
        plan = table.plan(session, blobs, before)
    marked: dict[str, int] = {}
    planned = sorted({**plan.unnamed, **plan.orphans}.items())
    for start in range(0, len(planned), BATCH):
        marked |= _mark(store, actor, dict(planned[start : start + BATCH]), before)
    sizes = {**marked, **plan.leftovers}
    removed = [digest for digest in sorted(sizes) if _remove(store, blobs, digest, before)]
    with store.upkeep("forget old senders") as session:
        senders.forget(session, before)
    # Parts of uploads that crashed. Published bytes were handled above, and what is being sent at
    # this moment is never old enough.
    blobs.sweep(lambda digest: True, max(grace, SENDING))
    return CollectionView(
        dry_run=False,
        unnamed=len(marked.keys() & plan.unnamed.keys()),
        orphans=len(marked.keys() & plan.orphans.keys()),
        leftovers=len(plan.leftovers),
        bytes=sum(sizes[digest] for digest in removed),
        removed=len(removed),
        digests=removed,
    )


def sending(store: Store, blobs: Blobs, actor: Actor, digest: str) -> None:
    """Note that the actor starts to send these bytes, if the store itself keeps no such note.

    Call it before looking whether the bytes are here: a collection may take them in between.
    """
    if not blobs.notes_use:
        with store.upkeep("bytes are being sent") as session:
            senders.lock(session, digest)
            senders.note(session, actor, digest, whole=False)


def sent(store: Store, actor: Actor, digest: str) -> None:
    """Note that the actor has sent all of these bytes, and so may name them.

    Hash the bytes before this call and publish them after it. In this order an interruption loses
    nothing; bytes published without a note would have to be sent again.
    """
    with store.upkeep("bytes were sent") as session:
        senders.note(session, actor, digest, whole=True)


def usable(store: Store, blobs: Blobs, actor: Actor, digest: str) -> bool:
    """Whether these bytes are here and this actor may name them.

    The caller is about to name them, so they stay for the grace of a collection.
    """
    with store.upkeep("bytes are asked for") as session:
        if senders.strange(session, actor, [digest]):
            return False
        if blobs.notes_use:
            senders.refresh(session, actor, digest)
        else:
            senders.lock(session, digest)
            senders.note(session, actor, digest, whole=False)
    return blobs.has(digest)


def _mark(store: Store, actor: Actor, planned: dict[str, int], before: datetime) -> dict[str, int]:
    """Mark as collected, in one transaction, those bytes that nobody is naming; return them."""
    with suppress(Conflict), store.write(actor, Action.BLOB_COLLECT) as tx:
        # A hold that is being placed is seen here, or comes after this transaction.
        tombstones.one_at_a_time(tx.session)
        marked = {digest: size for digest, size in planned.items() if _mark_one(tx, digest, before)}
        if not marked:
            raise Conflict(
                "nothing-to-collect",
                "All of these bytes are named again, or are being named at this moment.",
            )
        tx.session.flush()
        tx.audit("blobs", blobs=len(marked), bytes=sum(marked.values()), root=root_of(marked))
        return marked
    return {}


def _mark_one(tx: Tx, digest: str, before: datetime) -> bool:
    """Mark the row of these bytes; False when they are needed again. Orphans have no row."""
    if not table.try_lock(tx.session, digest):
        return False
    row = table.still_unnamed(tx.session, digest, before)
    if row is not None:
        row.collected_at = tx.now
        return True
    return not table.needed(tx.session, digest, before)


def _remove(store: Store, blobs: Blobs, digest: str, before: datetime) -> bool:
    """Remove bytes under their lock, unless they are needed again by now."""
    with store.upkeep("collect") as session:
        if not table.try_lock(session, digest) or table.needed(session, digest, before):
            return False
        return blobs.remove(digest, before)


def root_of(digests: Iterable[str]) -> str:
    """The digest of a collection: that of the sorted list of its digests, as canonical JSON."""
    return canonical.digest({"blobs": sorted(digests)})
