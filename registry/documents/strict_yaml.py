"""YAML, read strictly: a document has one meaning, or is refused with the line.

A plain scalar means what the core schema of YAML 1.2 says: `1e-4` is a number, `yes`, `1:30` and
`2026-11-30` are texts. PyYAML follows YAML 1.1, where the first is a text and the others are not.

PyYAML also silently takes the last of two equal keys, so a reviewer and a machine read different
things. Anchors and merge keys state one thing in two places, or repeat a line a million times.
`strict_json` reads JSON by the same rule.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

import yaml

NULL = re.compile(r"null|Null|NULL|~|")
BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
FLOAT = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
"""The forms of plain scalars in the core schema, YAML 1.2.2, section 10.3.2."""
TAG = "tag:yaml.org,2002:"
SCHEMA = (("null", NULL), ("bool", BOOL), ("int", INT), ("float", FLOAT))
MAX_DIGITS = 4300
"""Digits of an integer; Python's own limit, beyond which it takes quadratic time."""


class _Strict(yaml.SafeLoader):
    yaml_implicit_resolvers = {
        # PyYAML looks the forms up by the first character of a scalar.
        first: [(f"{TAG}{name}", re.compile(f"(?:{form.pattern})\\Z")) for name, form in SCHEMA]
        for first in ["", *"~nNtTfF+-.0123456789"]
    } | {"<": [(f"{TAG}merge", re.compile(r"<<\Z"))]}

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]  # so in PyYAML's stubs
        if getattr(event, "anchor", None):
            raise ValueError(
                f"line {event.start_mark.line + 1} has an anchor or an alias, &{event.anchor}; "
                "write the value out"
            )
        return super().compose_node(parent, index)

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        value = super().construct_scalar(node)
        if any("\ud800" <= character <= "\udfff" for character in str(value)):
            raise ValueError(
                f"line {node.start_mark.line + 1} has half of a surrogate pair, not a character"
            )
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[str, int] = {}
        for key, _ in node.value if node.id == "mapping" else ():  # `!!map [1]` is a list
            line = key.start_mark.line + 1
            if key.tag == f"{TAG}merge":
                raise ValueError(f"line {line} has a merge key, <<; write the keys out")
            name = _written(self.construct_object(key, deep=True))
            if name in seen:
                raise ValueError(
                    f"the key {name[:60]!r} on line {line} is already on line {seen[name]}"
                )
            seen[name] = line
        return super().construct_mapping(node, deep)

    def construct_core_bool(self, node: yaml.ScalarNode) -> bool:
        return _matched(self, node, BOOL).lower() == "true"

    def construct_core_int(self, node: yaml.ScalarNode) -> int:
        text = _matched(self, node, INT)
        digits = text.lstrip("+-")
        if digits.startswith("0") and digits.isdecimal() and digits.strip("0") and len(digits) > 1:
            # YAML 1.1 reads 017 as fifteen, 1.2 as seventeen, and a person as an identifier.
            raise ValueError(
                f"line {node.start_mark.line + 1} has {text[:60]}, which readers of YAML take for "
                f"different numbers; write {int(text, 10)}, or quotes around a text"
            )
        if len(digits) > MAX_DIGITS:
            raise ValueError(f"line {node.start_mark.line + 1} has a number of too many digits")
        return int(text, {"0x": 16, "0o": 8}.get(text[:2], 10))

    def construct_core_float(self, node: yaml.ScalarNode) -> float:
        text = _matched(self, node, FLOAT)
        if text[-1].isalpha():  # .inf or .nan
            return float(text.replace(".", ""))
        value = float(text)
        if math.isinf(value):
            raise ValueError(
                f"line {node.start_mark.line + 1} has {text[:60]}, a number that is too large; "
                "write quotes around it if it is a text"
            )
        return value

    def construct_core_null(self, node: yaml.ScalarNode) -> None:
        _matched(self, node, NULL)

    def refuse_tag(self, node: yaml.Node) -> None:
        tag = node.tag.removeprefix(TAG)
        raise ValueError(
            f"line {node.start_mark.line + 1} has the tag !!{tag}; write a plain value"
        )


for _name in ("null", "bool", "int", "float"):
    _Strict.add_constructor(f"{TAG}{_name}", getattr(_Strict, f"construct_core_{_name}"))
for _name in ("timestamp", "binary", "set", "omap", "pairs"):
    # JSON cannot hold what these tags make.
    _Strict.add_constructor(f"{TAG}{_name}", _Strict.refuse_tag)


def _matched(loader: _Strict, node: yaml.ScalarNode, form: re.Pattern[str]) -> str:
    """The text of a scalar, which an explicit tag may have put before any text."""
    text = str(loader.construct_scalar(node))
    if not form.fullmatch(text):
        raise TypeError(text)
    return text


def loads(text: str) -> Any:
    """The one document of a YAML text.

    Raises ValueError, naming the line, for text that is not YAML, a tag other than the plain ones,
    a key that occurs twice, an anchor or a merge key, and a number that has no one meaning.
    """
    try:
        return yaml.load(text, Loader=_Strict)  # noqa: S506 - a SafeLoader, made stricter
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except (LookupError, AttributeError, TypeError):
        # PyYAML's constructors fail so on a text that does not fit the tag before it.
        raise ValueError("a value does not fit the type that its tag names") from None
    except RecursionError:
        raise ValueError("it nests too deeply") from None


def _written(key: Any) -> str:
    """A key as JSON writes it: 1 and "1" are the same key, and so are true and "true"."""
    return key if isinstance(key, str) else json.dumps(key, default=str)
