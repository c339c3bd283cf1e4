"""The samples of an eval run: what a model answered to each item of a suite.

They are JSON Lines of `item` and `output`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from registry.artifacts.datasets.rows import Item
from registry.documents.strict_json import loads
from registry.errors import Invalid

FIX = 'Write {"item": id, "output": text} on each line.'


def read_samples(data: bytes) -> Iterator[tuple[str, str]]:
    """Each line as (item id, output); raises Invalid (`samples-malformed`) that names the line."""
    for number, line in enumerate(data.removesuffix(b"\n").split(b"\n"), 1):
        yield _sample(number, line)


def expected_answers(items: Iterable[Item]) -> dict[str, str]:
    """The expected answer of each item, by item id, in the order of the suite."""
    return {item.id: item.expected for item in items}


def _sample(number: int, line: bytes) -> tuple[str, str]:
    try:
        record = loads(line, depth=1)
    except Invalid as error:
        raise _malformed(number, error.detail) from error
    if not isinstance(record, dict) or set(record) != {"item", "output"}:
        raise _malformed(number, "it is not an object of item and output")
    item, output = record["item"], record["output"]
    if not isinstance(item, str) or not isinstance(output, str):
        raise _malformed(number, "item and output must be texts")
    return item, output


def _malformed(number: int, reason: str) -> Invalid:
    return Invalid(
        "samples-malformed", f"Line {number} of the samples cannot be read: {reason}.", FIX
    )
