"""How a version compares with what serves in its place, as an answer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StandingView:
    """What a channel is ordered to serve, and a version's paired difference to it on one suite.

    `kind` is version, base, itself or nothing. Rates and differences are fractions. They are null
    where `why` says what was not measured.
    """

    channel: str
    serves: str | None
    kind: str
    suite: str | None = None
    serving: float | None = None
    subject: float | None = None
    n: int | None = None
    only_subject: int | None = None
    only_serving: int | None = None
    gain: float | None = None
    low: float | None = None
    high: float | None = None
    why: str = ""
