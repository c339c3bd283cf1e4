"""Use cases: why things serve."""

from __future__ import annotations

from sqlalchemy import select

from registry.db.evals import EvalSuite
from registry.db.store import Store
from registry.db.use_cases import UseCase
from registry.queries.pages import seen
from registry.rules.actors import Actor
from registry.views.use_cases import UseCaseView


def use_cases(store: Store, actor: Actor) -> list[UseCaseView]:
    """Every use case of the teams the caller sees, by name."""
    with store.read(actor) as session:
        rows = session.execute(
            select(UseCase, EvalSuite.team + "/" + EvalSuite.name)
            .join(EvalSuite, EvalSuite.id == UseCase.suite_id)
            .where(seen(actor, UseCase.team))
            .order_by(UseCase.team, UseCase.name)
        )
        return [
            UseCaseView(
                id=row.id,
                name=row.ref,
                purpose=row.purpose,
                owner=row.owner,
                risk_tier=row.risk_tier,
                suite=suite,
                details=row.details,
                created_at=row.created_at,
            )
            for row, suite in rows
        ]
