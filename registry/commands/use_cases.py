"""Register use cases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from registry.db import evals
from registry.db.store import Store
from registry.db.use_cases import UseCase
from registry.errors import Invalid
from registry.rules.actions import Action
from registry.rules.actors import Actor
from registry.rules.refs import parse_line, parse_ref

TIERS = ("minimal", "limited", "high")


@dataclass(frozen=True, slots=True)
class UseCaseRequest:
    """A use case to register: its purpose, owner and risk tier, and the suite that measures it."""

    name: str
    purpose: str
    owner: str
    risk_tier: str
    suite: str
    details: dict[str, Any]


def register(store: Store, actor: Actor, request: UseCaseRequest) -> str:
    """Register why something serves, for whom, how risky it is, and which suite judges it.

    Returns its name. Raises Invalid for an unknown risk tier, and without purpose or owner.
    """
    name, risk_tier = request.name, request.risk_tier
    purpose, owner = request.purpose.strip(), request.owner.strip()
    ref = parse_line(name)
    if risk_tier not in TIERS:
        raise Invalid(
            "bad-risk-tier",
            f"There is no risk tier '{risk_tier[:40]}'.",
            f"Use one of {', '.join(TIERS)}.",
        )
    if not purpose or not owner:
        raise Invalid(
            "use-case-incomplete",
            "A use case needs a purpose and an owner.",
        )
    assert ref.team is not None and ref.name is not None
    with store.write(actor, Action.USE_CASE_REGISTER, ref.team) as tx:
        tx.within(ref.team)
        suite = evals.suite_by_name(tx.session, parse_ref(request.suite))
        tx.add(
            UseCase(
                id=uuid4(),
                team=ref.team,
                name=ref.name,
                purpose=purpose,
                owner=owner,
                risk_tier=risk_tier,
                suite_id=suite.id,
                details=request.details,
                created_by=actor.account,
                created_at=tx.now,
            )
        )
        tx.audit(f"use-case:{name}", risk_tier=risk_tier, suite=request.suite)
    return name
