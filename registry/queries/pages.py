"""What answers share: whose rows an actor sees, how things are named, and where the next page
begins.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from typing import Any

from registry.db.sight import seen as seen
from registry.errors import Invalid

LONGEST = 200
UNSENDABLE = re.compile("[\0\ud800-\udfff]")  # characters that JSON may hold and PostgreSQL no text


def plain_ref(ref: str) -> str:
    """A node's reference as people write it: without the `dataset:`, `suite:` or `eval-run:` that
    keeps nodes apart.
    """
    return ref.rpartition(":")[2]


def storable(words: str) -> str:
    """Text as somebody asks for it; Invalid `bad-text` for the one character no row can hold."""
    if "\0" in words:
        raise Invalid("bad-text", "A NUL character can be in no text here.")
    return words


def containing(words: str) -> str:
    """A LIKE pattern for rows that contain these very characters."""
    escaped = storable(words).replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"


def length(limit: int) -> int:
    """The page length asked for, 1 to 200; Invalid `bad-limit` otherwise."""
    if not 1 <= limit <= LONGEST:
        raise Invalid(
            "bad-limit", f"A page of {limit} rows cannot be had.", f"Ask for 1 to {LONGEST}."
        )
    return limit


def cursor_after(key: Sequence[str | int]) -> str:
    """An opaque cursor: the key of the last row shown, so that rows born meanwhile shift
    nothing.
    """
    return base64.urlsafe_b64encode(json.dumps(list(key)).encode()).decode().rstrip("=")


def key_in(cursor: str, *shape: type) -> list[Any]:
    """The key a cursor of ours holds; Invalid `bad-cursor` when it was not made by this list."""
    try:
        key = json.loads(
            base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        )
    except ValueError:  # not base64, not UTF-8, not JSON: each is one
        key = None
    if not isinstance(key, list) or [type(part) for part in key] != list(shape):
        raise Invalid("bad-cursor", "That cursor is not one of this list.")
    if any(
        part.bit_length() > 63 if isinstance(part, int) else UNSENDABLE.search(part) for part in key
    ):
        raise Invalid("bad-cursor", "That cursor is not one of this list.")
    return key
