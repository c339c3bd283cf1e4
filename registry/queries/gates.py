"""What a gate would say now."""

from __future__ import annotations

from registry.blobs.store import Blobs
from registry.db import evidence, policies, use_cases, versions
from registry.db.store import Store
from registry.rules import gates
from registry.rules.actors import Actor
from registry.rules.refs import check_environment
from registry.views.evals import RuleView, VerdictView


def check(
    store: Store, blobs: Blobs, actor: Actor, ref: str, environment: str, use_case: str
) -> VerdictView:
    """Gather the evidence as a submission would, judge it by the policy in force, and store
    nothing.
    """
    check_environment(environment)
    with store.read(actor) as session:
        version, _, _ = versions.by_ref(session, ref)
        policy = policies.current(session, environment)
        case = use_cases.by_name(session, use_case)
        gathered = evidence.gather(session, blobs, version, policy, case)
        verdict = gates.judge(policy.rules, gathered)
        rules = [RuleView(one.rule, one.outcome, one.detail, one.numbers) for one in verdict.rules]
        return VerdictView(verdict.outcome, policy.ref, policy.digest, rules)
