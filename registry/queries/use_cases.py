"""Use cases: why things serve, now and before."""

from __future__ import annotations

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session, aliased

from registry.db import use_cases as table
from registry.db.accounts import names, personal_texts
from registry.db.store import Store
from registry.db.use_cases import UseCase, UseCaseVersion
from registry.db.versions import Node
from registry.queries.pages import plain_ref, seen
from registry.queries.reviews import ERASED
from registry.rules.actors import Actor
from registry.views.use_cases import UseCaseView

Later = aliased(UseCaseVersion)
IS_NEWEST = ~(
    select(Later.id)
    .where(Later.use_case_id == UseCaseVersion.use_case_id, Later.number > UseCaseVersion.number)
    .exists()
)


def use_cases(store: Store, actor: Actor) -> list[UseCaseView]:
    """The newest version of every use case of the teams the caller sees, by name."""
    with store.read(actor) as session:
        return _views(session, actor, IS_NEWEST)


def use_case(store: Store, actor: Actor, name: str) -> UseCaseView:
    """The newest version of a use case; NotFound."""
    with store.read(actor) as session:
        row = table.by_name(session, name)
        return _views(session, actor, IS_NEWEST & (UseCase.id == row.id))[0]


def history(store: Store, actor: Actor, name: str) -> list[UseCaseView]:
    """Every version of a use case, newest first; NotFound."""
    with store.read(actor) as session:
        use_case = table.by_name(session, name)
        return _views(session, actor, UseCaseVersion.use_case_id == use_case.id)


def _views(session: Session, actor: Actor, which: ColumnElement[bool]) -> list[UseCaseView]:
    rows = session.execute(
        select(UseCase, UseCaseVersion, Node.ref)
        .join(UseCaseVersion, UseCaseVersion.use_case_id == UseCase.id)
        .join(Node, Node.id == UseCaseVersion.suite_version_id)
        .where(which, seen(actor, UseCase.team))
        .order_by(UseCase.team, UseCase.name, UseCaseVersion.number.desc())
    ).all()
    people = names(session, {row[1].created_by for row in rows})
    reasons = {row[1].reason_commitment for row in rows if row[1].reason_commitment}
    texts = personal_texts(session, reasons)
    return [
        UseCaseView(
            id=use_case.id,
            name=use_case.ref,
            version=version.number,
            purpose=version.purpose,
            owner=version.owner,
            risk_tier=version.risk_tier,
            suite=plain_ref(suite),
            details=version.details,
            reason=version.reason_commitment and texts.get(version.reason_commitment, ERASED),
            changed_by=people[version.created_by] if version.created_by else None,
            created_at=version.created_at,
        )
        for use_case, version, suite in rows
    ]
