"""The verdict of a gate, without a review."""

from __future__ import annotations

from dataclasses import dataclass

from registry.blobs.store import Blobs
from registry.db import evidence, policies, use_cases, versions
from registry.db.store import Store
from registry.rules import gates
from registry.rules.actors import Actor
from registry.rules.refs import check_environment
from registry.views.evals import RuleView, VerdictView


@dataclass(frozen=True, slots=True)
class Proposal:
    """A version proposed to serve in an environment for a use case."""

    ref: str
    environment: str
    use_case: str


def check(store: Store, blobs: Blobs, actor: Actor, proposal: Proposal) -> VerdictView:
    """Gather the evidence as a submission would, and judge it by the policy in force.

    Nothing is stored. Raises NotFound without such a version, policy or use case.
    """
    check_environment(proposal.environment)
    with store.read(actor) as session:
        version, _, _ = versions.by_ref(session, proposal.ref)
        policy = policies.current(session, proposal.environment)
        case = use_cases.newest(session, use_cases.by_name(session, proposal.use_case))
        gathered = evidence.gather(session, blobs, version, policy, case)
        verdict = gates.judge(policy.rules, gathered)
        rules = [
            RuleView(rule.rule, rule.outcome, rule.detail, rule.numbers) for rule in verdict.rules
        ]
        return VerdictView(verdict.outcome, policy.ref, policy.digest, rules)
