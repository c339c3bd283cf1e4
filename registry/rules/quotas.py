"""How many unique bytes and versions a team may use."""

from __future__ import annotations

from dataclasses import dataclass

from registry.errors import Invalid, Refused
from registry.rules.refs import NAME

MAX_LIMIT = 2**62
"""The largest limit of bytes or versions; PostgreSQL's bigint ends below 2**63."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The most a team may use; None is unlimited."""

    max_bytes: int | None = None
    max_versions: int | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """What a team uses: its versions and data sets that are not deleted, and their unique bytes."""

    bytes: int
    versions: int


def check_limits(team: str, limits: Limits) -> None:
    """Check limits before they are set; raises Invalid `bad-team` or `bad-quota`."""
    if not NAME.fullmatch(team):
        raise Invalid(
            "bad-team",
            f"'{team[:60]}' cannot name a team.",
        )
    if any(
        limit is not None and not 0 <= limit <= MAX_LIMIT
        for limit in (limits.max_bytes, limits.max_versions)
    ):
        raise Invalid(
            "bad-quota",
            "A limit of a quota is a whole number from 0.",
        )


def check_fits(team: str, limits: Limits, used: Usage) -> None:
    """Check that what a team would use fits; raises Refused `quota-exceeded` with use and limit."""
    over = []
    if limits.max_bytes is not None and used.bytes > limits.max_bytes:
        over.append(f"{used.bytes} bytes of at most {limits.max_bytes}")
    if limits.max_versions is not None and used.versions > limits.max_versions:
        over.append(f"{used.versions} versions of at most {limits.max_versions}")
    if over:
        raise Refused(
            "quota-exceeded",
            f"With this, team {team} would use {' and '.join(over)}.",
            subject=f"team:{team}",
            used_bytes=used.bytes,
            used_versions=used.versions,
            max_bytes=limits.max_bytes,
            max_versions=limits.max_versions,
        )
