"""Bearer tokens: `cs_<id>_<secret>`, a form that secret scanners recognise."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import timedelta

from registry.errors import Invalid, Unauthenticated

TOKEN = re.compile(r"cs_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
MAX_LIFETIME = timedelta(days=365)


@dataclass(frozen=True, slots=True)
class Secret:
    """The parts of a token: its public id and the hash of its secret, which is what is stored."""

    id: str
    hash: str


def fingerprint(secret: str) -> str:
    """The SHA-256 of the secret; 32 random bytes need no slow hash."""
    return "sha256:" + hashlib.sha256(secret.encode()).hexdigest()


def parse(token: str) -> Secret:
    """Split a token into its parts; raises Unauthenticated `token-malformed`."""
    match = TOKEN.fullmatch(token.strip())
    if match is None:
        raise Unauthenticated(
            "token-malformed",
            "That is not a Countersign token.",
        )
    return Secret(match[1], fingerprint(match[2]))


def lifetime(days: int) -> timedelta:
    """The lifetime of a token of 1 to 365 days; otherwise raises Invalid `bad-lifetime`."""
    if not 1 <= days <= MAX_LIFETIME.days:
        raise Invalid(
            "bad-lifetime",
            f"A token cannot be valid for {days} days.",
            f"Ask for 1 to {MAX_LIFETIME.days} days.",
        )
    return timedelta(days=days)
