"""Tags: what a key and a value may be, and which words never become one."""

from __future__ import annotations

import re

from registry.errors import Invalid

KEY = re.compile(r"[a-z0-9][a-z0-9._/-]{0,62}")
LONGEST_VALUE = 256

# Approved is a review's outcome and live a route generation: no tag may look like either.
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


def check_key(key: str) -> str:
    """A key as it may stand; Invalid `bad-tag` for its characters, `reserved-tag` for words that
    would mislead.
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
    """A value as it may stand: 1 to 256 characters of printable text; Invalid `bad-tag`
    otherwise.
    """
    if not 1 <= len(value) <= LONGEST_VALUE or not value.isprintable():
        raise Invalid(
            "bad-tag",
            f"The value of a tag is 1 to {LONGEST_VALUE} printable characters.",
            "Shorten it, and leave out line ends and control characters.",
        )
    return value
