"""What queries share: which rows an actor sees, how references read, and how lists are paged."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from registry.db.sight import seen as seen
from registry.errors import Invalid

MAX_PAGE_ROWS = 200
"""The most rows of one page."""
UNSENDABLE = re.compile("[\0\ud800-\udfff]")
"""Characters that JSON text may contain and PostgreSQL text may not."""


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which page of a list: what follows the cursor (None: the first page), and how many rows."""

    cursor: str | None = None
    limit: int = 50


FIRST_PAGE = PageRequest()


def plain_ref(ref: str) -> str:
    """A node's reference as people write it, without `dataset:`, `suite:` or `eval-run:`.

    The prefix distinguishes nodes of different kinds that have the same name.
    """
    return ref.rpartition(":")[2]


def storable(text: str) -> str:
    """The text of a filter; Invalid `bad-text` for NUL, which no row can contain."""
    if "\0" in text:
        raise Invalid("bad-text", "Text cannot contain a NUL character.")
    return text


def containing(text: str) -> str:
    """A LIKE pattern for rows that contain exactly these characters."""
    escaped = storable(text).replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"


def check_limit(limit: int) -> int:
    """The limit, if it is 1 to `MAX_PAGE_ROWS`; Invalid `bad-limit` otherwise."""
    if not 1 <= limit <= MAX_PAGE_ROWS:
        raise Invalid(
            "bad-limit",
            f"A page has 1 to {MAX_PAGE_ROWS} rows, not {limit}.",
            f"Use a limit of 1 to {MAX_PAGE_ROWS}.",
        )
    return limit


def cursor_after(key: Sequence[str | int]) -> str:
    """An opaque cursor: the key of the last row shown, so that new rows do not shift a page."""
    return base64.urlsafe_b64encode(json.dumps(list(key)).encode()).decode().rstrip("=")


def key_in(cursor: str, *shape: type) -> list[Any]:
    """The key in a cursor, with parts of the types in `shape`; Invalid `bad-cursor` otherwise."""
    try:
        key = json.loads(
            base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        )
    except ValueError:  # not base64, not UTF-8 or not JSON
        key = None
    if not isinstance(key, list) or [type(part) for part in key] != list(shape):
        raise Invalid("bad-cursor", "The cursor is not one of this list.")
    if any(
        part.bit_length() > 63 if isinstance(part, int) else UNSENDABLE.search(part) for part in key
    ):
        raise Invalid("bad-cursor", "The cursor is not one of this list.")
    return key
