"""How long a version is kept, what holds or needs it, and when it may go."""

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
LONGEST_DAYS = 36500
LONGEST_DRAFT_DAYS = 3650


@dataclass(frozen=True, slots=True)
class Terms:
    """What a retention class says: days to keep, counted from registration or from the last time of
    service.

    `after`: once that time is over a person may delete it, or it is listed as due. `draft_days`:
    how long a draft may lie before the clock discards it.
    """

    name: str
    keep_days: int
    counted_from: CountedFrom = "service"
    after: After = "may-go"
    draft_days: int = 30


STANDARD = "standard"

# There from the first start. Six months: logs, EU AI Act 19 and 26(6). Six years: 45 CFR
# 164.316(b)(2). Ten years: technical documentation, EU AI Act 18.
BUILT_IN = (
    Terms("short", 0, "registration", "due", 7),
    Terms(STANDARD, 184),
    Terms("medical-6y", 2192, draft_days=90),
    Terms("technical-10y", 3653, draft_days=90),
)


def check_terms(terms: Terms) -> Terms:
    """Terms as they may stand; Invalid `bad-retention` names what is wrong with them."""
    if not NAME.fullmatch(terms.name):
        raise _bad(
            f"'{terms.name[:60]}' cannot name a retention class",
            "Use lower-case letters, digits and dashes, as in medical-6y.",
        )
    if not 0 <= terms.keep_days <= LONGEST_DAYS:
        raise _bad(f"{terms.keep_days} days cannot be kept", f"Say 0 to {LONGEST_DAYS} days.")
    if not 1 <= terms.draft_days <= LONGEST_DRAFT_DAYS:
        raise _bad(
            f"a draft cannot lie {terms.draft_days} days", f"Say 1 to {LONGEST_DRAFT_DAYS} days."
        )
    if terms.counted_from not in ("registration", "service"):
        raise _bad(
            f"nothing is counted from '{str(terms.counted_from)[:40]}'",
            "Use registration or service.",
        )
    if terms.after not in ("may-go", "due"):
        raise _bad(f"'{str(terms.after)[:40]}' is no end of keeping", "Use may-go or due.")
    return terms


def _bad(what: str, fix: str) -> Invalid:
    return Invalid("bad-retention", f"This retention class cannot be: {what}.", fix)


def shortens(present: Terms, wanted: Terms) -> bool:
    """Would this class keep anything for less time than the present one?"""
    return wanted.keep_days < present.keep_days or (
        wanted.counted_from == "registration" and present.counted_from == "service"
    )


def check_change(present: Terms, wanted: Terms, *, administrator: bool, subject: str) -> None:
    """Anybody who may set a class may lengthen; only an administrator may shorten, and only for
    what comes later.
    """
    if shortens(present, wanted) and not administrator:
        raise Refused(
            "shorter-retention",
            f"{wanted.name} keeps for less time than {present.name}, under which {subject} is.",
            subject=subject,
        )


def kept_until(since: datetime, served: datetime | None, terms: Sequence[Terms]) -> datetime:
    """Until when a version is kept: the latest that any class says it was ever under. `served` is
    its last service.
    """
    ends = [
        (max(since, served) if one.counted_from == "service" and served else since)
        + timedelta(days=one.keep_days)
        for one in terms
    ]
    return max(ends, default=since)


@dataclass(frozen=True, slots=True)
class Need:
    """One reason why a thing is still needed: serves, rollout, rollback, review, work or beneath;
    and what needs it.
    """

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


WORDS = {
    "serves": "it serves {}",
    "rollout": "a rollout of {} names it",
    "rollback": "{} may be rolled back to it",
    "review": "review {} is open on it",
    "work": "{} is under way on it",
    "beneath": "{} stands on it",
}
MENDS = {
    "serves": "Promote another version or roll back first.",
    "rollout": "Promote or roll back that canary first.",
    "rollback": "Wait until its approval expires, or recall it.",
    "review": "Withdraw or decide that review first.",
    "work": "Let it end, or cancel it, first.",
    "beneath": "Delete what stands on it first.",
}


def check_delete(standing: Standing, now: datetime) -> None:
    """May this be deleted now? Refused `already-deleted`, `is-draft`, `held`, `kept` or `needed`,
    with every reason of it.
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
        said = "; ".join(WORDS[need.why].format(need.what) for need in standing.needs[:10])
        more = f"; and {len(standing.needs) - 10} more" if len(standing.needs) > 10 else ""
        raise Refused(
            "needed",
            f"{standing.ref} cannot be deleted: {said}{more}.",
            MENDS[standing.needs[0].why],
            subject=standing.ref,
            needs=[[need.why, need.what] for need in standing.needs],
        )


def check_free(standing: Standing) -> None:
    """No legal hold may stand over it or over anything derived from it: else Refused `held`, with
    their numbers.
    """
    if standing.holds:
        numbers = ", ".join(str(one) for one in standing.holds)
        raise Refused(
            "held",
            f"Legal hold {numbers} stands over {standing.ref} or over what derives from it: "
            "nothing of it is deleted.",
            subject=standing.ref,
            holds=list(standing.holds),
        )


def check_discard(
    standing: Standing, *, maker: UUID | None, maker_is_service: bool, actor: UUID | None
) -> None:
    """A draft is discarded by its maker; a trainer's draft by any engineer of its team, since a
    trainer has no hands.
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
            f"{standing.ref} is {standing.state}, no draft.",
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
    """A hold is lifted once, and by another person than who placed it."""
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
    """The case's name, trimmed: 1 to 200 characters; Invalid `case-missing` otherwise."""
    case = name.strip()
    if not 1 <= len(case) <= 200 or not case.isprintable():
        raise Invalid(
            "case-missing",
            "A legal hold names its case in 1 to 200 printable characters.",
        )
    return case
