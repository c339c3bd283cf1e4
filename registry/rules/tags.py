"""Tags: the allowed keys and values, and the words that cannot become a tag."""

from __future__ import annotations

import re

from registry.errors import Invalid

KEY = re.compile(r"[a-z0-9][a-z0-9._/-]{0,62}")
MAX_VALUE_LENGTH = 256
"""Characters of a value."""

RESERVED = (
    "approved",
    "approval",
    "production",
    "staging",
    "dev",
    "live",
    "stable",
    "candidate",
    "recalled",
    "revoked",
    "verified",
    "signed",
    "rejected",
    "deprecated",
    "registered",
    "draft",
)
"""Words that are no tag.

Approved is the outcome of a review and live is a route generation: no tag may look like either.
"""


def check_key(key: str) -> str:
    """Check a tag's key.

    Raises Invalid `bad-tag` for its characters, `reserved-tag` for a word that would mislead.
    """
    if not KEY.fullmatch(key):
        raise Invalid(
            "bad-tag",
            f"'{key[:80]}' cannot be the key of a tag.",
            "Begin with a-z or 0-9; then up to 62 of a-z, 0-9, dot, dash, underscore, slash.",
        )
    if key in RESERVED:
        raise Invalid(
            "reserved-tag",
            f"'{key}' cannot be a tag: it would look like a decision or a state.",
        )
    return key


def check_value(value: str) -> str:
    """Check a tag's value: 1 to 256 printable characters; raises Invalid `bad-tag`."""
    if not 1 <= len(value) <= MAX_VALUE_LENGTH or not value.isprintable():
        raise Invalid(
            "bad-tag",
            f"The value of a tag is 1 to {MAX_VALUE_LENGTH} printable characters.",
            "Shorten it, and remove line breaks and control characters.",
        )
    return value
