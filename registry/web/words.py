"""How the console writes states, numbers and times, the same on every page."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from registry.errors import Invalid

MINUS = "\u2212"
DIGITS = re.compile(r"[0-9a-f]{40,}")


@dataclass(frozen=True, slots=True)
class Look:
    """How a state is shown: a colour class, a glyph and a word, so that nobody needs the colour."""

    tone: str
    glyph: str
    word: str


ENGINES = {"vllm": "vLLM", "sglang": "SGLang", "tgi": "TGI", "transformers": "transformers"}

LOOKS: dict[str, Look] = {
    "draft": Look("draft", "dotted", "Draft"),
    "registered": Look("candidate", "ring", "Registered"),
    "deprecated": Look("draft", "dash", "Deprecated"),
    "recalled": Look("recalled", "barred", "Recalled"),
    "deleted": Look("draft", "dash", "Deleted"),
    "open": Look("review", "half", "In review"),
    "approved": Look("approved", "check", "Approved"),
    "rejected": Look("rejected", "cross", "Rejected"),
    "changes_requested": Look("review", "back", "Changes requested"),
    "withdrawn": Look("draft", "dash", "Withdrawn"),
    "expired": Look("draft", "clock", "Expired"),
    "voided": Look("rejected", "barred", "Voided"),
    "pending": Look("draft", "dotted", "Pending"),
    "shadowing": Look("canary", "ring", "Shadowing"),
    "canary": Look("canary", "diamond", "Canary"),
    "paused": Look("review", "pause", "Paused"),
    "promoting": Look("canary", "diamond", "Promoting"),
    "inconclusive": Look("review", "half", "Inconclusive"),
    "succeeded": Look("approved", "check", "Succeeded"),
    "aborted": Look("rejected", "cross", "Aborted"),
    "rolled_back": Look("rejected", "back", "Rolled back"),
    "superseded": Look("draft", "dash", "Superseded"),
    "production": Look("production", "square", "Ordered to serve"),
    "idle": Look("draft", "dotted", "Nothing served"),
    "queued": Look("draft", "dotted", "Queued"),
    "running": Look("candidate", "half", "Running"),
    "failed": Look("rejected", "cross", "Failed"),
    "cancelled": Look("draft", "dash", "Cancelled"),
    "pass": Look("approved", "check", "Passed"),
    "fail": Look("rejected", "cross", "Failed"),
    "done": Look("approved", "check", "Done"),
    "refused": Look("rejected", "cross", "Refused"),
    "approve": Look("approved", "check", "Approved"),
    "reject": Look("rejected", "cross", "Rejected"),
    "request_changes": Look("review", "back", "Changes requested"),
    "yes": Look("approved", "check", "Can serve it"),
    "no": Look("rejected", "cross", "Cannot serve it"),
    "conditional": Look("review", "half", "On conditions"),
    "claimed": Look("draft", "dotted", "Claimed"),
    "observed": Look("candidate", "ring", "Observed"),
    "verified": Look("approved", "check", "Verified"),
}


def look(state: str) -> Look:
    """The look of a state. An unknown state shows its own word, in a neutral colour."""
    return LOOKS.get(state) or Look("draft", "dotted", state.replace("_", " ").capitalize())


def number(value: Any, digits: int = 0) -> str:
    """A number with grouped digits and a true minus: 18204 -> 18,204; -0.5 (1 digit) -> −0.5."""
    return f"{value:,.{digits}f}".replace("-", MINUS)


def measured(value: float) -> str:
    """A measured value with four figures: 214.23 -> 214.2; integers stay as they are."""
    return number(value) if isinstance(value, int) else f"{value:,.4g}".replace("-", MINUS)


def percent(fraction: float, digits: int = 1) -> str:
    """A rate, given as a fraction from 0 to 1: 0.547 -> 54.7%."""
    return number(fraction * 100, digits) + "%"


def points(difference: float, digits: int = 1) -> str:
    """A difference of two rates in percentage points, always signed: 0.547 -> +54.7 pt."""
    sign = "+" if difference > 0 else ""
    return f"{sign}{number(difference * 100, digits)} pt"


def share(basis_points: int) -> str:
    """A traffic share from basis points: 500 -> 5%, 250 -> 2.5%."""
    return f"{basis_points / 100:g}%"


def size(count: int) -> str:
    """A number of bytes in decimal units, as disks count them: 1234567 -> 1.2 MB."""
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def utc(moment: datetime) -> str:
    """The exact moment, for titles and evidence: 2026-11-22 19:31:04 UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def span(seconds: float) -> str:
    """A duration in one unit: 45 s, 12 min, 3 h, 9 d."""
    for unit, length, limit in (("s", 1, 90), ("min", 60, 5400), ("h", 3600, 172_800)):
        if seconds < limit:
            return f"{max(0, round(seconds / length))} {unit}"
    return f"{round(seconds / 86_400)} d"


def ago(moment: datetime, now: datetime | None = None) -> str:
    """How long ago, or how far ahead: 3 h ago, in 12 d."""
    seconds = ((now or datetime.now(UTC)) - moment).total_seconds()
    if -5 < seconds < 5:
        return "just now"
    return f"{span(seconds)} ago" if seconds > 0 else f"in {span(-seconds)}"


def short(text: str) -> str:
    """The text with every long digest shortened; the page keeps the whole digest in a title."""
    return DIGITS.sub(lambda match: f"{match[0][:6]}…{match[0][-4:]}", text)


def address(ref: str) -> str:
    """A version in the path of its page: team/name@v3 -> team/name/v/3; a draft has its own."""
    return ref.replace("@v", "/v/").replace("@draft-", "?draft=")


def tag(ref: str) -> str:
    """The version in a reference: team/name@v3 -> v3; the name of a line stays whole."""
    return ref.partition("@")[2] or ref


def arm(ref: str | None, line: str) -> str:
    """What one arm of a channel serves: v3 for a version of its line, or the base's name."""
    if ref is None:
        return "nothing"
    return tag(ref) if ref.partition("@")[0] == line else f"base {ref.rpartition('/')[2]}"


def place(where: str) -> str:
    """A channel's name: production/production -> production; others keep their environment."""
    environment, _, channel = where.partition("/")
    return environment if channel in ("", environment) else where


def short_line(ref: str) -> str:
    """A line's name without its team: team/name@v3 -> name."""
    return ref.partition("@")[0].rpartition("/")[2]


def link(address: str | None) -> str:
    """A reported address if a page may link to it; '' for `javascript:` and the like."""
    return address if address and address.startswith(("http://", "https://")) else ""


def moment(text: str) -> datetime:
    """Parse a moment typed into a form, which is in UTC unless it names an offset.

    Raises Invalid (`bad-moment`).
    """
    try:
        parsed = datetime.fromisoformat(text.strip())
    except ValueError:
        raise Invalid("bad-moment", f"'{text[:60]}' is not a date and time.") from None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
