"""Collect bytes that no row needs: marked in their rows and in the log first, removed after."""

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
"""How long bytes lie untouched before they may go; longer than from an upload to the row that names
it.
"""
SENDING = timedelta(hours=2)
"""No sender is slower from one part to the next: MIN_BYTES in WAIT_SECONDS (api/bytes) make PART
bytes (drafts) of an object store in some 64 minutes.
"""
BATCH = 500
"""Digests of one transaction: each holds one advisory lock until its end."""


def collect(store: Store, blobs: Blobs, actor: Actor, grace: timedelta = GRACE) -> CollectionView:
    """Take what only tombstones name and what no row names, once it lay so for `grace`.

    Cut short at any step, nothing is lost: a row that says its bytes are here is always right, and
    the next collection takes what this one left. Whoever is naming bytes at this moment is passed
    by.
    """
    store.check(actor, Action.BLOB_COLLECT, None)
    with store.upkeep("plan a collection") as session:
        before = table.moment(session) - grace
        plan = table.plan(session, blobs, before)
    taken: dict[str, int] = {}
    planned = sorted({**plan.unnamed, **plan.orphans}.items())
    for start in range(0, len(planned), BATCH):
        taken |= _mark(store, actor, dict(planned[start : start + BATCH]), before)
    gone = [
        one for one in sorted({**taken, **plan.leftovers}) if _remove(store, blobs, one, before)
    ]
    with store.upkeep("forget old senders") as session:
        senders.forget(session, before)
    # Of uploads that crashed; what is published was judged above. What is being sent at this moment
    # is never too old.
    blobs.sweep(lambda digest: True, max(grace, SENDING))
    whole = {**taken, **plan.leftovers}
    return CollectionView(
        dry_run=False,
        unnamed=len(taken.keys() & plan.unnamed.keys()),
        orphans=len(taken.keys() & plan.orphans.keys()),
        leftovers=len(plan.leftovers),
        bytes=sum(whole[one] for one in gone),
        removed=len(gone),
        digests=gone,
    )


def sending(store: Store, blobs: Blobs, actor: Actor, digest: str) -> None:
    """Note that somebody begins to send these bytes, where the store itself keeps no note; look for
    them only after.
    """
    if not blobs.notes_use:
        with store.upkeep("bytes are being sent") as session:
            senders.lock(session, digest)
            senders.note(session, actor, digest, whole=False)


def sent(store: Store, actor: Actor, digest: str) -> None:
    """Note that somebody has sent these bytes, all of them: they are his to name. Hash them before,
    publish them after.

    In this order a cut loses nothing: what is published and not noted would have to be sent again.
    """
    with store.upkeep("bytes were sent") as session:
        senders.note(session, actor, digest, whole=True)


def usable(store: Store, blobs: Blobs, actor: Actor, digest: str) -> bool:
    """Are these bytes here, and this actor's to name? Whoever asks is about to name them: they stay
    for the grace.
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
    """Say in one transaction that these bytes go, of those nobody is naming now; what was
    marked.
    """
    with suppress(Conflict), store.write(actor, Action.BLOB_COLLECT) as tx:
        tombstones.one_at_a_time(tx.session)  # a hold that is being placed is seen, or comes after
        marked = {one: size for one, size in planned.items() if _marked(tx, one, before)}
        if not marked:
            raise Conflict(
                "nothing-to-collect", "All of it is named again, or being named at this moment."
            )
        tx.session.flush()
        tx.audit("blobs", blobs=len(marked), bytes=sum(marked.values()), root=root_of(marked))
        return marked
    return {}


def _marked(tx: Tx, digest: str, before: datetime) -> bool:
    if not table.try_lock(tx.session, digest):
        return False
    row = table.still_unnamed(tx.session, digest, before)
    if row is not None:
        row.collected_at = tx.now
        return True
    return not table.wanted(tx.session, digest, before)


def _remove(store: Store, blobs: Blobs, digest: str, before: datetime) -> bool:
    """Remove bytes under their lock, unless a row names them again by now."""
    with store.upkeep("collect") as session:
        if not table.try_lock(session, digest) or table.wanted(session, digest, before):
            return False
        return blobs.remove(digest, before)


def root_of(digests: Iterable[str]) -> str:
    """The digest of a collection: of the sorted list of what it took, as canonical JSON."""
    return canonical.digest({"blobs": sorted(digests)})
