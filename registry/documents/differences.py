"""Where two JSON documents differ, in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from registry.documents import canonical
from registry.documents.canonical import SAFE_INTEGER


def differences(own: Any, other: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Each place where two JSON documents differ, outermost first: key, own value, other value."""
    if isinstance(own, dict) and isinstance(other, dict):
        for key in sorted({*own, *other}):
            yield from differences(
                own.get(key), other.get(key), f"{path}.{key}" if path else str(key)
            )
    elif written(own) != written(other):
        yield path, own, other


def written(value: Any) -> bytes:
    """The canonical form, with integers beyond 2**53 - 1 written as texts.

    transformers writes a `model_max_length` of 1e30. Raises Invalid (`not-canonical`).
    """

    def carried(value: Any) -> Any:
        match value:
            case dict():
                return {key: carried(item) for key, item in value.items()}
            case list():
                return [carried(item) for item in value]
            case int() if abs(value) > SAFE_INTEGER:
                return f"integer {value}"
            case _:
                return value

    return canonical.encode(carried(value), large_floats=True)


def short(value: Any) -> str:
    """A JSON value for a message, in at most 60 characters."""
    if value is None:
        return "nothing"
    text = written(value).decode()
    return text if len(text) <= 60 else f"{text[:57]}..."
