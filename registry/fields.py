"""Tables of fields: the keys and values that a document may have, and everything wrong with it.

Recipes, policies, rules of the gate, serving profiles and adapter configurations each have one
table, from key to `Field`. A key that the table does not list is an error like a wrong value: a
misspelt key would otherwise be ignored silently.
"""

from __future__ import annotations

import copy
import json
import re
import reprlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final, Literal, Self

MAX_SHOWN = 60
"""Characters of a wrong value in a message."""
MAX_PATH = 120
"""Characters of a key's path in a message."""
MAX_PROBLEMS = 50
"""Problems listed in one refusal."""


class Missing(Enum):
    """The type of `MISSING`, which lets null be a default."""

    MISSING = "missing"


MISSING: Final = Missing.MISSING


@dataclass(frozen=True, slots=True)
class Field:
    """One key: what its value must be, as a check and in words, and whether it is required.

    `expected` completes "must be ...". A field that is not required gets its `default`, or remains
    absent where there is none. `fields` describes the keys of a nested table.
    """

    check: Callable[[Any], bool]
    expected: str
    required: bool = True
    default: Any = MISSING
    fields: Mapping[str, Field] | None = None

    def optional(self, default: Any = MISSING) -> Self:
        """The same field, which may be left out."""
        return replace(self, required=False, default=default)

    def because(self, why: str) -> Self:
        """The same field, with the reason for its limits in the message."""
        return replace(self, expected=f"{self.expected} ({why})")


Fields = Mapping[str, Field]
"""The fields of a table, by key."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong: the path of its key, such as `quorum.roles`, and the text after it.

    The path is empty where the document itself is not a table.
    """

    path: str
    fault: Literal["unknown", "missing", "wrong"]
    text: str

    def __str__(self) -> str:
        return f"{self.path[:MAX_PATH]}: {self.text}" if self.path else f"it {self.text}"


def problems(raw: Any, fields: Fields) -> list[Problem]:
    """Every wrong and missing key in the order of the table, then every unknown key."""
    whole = table(fields)
    if not whole.check(raw):
        return [Problem("", "wrong", f"must be {whole.expected}, not {_shown(raw)}")]
    return list(_problems(raw, fields, ""))


def _problems(raw: Mapping[Any, Any], fields: Fields, prefix: str) -> Iterator[Problem]:
    for key, field in fields.items():
        path = f"{prefix}{key}"
        if key not in raw:
            if field.required:
                yield Problem(path, "missing", f"is missing; expected {field.expected}")
        elif not field.check(raw[key]):
            text = f"must be {field.expected}, not {_shown(raw[key])}"
            yield Problem(path, "wrong", text + _quotes(raw[key], field))
        elif field.fields is not None:
            yield from _problems(raw[key], field.fields, f"{path}.")
    # All of them share one text: a hostile document has hundreds of thousands of unknown keys.
    unknown = f"there is no such key; the keys are {', '.join(fields)}"
    for key in raw:
        if key not in fields:
            yield Problem(f"{prefix}{key}", "unknown", unknown)


def _quotes(value: Any, field: Field) -> str:
    """The way out where a text was written so that YAML reads a number or a truth value."""
    if isinstance(value, bool | int | float) and field.check(_shown(value)):
        return "; write it in quotes"
    return ""


def filled(raw: Mapping[str, Any], fields: Fields) -> dict[str, Any]:
    """The document with its defaults filled in; nested tables are not changed."""
    defaults = {
        key: copy.deepcopy(field.default)
        for key, field in fields.items()
        if field.default is not MISSING
    }
    return defaults | dict(raw)


def described(what: str, wrong: list[Problem]) -> str:
    """The detail of a refusal: `what` (such as "The policy cannot be used"), a colon, each problem.

    The command line replaces what follows the colon: it prints each problem on its own line.
    """
    listed = "; ".join(map(str, wrong[:MAX_PROBLEMS]))
    others = f"; and {len(wrong) - MAX_PROBLEMS} more" if len(wrong) > MAX_PROBLEMS else ""
    return f"{what}: {listed}{others}."


def by_path(wrong: list[Problem]) -> dict[str, str]:
    """The member `problems` of a refusal: what is wrong, by the path of its key."""
    return {problem.path[:MAX_PATH]: problem.text for problem in wrong[:MAX_PROBLEMS]}


def _shown(value: Any) -> str:
    """A value as JSON, shortened; of a list or a table, the beginning."""
    try:
        if value is None or isinstance(value, str | bool | int | float):
            text = json.dumps(value, ensure_ascii=False)
        else:
            text = reprlib.repr(value)
    except ValueError:  # an integer of thousands of digits
        return "a number too long to show"
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."


def integer(low: int, high: int | None = None) -> Field:
    """An integer from `low` to `high`; true and 1.0 are not integers."""

    def check(value: Any) -> bool:
        return type(value) is int and low <= value and (high is None or value <= high)

    return Field(check, f"an integer from {low}" + ("" if high is None else f" to {high}"))


def number(low: float, high: float, *, exclusive: bool = False) -> Field:
    """A number from `low` to `high`, without `high` if `exclusive`; neither true nor NaN."""

    def check(value: Any) -> bool:
        in_range = type(value) in (int, float) and low <= value <= high
        return in_range and not (exclusive and value == high)

    return Field(check, f"a number from {low} to {'below ' if exclusive else ''}{high}")


def choice(*allowed: str | int | bool | None) -> Field:
    """One of these values; 1, 1.0 and true differ."""
    words = [value if isinstance(value, str) else json.dumps(value) for value in allowed]
    *others, last = words

    def check(value: Any) -> bool:
        return any(type(value) is type(option) and value == option for option in allowed)

    return Field(check, f"{', '.join(others)} or {last}" if others else last)


def flag() -> Field:
    """True or false."""
    return choice(True, False)


def text(low: int = 1, high: int = 512) -> Field:
    """A text of `low` to `high` characters."""

    def check(value: Any) -> bool:
        return isinstance(value, str) and low <= len(value) <= high

    return Field(check, f"a text of {low} to {high} characters")


def pattern(form: re.Pattern[str], expected: str) -> Field:
    """A text that matches `form` as a whole; `expected` describes the form."""
    return Field(
        lambda value: isinstance(value, str) and form.fullmatch(value) is not None, expected
    )


def nullable(field: Field) -> Field:
    """Null, or what `field` accepts."""
    return replace(
        field,
        check=lambda value: value is None or field.check(value),
        expected=f"null or {field.expected}",
    )


def list_of(item: Field, low: int, high: int, *, different: bool = False) -> Field:
    """A list of `low` to `high` items; if `different`, no two of them are equal."""

    def check(value: Any) -> bool:
        return (
            isinstance(value, list)
            and low <= len(value) <= high
            and all(map(item.check, value))
            and not (different and len(set(value)) < len(value))
        )

    count = f"{low}" if low == high else f"{low} to {high}" if low else f"up to {high}"
    kind = "different values" if different else "values"
    return Field(check, f"a list of {count} {kind}, each {item.expected}")


def table(fields: Fields) -> Field:
    """A nested table of these keys."""
    return Field(
        lambda value: isinstance(value, Mapping), f"a table of {', '.join(fields)}", fields=fields
    )
