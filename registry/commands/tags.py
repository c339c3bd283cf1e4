"""Set and remove tags on versions. Tags help to find a version, and decide nothing."""

from __future__ import annotations

from uuid import uuid4

from registry.db import tags, versions
from registry.db.store import Store
from registry.db.tags import VersionTag
from registry.errors import NotFound
from registry.rules.actions import Action
from registry.rules.actors import Actor
from registry.rules.tags import check_key, check_value
from registry.views.search import TagsView


def put(store: Store, actor: Actor, ref: str, key: str, value: str | None) -> TagsView:
    """Set a tag of a version, or remove it with None; earlier values stay in the log.

    Raises Invalid for a key or value that is not allowed, NotFound for an unknown version or, when
    removing, an unknown tag.
    """
    check_key(key)
    if value is not None:
        check_value(value)
    with store.write(actor, Action.TAG_SET) as tx:
        version, line, node = versions.by_ref(tx.session, ref, lock=True)
        tx.within(line.team)
        tag = tags.by_key(tx.session, version.id, key)
        if value is None and (tag is None or tag.value is None):
            raise NotFound("tag-unknown", f"{node.ref} has no tag '{key}'.")
        if tag is None:
            tx.add(
                VersionTag(
                    id=uuid4(),
                    version_id=version.id,
                    key=key,
                    value=value,
                    set_by=actor.account,
                    set_at=tx.now,
                )
            )
        else:
            tag.value, tag.set_by, tag.set_at = value, actor.account, tx.now
            tx.session.flush()
        tx.audit(node.ref, key=key, value=value)
        return TagsView(node.ref, tags.of_versions(tx.session, [version.id]).get(version.id, {}))
