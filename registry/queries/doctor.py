"""`countersign doctor`: whether the tables match the log, and whether all bytes are there."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from registry.blobs.store import Blobs
from registry.db.store import Store
from registry.db.versions import Blob
from registry.queries import audit
from registry.rules.actors import SYSTEM


def report(store: Store, blobs: Blobs, log_key: str) -> dict[str, Any]:
    """Compare every governed table with the log, recompute the log, and look for missing bytes."""
    checked = audit.check(store, SYSTEM, log_key)
    with store.read(SYSTEM) as session:
        rebuilt = audit.rebuild(session)
        missing = [
            f"blob {row.id} is {'missing' if not blobs.has(row.id) else 'of another size'}"
            for row in session.execute(
                select(Blob.id, Blob.size)
                .where(Blob.collected_at.is_(None))
                .execution_options(yield_per=1000)
            )
            if not blobs.has(row.id) or blobs.size(row.id) != row.size
        ]
    problems = [*checked.problems, *rebuilt.problems, *missing]
    return {
        "ok": not problems,
        "events": checked.events,
        "rows": rebuilt.rows,
        "tree_size": checked.size,
        "problems": problems,
    }
