"""The one table of pulls, enumerated: role x binding x standing x team x who made it."""

from __future__ import annotations

from itertools import product
from uuid import uuid4

import pytest

from registry.errors import Invalid
from registry.rules.actors import ACROSS_TEAMS, Actor, Grant, Role, check_bound
from registry.rules.pulls import Standing, bound, refusal
from registry.rules.refs import ENVIRONMENTS

STATES = ("draft", "registered", "deprecated", "recalled")
SERVES = (frozenset[str](), *(frozenset({one}) for one in ENVIRONMENTS), frozenset(ENVIRONMENTS))
WITHIN = (None, *ENVIRONMENTS)

# Per state of a version: who of its team may pull it, where it is neither approved nor serves |
# where it is. m: only what one made oneself.
TABLE = """
              admin engineer reviewer auditor trainer gateway
draft         m|m   m|m      x|x      m|m     m|m     .|.
registered    x|x   x|x      x|x      x|x     x|x     .|x
deprecated    x|x   x|x      x|x      x|x     x|x     .|x
recalled      .|.   .|.      .|.      .|.     .|.     .|.
"""


def table() -> dict[tuple[str, Role], tuple[str, str]]:
    head, *rows = [line.split() for line in TABLE.strip().splitlines()]
    cells = {
        (row[0], Role(role)): cell.split("|")
        for row in rows
        for role, cell in zip(head, row[1:], strict=True)
    }
    assert set(cells) == set(product(STATES, Role))
    return {key: (unserved, served) for key, (unserved, served) in cells.items()}


def test_the_table() -> None:
    cells, tried = table(), 0
    for role, state, serves, within, team, mine in product(
        Role, STATES, SERVES, WITHIN, ("acme", "other", None), (True, False)
    ):
        if within is not None and role is not Role.GATEWAY:
            continue  # refused when the token is minted: see below
        actor = Actor(uuid4(), "one", frozenset({Grant(role, team, within)}))
        standing = Standing(state, actor.account if mine else uuid4(), serves, "poisoned")
        seen = team in ("acme", None) or role in ACROSS_TEAMS
        cell = cells[state, role][bool(serves) if within is None else within in serves]
        expected = seen and (cell == "x" or (cell == "m" and mine))
        why = refusal(actor, "acme", standing)
        assert (why is None) is expected, (role, state, serves, within, team, mine)
        # What he may not even know of is said to be not there, and nothing else.
        if why is not None and (not seen or state == "draft"):
            assert why == "there is no such version"
        elif why is not None:
            assert ("recalled: poisoned" in why) is (state == "recalled")
        tried += 1
    assert tried == (5 + len(WITHIN)) * len(STATES) * len(SERVES) * 3 * 2


def test_several_grants_add_up() -> None:
    both = Actor(
        uuid4(),
        "one",
        frozenset({Grant(Role.GATEWAY, "acme", "dev"), Grant(Role.GATEWAY, "acme", "staging")}),
    )
    assert bound(both, "acme") == {"dev", "staging"}
    assert (
        refusal(both, "acme", Standing("registered", environments=frozenset({"staging"}))) is None
    )
    said = refusal(both, "acme", Standing("registered", environments=frozenset({"production"})))
    assert said == "this version is not approved for dev or staging, or its approval has expired"
    elsewhere = Actor(
        uuid4(),
        "two",
        frozenset({Grant(Role.GATEWAY, "acme", "dev"), Grant(Role.GATEWAY, "other")}),
    )
    assert (
        refusal(elsewhere, "acme", Standing("registered", environments=frozenset({"production"})))
        is not None
    )
    trainer = Actor(
        uuid4(),
        "three",
        frozenset({Grant(Role.GATEWAY, "acme", "dev"), Grant(Role.TRAINER, "acme")}),
    )
    assert bound(trainer, "acme") is None
    assert refusal(trainer, "acme", Standing("registered")) is None
    reviewer = Actor(uuid4(), "four", frozenset({Grant(Role.REVIEWER, "risk")}))
    assert refusal(reviewer, "acme", Standing("draft", uuid4())) is None


def test_only_a_gateway_is_bound() -> None:
    assert check_bound([Role.GATEWAY], "staging") == "staging"
    assert check_bound([Role.ENGINEER], None) is None
    for roles in ([Role.ENGINEER], [Role.GATEWAY, Role.TRAINER], [Role.TRAINER]):
        with pytest.raises(Invalid) as refused:
            check_bound(roles, "staging")
        assert refused.value.kind == "environment-not-for-role"
    with pytest.raises(Invalid):
        check_bound([Role.GATEWAY], "mars")
