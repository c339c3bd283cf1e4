"""The one table of pulls, enumerated: role x standing."""

from __future__ import annotations

from uuid import uuid4

import pytest

from registry.rules.actors import Actor, Grant, Role
from registry.rules.pulls import Standing, refusal

STANDINGS = {
    "draft": Standing("draft"), "registered": Standing("registered"), "deprecated": Standing("deprecated"),
    "approved": Standing("registered", approved=True), "live": Standing("registered", live=True),
    "carries": Standing("registered", carries=True), "deprecated-live": Standing("deprecated", live=True),
    "recalled": Standing("recalled", approved=True, live=True),
}  # fmt: skip
ALL = frozenset(Role)
PEOPLE = ALL - {Role.GATEWAY}
MAY = {
    "draft": frozenset({Role.REVIEWER}), "registered": PEOPLE, "deprecated": PEOPLE, "approved": ALL, "live": ALL,
    "carries": ALL, "deprecated-live": ALL, "recalled": frozenset(),
}  # fmt: skip


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("standing", STANDINGS)
def test_the_table(role: Role, standing: str) -> None:
    actor = Actor(uuid4(), "one", frozenset({Grant(role, "acme")}))
    assert (refusal(actor, "acme", STANDINGS[standing]) is None) is (role in MAY[standing])


def test_a_draft_is_its_makers() -> None:
    maker = Actor(uuid4(), "one", frozenset({Grant(Role.TRAINER, "acme")}))
    assert refusal(maker, "acme", Standing("draft", maker.account)) is None
    assert refusal(maker, "acme", Standing("draft", uuid4())) is not None


def test_another_team_and_a_reason() -> None:
    actor = Actor(uuid4(), "one", frozenset({Grant(Role.ENGINEER, "other")}))
    assert refusal(actor, "acme", Standing("registered")) is not None
    auditor = Actor(uuid4(), "two", frozenset({Grant(Role.AUDITOR, None)}))
    assert "poisoned" in str(refusal(auditor, "acme", Standing("recalled", recall_reason="poisoned")))
