"""The tags of a version, and who set each."""

from __future__ import annotations

from registry.db import tags as table
from registry.db import versions
from registry.db.accounts import names
from registry.db.store import Store
from registry.rules.actors import Actor
from registry.views.search import TagView


def tags(store: Store, actor: Actor, ref: str) -> list[TagView]:
    """The current tags of a version, by key. The audit log shows those that were removed."""
    with store.read(actor) as session:
        version, _, _ = versions.by_ref(session, ref, gone=True)
        rows = table.in_force(session, version.id)
        names_by_id = names(session, {row.set_by for row in rows})
        return [
            TagView(row.key, row.value or "", names_by_id[row.set_by], row.set_at) for row in rows
        ]
