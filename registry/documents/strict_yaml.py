"""YAML read strictly: a document has one meaning, as JSON has (`rules.documents`), or is refused
with the line.

PyYAML takes the last of two keys of one name in silence, so that a reviewer and a machine read
different things; anchors and merge keys say one thing in two places, or a line a million times.
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
                f"line {event.start_mark.line + 1} has an anchor or an alias, &{event.anchor}: "
                "write it out"
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[str, int] = {}
        for key, _ in node.value if node.id == "mapping" else ():  # `!!map [1]` is a list
            line = key.start_mark.line + 1
            if key.tag == "tag:yaml.org,2002:merge":
                raise ValueError(f"line {line} has a merge key, <<: write it out")
            name = _written(self.construct_object(key, deep=True))
            if name in seen:
                raise ValueError(
                    f"the key {name[:60]!r} on line {line} stands on line {seen[name]} already"
                )
            seen[name] = line
        return super().construct_mapping(node, deep)


def loads(text: str) -> Any:
    """The one document of a YAML text.

    Raises ValueError naming the line for what is no YAML, a tag beside the plain ones, a key twice,
    an anchor or a merge.
    """
    try:
        return yaml.load(text, Loader=_Strict)  # noqa: S506 - a SafeLoader, made stricter
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except RecursionError:
        raise ValueError("it nests too deep") from None


def _written(key: Any) -> str:
    """A key as JSON would write it: 1 and "1" are one, and so are yes and "true"."""
    return key if isinstance(key, str) else json.dumps(key, default=str)
