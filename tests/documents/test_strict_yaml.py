"""YAML has one meaning, or is refused with a ValueError that says why."""

from __future__ import annotations

import pytest

from registry.documents import strict_yaml


@pytest.mark.parametrize(
    "text",
    [
        "x: !!bool abc",
        "x: !!timestamp abc",
        'x: !!int ""',
        'x: !!float ""',
        "x: !!map [1]",
        'environment: "\\ud800"',
        '"\\udc00": 1',
        "x: 1\nx: 2",
        "x: &a 1\ny: *a",
        "x: {<<: {y: 1}}",
        "x: !!python/object:os.system 1",
    ],
)
def test_whatever_is_wrong_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        strict_yaml.loads(text)


def test_plain_documents_are_read() -> None:
    assert strict_yaml.loads("a: 1\nb: [x, true, 1.5]\nc: \u00e4\U0001f600") == {
        "a": 1,
        "b": ["x", True, 1.5],
        "c": "\u00e4\U0001f600",
    }
