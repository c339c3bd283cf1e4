"""Tables of fields: what each constructor accepts, how it says so, and every problem at once."""

from __future__ import annotations

import re
from typing import Any

import pytest

from registry.artifacts.methods.table import METHODS
from registry.fields import (
    MAX_PROBLEMS,
    MISSING,
    Field,
    Fields,
    by_path,
    choice,
    described,
    filled,
    flag,
    integer,
    list_of,
    nullable,
    number,
    pattern,
    problems,
    table,
    text,
)
from registry.rules import gates, policies, profiles, recipes

ACCEPTED: list[tuple[Field, str, list[Any], list[Any]]] = [
    (integer(1), "an integer from 1", [1, 10**30], [0, 1.0, True, "1", None]),
    (integer(1, 3), "an integer from 1 to 3", [1, 3], [0, 4, [], {}]),
    (number(0, 2), "a number from 0 to 2", [0, 2, 0.5], [-1, 2.1, True, "1", float("nan")]),
    (number(0.5, 1, exclusive=True), "a number from 0.5 to below 1", [0.5], [1, 1.0, 10**400]),
    (choice("dev"), "dev", ["dev"], ["Dev", None, ["dev"]]),
    (choice("a", "b", "c"), "a, b or c", ["a", "c"], ["d", {}]),
    (choice(None, True, 1), "null, true or 1", [None, True, 1], [False, 1.0, 0]),
    (flag(), "true or false", [True, False], [0, 1, "yes", None]),
    (text(1, 3), "a text of 1 to 3 characters", ["a", "abc"], ["", "abcd", 1, None]),
    (pattern(re.compile("[a-z]+"), "a word"), "a word", ["ab"], ["", "a\n", "A", 1]),
    (nullable(integer(1)), "null or an integer from 1", [None, 1], [0, "null"]),
    (
        list_of(integer(1), 1, 2),
        "a list of 1 to 2 values, each an integer from 1",
        [[1], [1, 1]],
        [[], [1, 1, 1], [0], "1", None, {}],
    ),
    (
        list_of(text(), 0, 3, different=True),
        "a list of up to 3 different values, each a text of 1 to 512 characters",
        [[], ["a", "b"]],
        [["a", "a"], ["a", {}]],
    ),
    (table({"a": flag()}), "a table of a", [{}, {"a": 1}], [[], None, "a"]),
    (integer(2).because("nothing ships on one signature"), "an integer from 2 (nothing", [2], [1]),
]


@pytest.mark.parametrize(("field", "expected", "good", "bad"), ACCEPTED)
def test_a_field_accepts_what_it_says(
    field: Field, expected: str, good: list[Any], bad: list[Any]
) -> None:
    assert field.expected.startswith(expected)
    assert [value for value in good if not field.check(value)] == []
    assert [value for value in bad if field.check(value)] == []


TABLE: Fields = {
    "name": text(),
    "steps": integer(1, 9).optional(3),
    "quorum": table({"approvals": integer(2), "roles": list_of(text(), 1, 2).optional()}),
    "note": nullable(text()).optional(None),
}


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"name": "a", "quorum": {"approvals": 2}}, {}),
        ({"name": "a", "quorum": {"approvals": 2}, "steps": 9, "note": None}, {}),
        (
            {},
            {
                "name": "is missing; expected a text of 1 to 512 characters",
                "quorum": "is missing; expected a table of approvals, roles",
            },
        ),
        (
            {"x": 1, "steps": True, "name": "a" * 600, "quorum": {"approvals": 1, "y": 2}},
            {
                "name": f'must be a text of 1 to 512 characters, not "{"a" * 56}...',
                "steps": "must be an integer from 1 to 9, not true",
                "quorum.approvals": "must be an integer from 2, not 1",
                "quorum.y": "there is no such key; the keys are approvals, roles",
                "x": "there is no such key; the keys are name, steps, quorum, note",
            },
        ),
        (
            {"name": None, "quorum": [{"approvals": 2}], 1: 2},
            {
                "name": "must be a text of 1 to 512 characters, not null",
                "quorum": "must be a table of approvals, roles, not [{'approvals': 2}]",
                "1": "there is no such key; the keys are name, steps, quorum, note",
            },
        ),
        (["name"], {"": "must be a table of name, steps, quorum, note, not ['name']"}),
    ],
)
def test_every_problem_is_named_at_once_with_its_path(raw: Any, expected: dict[str, str]) -> None:
    assert by_path(problems(raw, TABLE)) == expected
    assert list(by_path(problems(raw, TABLE))) == list(expected)


def test_a_detail_lists_the_problems_and_ends() -> None:
    detail = described("The policy cannot be used", problems({"name": 1, "y": 2}, TABLE))
    assert detail.startswith("The policy cannot be used: name: must be a text")
    assert detail.endswith("y: there is no such key; the keys are name, steps, quorum, note.")
    assert described("It cannot be used", problems(3, TABLE)) == (
        "It cannot be used: it must be a table of name, steps, quorum, note, not 3."
    )


def test_a_hostile_document_gives_a_short_refusal() -> None:
    wrong = problems({f"{'k' * 1000}{number}": number for number in range(5000)}, TABLE)
    assert len(wrong) == 5002
    assert len(by_path(wrong)) <= MAX_PROBLEMS
    assert described("It cannot be used", wrong).endswith(f"; and {5002 - MAX_PROBLEMS} more.")
    (huge,) = problems({"name": "a", "steps": 16**9000, "quorum": {"approvals": 2}}, TABLE)
    assert huge.text == "must be an integer from 1 to 9, not a number too long to show"


def test_defaults_are_filled_in_and_never_shared() -> None:
    fields: Fields = {"a": list_of(text(), 0, 9).optional([]), "b": text().optional(), "c": text()}
    first = filled({"c": "x"}, fields)
    assert first == {"a": [], "c": "x"}
    first["a"].append("y")
    assert filled({"a": ["z"]}, fields) == {"a": ["z"]}
    assert filled({}, fields) == {"a": []}


def walked(fields: Fields) -> list[Field]:
    inner = [each for field in fields.values() for each in walked(field.fields or {})]
    return [*fields.values(), *inner]


@pytest.mark.parametrize(
    "fields",
    [
        recipes.FIELDS,
        profiles.FIELDS,
        policies.FIELDS,
        *(rule.fields for rule in gates.RULES),
        *(method.keys for method in METHODS.values()),
    ],
)
def test_every_default_is_a_value_the_field_accepts(fields: Fields) -> None:
    for field in walked(fields):
        assert field.default is MISSING or field.check(field.default), field.expected
        assert field.default is MISSING or not field.required


def test_a_text_that_yaml_read_as_a_number_belongs_in_quotes() -> None:
    [problem] = problems({"name": 1e4}, {"name": text()})
    assert problem.text == "must be a text of 1 to 512 characters, not 10000.0; write it in quotes"
    [problem] = problems({"name": "x"}, {"name": integer(0)})
    assert "quotes" not in problem.text
