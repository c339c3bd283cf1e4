"""What people must state of a version in its meta: texts such as its purpose and its licence."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Finding:
    """Something a person must know; if it `blocks`, they must supply it, and there is a draft."""

    field: str
    detail: str
    fix: str
    blocks: bool = True


def unstated(names: Sequence[str], meta: Mapping[str, Any], then: str) -> Iterator[Finding]:
    """A finding for each of these names that `meta` does not give as a text.

    YAML reads `12` and `1e4` as numbers, and a number says nothing where a text belongs: a licence
    or a commit of digits alone would be stored as something else. `then` completes "... and".
    """
    for name in names:
        value = meta.get(name)
        option = "--domain, or domain" if name == "domain" else name
        if value is None or value == "" or (isinstance(value, str) and not value.strip()):
            yield Finding(name, f"{name} is missing", f"Give {option} in the meta file and {then}.")
        elif not isinstance(value, str):
            number = isinstance(value, bool | int | float)
            shown = json.dumps(value)[:60] if number else f"a {type(value).__name__}"
            fix = "Write it in quotes" if number else "Write it as a text"
            yield Finding(name, f"{name} is {shown}, not a text", f"{fix} and {then}.")
