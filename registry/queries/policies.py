"""The policies in force and the earlier ones."""

from __future__ import annotations

from sqlalchemy import ColumnElement, String, cast, select, true
from sqlalchemy.orm import Session, aliased

from registry.db.accounts import names
from registry.db.policies import PolicyVersion
from registry.db.store import Store
from registry.errors import NotFound
from registry.rules.actors import Actor
from registry.rules.refs import ENVIRONMENTS
from registry.views.policies import PolicyView

Later = aliased(PolicyVersion)
IS_NEWEST = ~(
    select(Later.id)
    .where(Later.environment == PolicyVersion.environment, Later.number > PolicyVersion.number)
    .exists()
)


def policies(store: Store, actor: Actor) -> list[PolicyView]:
    """Every published policy version, by environment, newest first.

    Everybody may read them, because everybody is judged by them.
    """
    with store.read(actor) as session:
        views = _views(session, true())
    return sorted(views, key=lambda view: ENVIRONMENTS.index(view.environment))


def policy(store: Store, actor: Actor, ref: str) -> PolicyView:
    """The policy version `environment-v3`, or NotFound."""
    environment, _, number = ref.rpartition("-v")
    with store.read(actor) as session:
        views = _views(
            session,
            (PolicyVersion.environment == environment)
            & (cast(PolicyVersion.number, String) == number),
        )
    if not views:
        raise NotFound("policy-unknown", f"There is no policy version '{ref[:60]}'.")
    return views[0]


def _views(session: Session, which: ColumnElement[bool]) -> list[PolicyView]:
    """The policy versions, newest first."""
    rows = session.execute(
        select(PolicyVersion, IS_NEWEST).where(which).order_by(PolicyVersion.number.desc())
    ).all()
    names_by_id = names(session, {row.published_by for row, _ in rows})
    return [
        PolicyView(
            ref=row.ref,
            environment=row.environment,
            number=row.number,
            digest=row.digest,
            current=is_newest,
            rules=row.rules,
            text=row.text,
            published_by=names_by_id[row.published_by],
            published_at=row.published_at,
        )
        for row, is_newest in rows
    ]
