"""Cursors are opaque, and nothing but a cursor of ours is taken for one."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.db.store import Store
from registry.errors import Invalid
from registry.queries import audit, lineage, rollouts, versions
from registry.queries.pages import (
    MAX_PAGE_ROWS,
    check_limit,
    containing,
    cursor_after,
    key_in,
    plain_ref,
)
from tests.build import World


@given(
    st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0")),
    st.integers(0, 2**63 - 1),
)
def test_a_cursor_gives_back_its_key(name: str, number: int) -> None:
    assert key_in(cursor_after([name, number]), str, int) == [name, number]


def _of(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "!",
        "AAAA",
        "////",
        "Zm9v",
        _of({"a": 1}),
        _of([]),
        _of(["a"]),
        _of([True]),
        _of([1.5]),
        _of([1, 2]),
        _of([2**63]),
        "é",
    ],
)
def test_what_is_no_cursor_is_refused_by_name(cursor: str) -> None:
    with pytest.raises(Invalid) as refused:
        key_in(cursor, int)
    assert refused.value.kind == "bad-cursor"


def test_a_cursor_holds_no_text_that_postgresql_cannot_hold() -> None:
    with pytest.raises(Invalid, match="cursor"):
        key_in(_of(["a\0b"]), str)


@pytest.mark.parametrize("limit", [0, -1, MAX_PAGE_ROWS + 1])
def test_a_page_has_a_longest_and_a_shortest_length(limit: int) -> None:
    with pytest.raises(Invalid) as refused:
        check_limit(limit)
    assert refused.value.kind == "bad-limit"


@pytest.mark.parametrize(
    ("node", "plain"),
    [
        ("acme/a@v1", "acme/a@v1"),
        ("dataset:acme/d@v2", "acme/d@v2"),
        ("suite:acme/s@v3", "acme/s@v3"),
        ("eval-run:0b5a", "0b5a"),
    ],
)
def test_a_node_is_told_by_the_name_people_write(node: str, plain: str) -> None:
    assert plain_ref(node) == plain


def test_what_is_searched_for_is_taken_to_the_letter() -> None:
    assert containing("50%_\\") == "%50\\%\\_\\\\%"


def test_no_text_is_asked_for_that_postgresql_cannot_hold(store: Store, served: World) -> None:
    actor, nul = served.engineer.actor, "a\0b"
    for ask in (
        lambda: versions.lines(store, actor, versions.LineFilter(q=nul)),
        lambda: versions.lines(store, actor, versions.LineFilter(team=nul)),
        lambda: audit.events(store, actor, subject=nul),
        lambda: audit.events(store, actor, action=nul),
        lambda: rollouts.history(store, actor, f"{served.team}/adapter", "production", nul),
        lambda: lineage.trace(store, actor, f"dataset:{nul}"),
        lambda: versions.version(store, actor, nul),
    ):
        with pytest.raises(Invalid):
            ask()
