"""YAML, read strictly: a document has one meaning, or is refused with the line.

PyYAML silently takes the last of two equal keys, so a reviewer and a machine read different things.
Anchors and merge keys state one thing in two places, or repeat a line a million times.
`strict_json` reads JSON by the same rule.
"""

from __future__ import annotations

import json
from typing import Any

import yaml


class _Strict(yaml.SafeLoader):
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
            if key.tag == "tag:yaml.org,2002:merge":
                raise ValueError(f"line {line} has a merge key, <<; write the keys out")
            name = _written(self.construct_object(key, deep=True))
            if name in seen:
                raise ValueError(
                    f"the key {name[:60]!r} on line {line} is already on line {seen[name]}"
                )
            seen[name] = line
        return super().construct_mapping(node, deep)


def loads(text: str) -> Any:
    """The one document of a YAML text.

    Raises ValueError, naming the line, for text that is not YAML, a tag other than the plain ones,
    a key that occurs twice, an anchor or a merge key.
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
    """A key as JSON writes it: 1 and "1" are the same key, and so are yes and "true"."""
    return key if isinstance(key, str) else json.dumps(key, default=str)
