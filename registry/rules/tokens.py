"""What a bearer token looks like: `cs_<id>_<secret>`, so that secret scanners know it on sight."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import timedelta

from registry.errors import Invalid, Unauthenticated

TOKEN = re.compile(r"cs_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
LONGEST = timedelta(days=365)


@dataclass(frozen=True, slots=True)
class Secret:
    """A token taken apart: its public id and the hash that is kept of its secret."""

    id: str
    hash: str


def fingerprint(secret: str) -> str:
    """SHA-256 of the secret part; 32 random bytes need no slow hash."""
    return "sha256:" + hashlib.sha256(secret.encode()).hexdigest()


def parse(token: str) -> Secret:
    """Take a token apart; Unauthenticated when it is none of ours."""
    found = TOKEN.fullmatch(token.strip())
    if found is None:
        raise Unauthenticated(
            "token-malformed",
            "That is not a Countersign token.",
        )
    return Secret(found[1], fingerprint(found[2]))


def lifetime(days: int) -> timedelta:
    """A token's life: at least a day, at most a year."""
    if not 1 <= days <= LONGEST.days:
        raise Invalid(
            "bad-lifetime",
            f"A token cannot live {days} days.",
            f"Ask for 1 to {LONGEST.days} days.",
        )
    return timedelta(days=days)
