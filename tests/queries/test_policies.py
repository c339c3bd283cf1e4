"""Policies: every version by environment, or the one that a reference names."""

from __future__ import annotations

import pytest

from registry.db.store import Store
from registry.errors import NotFound
from registry.queries import policies
from registry.rules.refs import ENVIRONMENTS
from tests.build import World


def test_a_policy_is_the_same_in_the_list_and_by_its_reference(store: Store, served: World) -> None:
    actor = served.engineer.actor
    listed = policies.policies(store, actor)
    order = [(ENVIRONMENTS.index(view.environment), -view.number) for view in listed]
    assert order == sorted(order)
    assert {view.environment for view in listed if view.current} == set(ENVIRONMENTS)
    for view in listed:
        assert policies.policy(store, actor, view.ref) == view


@pytest.mark.parametrize("ref", ["production-v0", "production-v01", "production", "nowhere-v1", ""])
def test_a_policy_that_does_not_exist_is_not_found(store: Store, served: World, ref: str) -> None:
    with pytest.raises(NotFound) as missing:
        policies.policy(store, served.engineer.actor, ref)
    assert missing.value.kind == "policy-unknown"
