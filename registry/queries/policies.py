"""The policies in force and the earlier ones."""

from __future__ import annotations

from sqlalchemy import select

from registry.db.accounts import names
from registry.db.policies import PolicyVersion
from registry.db.store import Store
from registry.rules.actors import Actor
from registry.rules.refs import ENVIRONMENTS
from registry.views.policies import PolicyView


def policies(store: Store, actor: Actor) -> list[PolicyView]:
    """Every published policy version, by environment, newest first.

    Everybody may read them, because everybody is judged by them.
    """
    with store.read(actor) as session:
        rows = session.scalars(select(PolicyVersion).order_by(PolicyVersion.number.desc())).all()
        names_by_id = names(session, {row.published_by for row in rows})
        newest = {row.environment: row.number for row in reversed(rows)}
        return [
            PolicyView(
                ref=row.ref,
                environment=row.environment,
                number=row.number,
                digest=row.digest,
                current=row.number == newest[row.environment],
                rules=row.rules,
                text=row.text,
                published_by=names_by_id[row.published_by],
                published_at=row.published_at,
            )
            for environment in ENVIRONMENTS
            for row in rows
            if row.environment == environment
        ]
