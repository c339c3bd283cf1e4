"""Policy versions: frozen once published. The highest number of an environment is in force."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, UniqueConstraint, select
from sqlalchemy.orm import Mapped, Session

from registry.db.table import Id, Moment, Table, hex_digest, one_of
from registry.errors import NotFound
from registry.rules.refs import ENVIRONMENTS


class PolicyVersion(Table):
    """What must hold before a version may serve in an environment."""

    __tablename__ = "policy_version"
    id: Mapped[Id]
    environment: Mapped[str]
    number: Mapped[int]
    digest: Mapped[str]
    rules: Mapped[dict[str, Any]]
    text: Mapped[str]
    published_by: Mapped[UUID | None]
    published_at: Mapped[Moment]
    __table_args__ = (
        UniqueConstraint("environment", "number"),
        CheckConstraint(one_of("environment", *ENVIRONMENTS), name="environment"),
        CheckConstraint(hex_digest("digest"), name="digest"),
        CheckConstraint("number > 0", name="number"),
    )

    @property
    def ref(self) -> str:
        return f"{self.environment}-v{self.number}"


def in_force(session: Session, environment: str) -> PolicyVersion | None:
    """The policy in force in an environment, if one was published."""
    statement = (
        select(PolicyVersion)
        .where(PolicyVersion.environment == environment)
        .order_by(PolicyVersion.number.desc())
        .limit(1)
    )
    return session.scalars(statement).one_or_none()


def current(session: Session, environment: str) -> PolicyVersion:
    """The policy in force, or NotFound: without a policy, nothing can be decided."""
    policy = in_force(session, environment)
    if policy is None:
        raise NotFound(
            "policy-unknown",
            f"No policy is in force for {environment}.",
            "Start the registry with countersign up, which installs the built-in policies.",
        )
    return policy


def allowing_chat_templates(session: Session) -> tuple[str, ...]:
    """The environments whose policy in force lets an adapter bring a chat template of its own."""
    policies = [in_force(session, environment) for environment in ENVIRONMENTS]
    return tuple(
        policy.environment
        for policy in policies
        if policy is not None and policy.rules.get("chat_templates") == "allow"
    )


def by_id(session: Session, policy_id: UUID) -> PolicyVersion:
    """The policy version a review was opened under."""
    return session.get_one(PolicyVersion, policy_id)
