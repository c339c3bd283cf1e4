"""How long a version is kept, what holds or needs it, and when it may be deleted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from registry.errors import Invalid, Refused
from registry.rules.refs import NAME

CountedFrom = Literal["registration", "service"]
After = Literal["may-go", "due"]
MAX_KEEP_DAYS = 36500
MAX_DRAFT_DAYS = 3650


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms of a retention class: days to keep, counted from registration or last service.

    `after` says what follows that time: a person may delete the version, or it is listed as due.
    `draft_days` is how long a draft may wait before the clock discards it.
    """

    name: str
    keep_days: int
    counted_from: CountedFrom = "service"
    after: After = "may-go"
    draft_days: int = 30


STANDARD = "standard"
"""The class of a version that has no other."""

BUILT_IN = (
    Terms("short", 0, "registration", "due", 7),
    Terms(STANDARD, 184),
    Terms("medical-6y", 2192, draft_days=90),
    Terms("technical-10y", 3653, draft_days=90),
)
"""The classes that exist from the first start.

Six months: logs, EU AI Act 19 and 26(6). Six years: 45 CFR 164.316(b)(2). Ten years: technical
documentation, EU AI Act 18.
"""


def check_terms(terms: Terms) -> Terms:
    """Check terms before a class is defined; Invalid `bad-retention` says what is wrong."""
    if not NAME.fullmatch(terms.name):
        raise _bad(
            f"'{terms.name[:60]}' cannot name a retention class",
            "Use lower-case letters, digits and dashes, as in medical-6y.",
        )
    if not 0 <= terms.keep_days <= MAX_KEEP_DAYS:
        raise _bad(f"it cannot keep for {terms.keep_days} days", f"Use 0 to {MAX_KEEP_DAYS} days.")
    if not 1 <= terms.draft_days <= MAX_DRAFT_DAYS:
        raise _bad(
            f"a draft cannot wait {terms.draft_days} days", f"Use 1 to {MAX_DRAFT_DAYS} days."
        )
    if terms.counted_from not in ("registration", "service"):
        raise _bad(
            f"it cannot count from '{str(terms.counted_from)[:40]}'",
            "Use registration or service.",
        )
    if terms.after not in ("may-go", "due"):
        raise _bad(f"'{str(terms.after)[:40]}' is not what can follow", "Use may-go or due.")
    return terms


def _bad(what: str, fix: str) -> Invalid:
    return Invalid("bad-retention", f"This retention class cannot be defined: {what}.", fix)


def shortens(present: Terms, proposed: Terms) -> bool:
    """Whether this class would keep anything for less time than the present one."""
    return proposed.keep_days < present.keep_days or (
        proposed.counted_from == "registration" and present.counted_from == "service"
    )


def check_change(present: Terms, proposed: Terms, *, administrator: bool, subject: str) -> None:
    """Check a change of class; raises Refused `shorter-retention`.

    Everybody who may assign a class may lengthen the time. Only an administrator may shorten it,
    and only for later versions.
    """
    if shortens(present, proposed) and not administrator:
        raise Refused(
            "shorter-retention",
            f"{proposed.name} keeps for less time than {present.name}, the class of {subject}.",
            subject=subject,
        )


def kept_until(since: datetime, served: datetime | None, terms: Sequence[Terms]) -> datetime:
    """Until when a version is kept: the latest date by any class that it ever had.

    `since` is its registration, `served` the last moment it served, None if it never did.
    """
    ends = [
        (max(since, served) if each.counted_from == "service" and served else since)
        + timedelta(days=each.keep_days)
        for each in terms
    ]
    return max(ends, default=since)


@dataclass(frozen=True, slots=True)
class Need:
    """Why a thing is still needed, as a key of `NEED_TEXTS`, and what needs it."""

    why: str
    what: str


@dataclass(frozen=True, slots=True)
class Standing:
    """What decides the deletion of one version or data set version."""

    ref: str
    state: str
    deleted: bool = False
    holds: tuple[int, ...] = ()
    kept_until: datetime | None = None
    needs: tuple[Need, ...] = ()


