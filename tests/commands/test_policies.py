"""Publishing a policy: what is frozen is what a reader of the text sees."""

from __future__ import annotations

from importlib import resources

import pytest

from registry.commands import policies
from registry.db.store import Store
from registry.errors import Invalid
from registry.rules.actors import SYSTEM


@pytest.mark.parametrize(
    "more", ["\nfallback_to_base: true\n", "\nx: &a 1\n", "\n<<: {quorum: 1}\n"]
)
def test_a_text_with_two_meanings_is_no_policy(store: Store, more: str) -> None:
    """PyYAML would take the last of two: what is in force would not be what was read first."""
    text = resources.files("registry").joinpath("policies/production.yaml").read_text("utf-8")
    with pytest.raises(Invalid, match="line") as refused:
        policies.publish(store, SYSTEM, text + more)
    assert refused.value.kind == "bad-policy"
