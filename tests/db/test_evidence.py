"""Evidence: every rule of the gate finds what it reads."""

from __future__ import annotations

import pytest

from registry.db.evidence import READ_BY_RULES
from registry.rules.gates import RULES, Rule


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_what_a_rule_reads_is_gathered(rule: type[Rule]) -> None:
    assert rule.reads in READ_BY_RULES
