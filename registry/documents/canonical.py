"""One byte string for one JSON value (RFC 8785): what every digest and signature of ours is taken
over.
"""

from __future__ import annotations

import hashlib
from typing import Any

import rfc8785

from registry.errors import Invalid

SAFE_INTEGER = 2**53 - 1
EXPONENT_FROM = 1e21
"""ECMAScript prints doubles below this without an exponent."""


def encode(value: Any, *, large_floats: bool = False) -> bytes:
    """The RFC 8785 bytes of a JSON value: sorted keys, no blanks, numbers as ECMAScript prints
    them.

    Raises Invalid (`not-canonical`) for what no two readers would read alike: NaN, infinity, half a
    surrogate pair, keys that are not text, anything JSON does not have, and integers beyond 2**53 -
    1. The last holds for floats that print as such an integer too, unless `large_floats`:
    PostgreSQL or Python would read an integer back, and could not encode it again. Only what is
    hashed and never stored as JSON may set it.
    """
    try:
        written = rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError) as error:
        raise _refused(str(error)[:160]) from error
    except RecursionError as error:
        raise _refused("it nests too deeply") from error
    waiting = [] if large_floats else [value]
    while waiting:
        match waiting.pop():
            case dict() as table:
                waiting.extend(table.values())
            case list() | tuple() as items:
                waiting.extend(items)
            case float() as number if SAFE_INTEGER < abs(number) < EXPONENT_FROM:
                raise _refused(f"{number} prints as an integer beyond 2**53 - 1")
    return written


def digest(value: Any) -> str:
    """`sha256:` and the hex SHA-256 of the canonical bytes; raises what `encode` raises."""
    return f"sha256:{sha256_hex(encode(value))}"


def sha256_hex(data: bytes) -> str:
    """The bare 64 hex digits of SHA-256, as file digests are written."""
    return hashlib.sha256(data).hexdigest()


def _refused(reason: str) -> Invalid:
    return Invalid(
        "not-canonical",
        f"This has no canonical JSON form: {reason}.",
    )
