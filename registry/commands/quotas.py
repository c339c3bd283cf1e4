"""Set the quota of a team."""

from __future__ import annotations

from uuid import uuid4

from registry.db import accounts, quotas
from registry.db.quotas import Quota
from registry.db.store import Store
from registry.rules.actions import Action
from registry.rules.actors import Actor
from registry.rules.quotas import Limits, check_limits
from registry.rules.rollouts import check_reason
from registry.views.retention import QuotaView


def put(store: Store, actor: Actor, team: str, limits: Limits, reason: str) -> QuotaView:
    """Set a team's limits from now on. What exceeds them stays, but nothing more can be added.

    Raises Invalid `bad-quota`, `bad-team` or `reason-missing`.
    """
    text = check_reason(reason)
    check_limits(team, limits)
    with store.write(actor, Action.QUOTA_SET) as tx:
        tx.within(team)
        quota = tx.add(
            Quota(
                id=uuid4(),
                team=team,
                max_bytes=limits.max_bytes,
                max_versions=limits.max_versions,
                reason_commitment=accounts.seal(tx.session, "reason", text),
                set_by=actor.account,
                set_at=tx.now,
            )
        )
        used = quotas.usage(tx.session, team)
        tx.audit(
            f"quota:{team}",
            max_bytes=limits.max_bytes,
            max_versions=limits.max_versions,
            reason=quota.reason_commitment,
        )
        return QuotaView(team, limits.max_bytes, limits.max_versions, used.bytes, used.versions)
