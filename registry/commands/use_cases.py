"""Register use cases, and replace what they say by a new version."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from registry.db import accounts, evals, reviews, use_cases
from registry.db.store import Store, Tx
from registry.db.use_cases import UseCase, UseCaseVersion
from registry.db.versions import Node
from registry.errors import Conflict, Invalid
from registry.rules.actions import Action
from registry.rules.actors import Actor
from registry.rules.refs import parse_line
from registry.rules.reviews import check_reason

TIERS = ("minimal", "limited", "high")


@dataclass(frozen=True, slots=True)
class UseCaseRequest:
    """A use case to register: its purpose, owner and risk tier, and the suite that measures it.

    A suite without a version is pinned at its newest one.
    """

    name: str
    purpose: str
    owner: str
    risk_tier: str
    suite: str
    details: dict[str, Any]


@dataclass(frozen=True, slots=True)
class UseCaseUpdate:
    """What changes of a use case, and why; None leaves a field as it is."""

    name: str
    reason: str
    purpose: str | None = None
    owner: str | None = None
    risk_tier: str | None = None
    suite: str | None = None
    details: dict[str, Any] | None = None


def register(store: Store, actor: Actor, request: UseCaseRequest) -> str:
    """Register why something serves, for whom, how risky it is, and which suite judges it.

    Returns its name. Raises Invalid for an unknown risk tier, and without purpose or owner.
    """
    name = request.name
    ref = parse_line(name)
    assert ref.team is not None and ref.name is not None
    with store.write(actor, Action.USE_CASE_REGISTER, ref.team) as tx:
        tx.within(ref.team)
        use_case = tx.add(
            UseCase(
                id=uuid4(),
                team=ref.team,
                name=ref.name,
                created_by=actor.account,
                created_at=tx.now,
            )
        )
        version, suite = _version(tx, use_case, 1, request, None)
        tx.audit(f"use-case:{name}", version=1, risk_tier=version.risk_tier, suite=suite)
    return name


def update(store: Store, actor: Actor, request: UseCaseUpdate) -> int:
    """Replace what a use case says by its next version, and return that version's number.

    Every open review and every approval for the use case is void: people decided, or were about to,
    on what it said before. What serves keeps serving; a voided approval starts nothing new. Raises
    NotFound, Invalid, and Conflict `use-case-unchanged`.
    """
    reason = check_reason(request.reason)
    team = parse_line(request.name).team
    assert team is not None
    with store.write(actor, Action.USE_CASE_UPDATE, team) as tx:
        tx.within(team)
        use_case = use_cases.by_name(tx.session, request.name, lock=True)
        now = use_cases.newest(tx.session, use_case)
        pinned = tx.get(Node, now.suite_version_id).ref.removeprefix("suite:")
        version, suite = _version(
            tx,
            use_case,
            now.number + 1,
            UseCaseRequest(
                request.name,
                purpose=now.purpose if request.purpose is None else request.purpose,
                owner=now.owner if request.owner is None else request.owner,
                risk_tier=now.risk_tier if request.risk_tier is None else request.risk_tier,
                suite=pinned if request.suite is None else request.suite,
                details=now.details if request.details is None else request.details,
            ),
            reason,
        )
        if _contents(version) == _contents(now):
            raise Conflict(
                "use-case-unchanged",
                f"Version {now.number} of {request.name} says exactly this; a suite that is named "
                "without @vN means its newest version.",
            )
        void = reviews.resting_on_use_case(tx.session, use_case.id)
        for review in void:
            review.void(tx.now)
        tx.audit(
            f"use-case:{request.name}",
            version=version.number,
            risk_tier=version.risk_tier,
            suite=suite,
            reason=version.reason_commitment,
            voided=[review.number for review in void],
        )
        return version.number


def _version(
    tx: Tx, use_case: UseCase, number: int, request: UseCaseRequest, reason: str | None
) -> tuple[UseCaseVersion, str]:
    """A new version of a use case, and the suite version that it pins."""
    purpose, owner, risk_tier = request.purpose.strip(), request.owner.strip(), request.risk_tier
    if risk_tier not in TIERS:
        raise Invalid(
            "bad-risk-tier",
            f"There is no risk tier '{risk_tier[:40]}'.",
            f"Use one of {', '.join(TIERS)}.",
        )
    if not purpose or not owner:
        raise Invalid("use-case-incomplete", "A use case needs a purpose and an owner.")
    suite, node = evals.suite_version(tx.session, request.suite)
    version = tx.add(
        UseCaseVersion(
            id=uuid4(),
            use_case_id=use_case.id,
            number=number,
            purpose=purpose,
            owner=owner,
            risk_tier=risk_tier,
            suite_version_id=suite.id,
            details=request.details,
            reason_commitment=reason and accounts.seal(tx.session, "reason", reason),
            created_by=tx.actor.account,
            created_at=tx.now,
        )
    )
    return version, node.ref.removeprefix("suite:")


def _contents(version: UseCaseVersion) -> tuple[object, ...]:
    return (
        version.purpose,
        version.owner,
        version.risk_tier,
        version.suite_version_id,
        version.details,
    )
