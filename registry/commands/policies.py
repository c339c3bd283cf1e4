"""Publish policies. Each version is frozen, and the newest of an environment is in force."""

from __future__ import annotations

from uuid import uuid4

from registry.db import policies
from registry.db.policies import PolicyVersion
from registry.db.store import Store
from registry.documents import canonical, strict_yaml
from registry.errors import Conflict, Invalid
from registry.rules import policies as rules
from registry.rules.actions import Action
from registry.rules.actors import Actor


def publish(store: Store, actor: Actor, text: str, *, only_first: bool = False) -> str | None:
    """Freeze a policy's text as the next version of its environment, and return its reference.

    With `only_first`, an environment that already has a policy keeps it, and None is returned.
    Raises Invalid for YAML or rules that do not parse, Conflict when the same rules are in force.
    """
    try:
        document = strict_yaml.loads(text)
    except ValueError as error:
        raise Invalid(
            "bad-policy",
            f"The policy is not YAML with one meaning: {str(error)[:200]}",
            "Correct the file, then publish it again.",
        ) from error
    policy = rules.parse(document)
    plain = rules.as_rules(policy)
    if only_first:
        with store.read(actor) as session:
            if policies.in_force(session, policy.environment) is not None:
                return None
    with store.write(actor, Action.POLICY_PUBLISH) as tx:
        present = policies.in_force(tx.session, policy.environment)
        digest = canonical.digest(plain)
        if present is not None and (only_first or present.digest == digest):
            raise Conflict(
                "policy-unchanged",
                f"{present.ref} has exactly these rules already.",
            )
        number = 1 if present is None else present.number + 1
        version = tx.add(
            PolicyVersion(
                id=uuid4(),
                environment=policy.environment,
                number=number,
                digest=digest,
                rules=plain,
                text=text,
                published_by=actor.account,
                published_at=tx.now,
            )
        )
        tx.audit(f"policy:{version.ref}", digest=digest)
        return version.ref
