"""How a version compares with what serves in its place, as an answer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StandingView:
    """What a channel is ordered to serve, and a version's paired difference to it on one suite.

    `kind` is version, base, itself or nothing; `serves_kind` is the kind of the line that serves,
    which for a base may be checkpoint. Rates and differences are fractions. They are null
    where `why` says what was not measured.
    """

    channel: str
    serves: str | None
    kind: str
    serves_kind: str | None = None
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
