"""The canonical bytes of a JSON value (RFC 8785), over which digests and signatures are made."""

from __future__ import annotations

import hashlib
from typing import Any

import rfc8785

from registry.errors import Invalid

SAFE_INTEGER = 2**53 - 1
EXPONENT_FROM = 1e21
"""ECMAScript prints doubles below this number without an exponent."""


def encode(value: Any, *, large_floats: bool = False) -> bytes:
    """The RFC 8785 bytes of a JSON value: sorted keys, no blanks, ECMAScript's numbers.

    Raises Invalid (`not-canonical`) for values that two readers could read differently: NaN,
    infinity, half of a surrogate pair, keys that are not texts, anything JSON does not have, and
    integers beyond 2**53 - 1.

    A float that prints as such an integer is refused too, unless `large_floats` is set: PostgreSQL
    or Python would read it back as an integer, and could not encode it again. Only values that are
    hashed and never stored as JSON may set it.
    """
    try:
        written = rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError) as error:
        raise _refused(str(error)[:160]) from error
    except RecursionError as error:
        raise _refused("it nests too deeply") from error
    pending = [] if large_floats else [value]
    while pending:
        match pending.pop():
            case dict() as table:
                pending.extend(table.values())
            case list() | tuple() as items:
                pending.extend(items)
            case float() as number if SAFE_INTEGER < abs(number) < EXPONENT_FROM:
                raise _refused(f"{number} prints as an integer beyond 2**53 - 1")
    return written


def digest(value: Any) -> str:
    """`sha256:` and the hex SHA-256 of the canonical bytes; raises what `encode` raises."""
    return f"sha256:{sha256_hex(encode(value))}"


def sha256_hex(data: bytes) -> str:
    """The 64 hex digits of SHA-256 without a prefix, as file digests are written."""
    return hashlib.sha256(data).hexdigest()


def _refused(reason: str) -> Invalid:
    return Invalid("not-canonical", f"This value has no canonical JSON form: {reason}.")