NEED_TEXTS = {
    "serves": "it serves {}",
    "rollout": "a rollout of {} names it",
    "rollback": "{} may be rolled back to it",
    "review": "review {} is open on it",
    "work": "{} is under way on it",
    "beneath": "{} is derived from it",
}
NEED_FIXES = {
    "serves": "Promote another version or roll back first.",
    "rollout": "Promote or roll back that canary first.",
    "rollback": "Wait until its approval expires, or recall it.",
    "review": "Withdraw or decide that review first.",
    "work": "Wait until it ends, or cancel it, first.",
    "beneath": "Delete what is derived from it first.",
}


def check_delete(standing: Standing, now: datetime) -> None:
    """Check that this may be deleted now.

    Raises Refused `already-deleted`, `is-draft`, `held`, `kept` or `needed`, with every reason.
    """
    if standing.deleted:
        raise Refused(
            "already-deleted",
            f"{standing.ref} was deleted already.",
            subject=standing.ref,
        )
    if standing.state == "draft":
        raise Refused(
            "is-draft",
            f"{standing.ref} is a draft.",
            subject=standing.ref,
        )
    check_free(standing)
    if standing.kept_until is not None and now < standing.kept_until:
        raise Refused(
            "kept",
            f"{standing.ref} is kept until {standing.kept_until:%Y-%m-%d %H:%M} UTC by its "
            "retention class.",
            subject=standing.ref,
            kept_until=standing.kept_until.isoformat(),
        )
    if standing.needs:
        needs = "; ".join(NEED_TEXTS[need.why].format(need.what) for need in standing.needs[:10])
        others = f"; and {len(standing.needs) - 10} more" if len(standing.needs) > 10 else ""
        raise Refused(
            "needed",
            f"{standing.ref} cannot be deleted: {needs}{others}.",
            NEED_FIXES[standing.needs[0].why],
            subject=standing.ref,
            needs=[[need.why, need.what] for need in standing.needs],
        )


def check_free(standing: Standing) -> None:
    """Check that no legal hold covers it or anything derived from it.

    Raises Refused `held` with the numbers of the holds.
    """
    if standing.holds:
        numbers = ", ".join(map(str, standing.holds))
        raise Refused(
            "held",
            f"Legal hold {numbers} covers {standing.ref} or something derived from it: it cannot "
            "be deleted.",
            subject=standing.ref,
            holds=list(standing.holds),
        )


def check_discard(
    standing: Standing, *, maker: UUID | None, maker_is_service: bool, actor: UUID | None
) -> None:
    """Check that the actor may discard this draft.

    Its maker discards it. Any engineer of the team discards a trainer's draft, because a trainer
    cannot do it itself.

    Raises Refused `already-deleted`, `not-draft`, `not-yours` or `held`.
    """
    if standing.deleted:
        raise Refused(
            "already-deleted",
            f"{standing.ref} was discarded already.",
            subject=standing.ref,
        )
    if standing.state != "draft":
        raise Refused(
            "not-draft",
            f"{standing.ref} is {standing.state}, not a draft.",
            subject=standing.ref,
        )
    if actor != maker and not maker_is_service:
        raise Refused(
            "not-yours",
            f"{standing.ref} is the draft of another person.",
            subject=standing.ref,
        )
    check_free(standing)


def check_lift(hold: int, placed_by: UUID, actor: UUID | None, *, lifted: bool) -> None:
    """Check that a hold is lifted only once, and by another person than the one who placed it."""
    if lifted:
        raise Refused(
            "already-lifted",
            f"Hold {hold} was lifted already.",
            subject=f"hold:{hold}",
        )
    if actor == placed_by:
        raise Refused(
            "four-eyes",
            f"You placed hold {hold}, so another reviewer must lift it.",
            subject=f"hold:{hold}",
        )


def check_case(name: str) -> str:
    """The trimmed name of a hold's case, 1 to 200 characters; otherwise Invalid `case-missing`."""
    case = name.strip()
    if not 1 <= len(case) <= 200 or not case.isprintable():
        raise Invalid(
            "case-missing",
            "A legal hold names its case in 1 to 200 printable characters.",
        )
    return case
