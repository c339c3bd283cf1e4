"""What serves where, and the three things a person does to it: start a canary, promote, roll
back.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

from fastapi import APIRouter, Form
from fastapi.responses import Response

from registry.api.problems import STATUSES
from registry.commands import rollouts as commands
from registry.errors import Invalid, NotFound, RegistryError
from registry.queries import rollouts, versions
from registry.rules.actions import Action
from registry.rules.refs import ENVIRONMENTS, check_environment, parse_line
from registry.rules.rollouts import check_reason
from registry.rules.versions import may_start
from registry.views.rollouts import ChannelView, GenerationView
from registry.views.versions import VersionView
from registry.web.pages import Page, needs, render, sent
from registry.web.visits import Here, Posted, Visit

router = APIRouter(route_class=Page, include_in_schema=False)


@router.get("/deployments")
def deployments(here: Here, environment: str = "") -> Response:
    """Every channel with its present split."""
    chosen = environment if environment in ENVIRONMENTS else ""
    found = rollouts.channels(here.store, here.actor, environment=chosen or None)
    return render(
        here, "deployments.html", channels=found, environments=ENVIRONMENTS, chosen=chosen
    )


def releasable(
    found: list[VersionView], environment: str, present: ChannelView | None
) -> list[VersionView]:
    """The versions a canary may take here, newest first: registered, approved for the environment,
    not served yet.
    """
    now = datetime.now(UTC)
    served = (present.stable, present.candidate) if present else ()
    return [
        version
        for version in sorted(found, key=lambda each: each.number or 0, reverse=True)
        if may_start(version.state)
        and version.ref not in served
        and any(
            approval.environment == environment
            and approval.state == "approved"
            and (approval.expires_at is None or approval.expires_at > now)
            for approval in version.approvals
        )
    ]


NOWHERE = (
    "Nothing may serve in its place: no earlier version, and the policy does not let the "
    "base serve."
)


def own(ref: str | None, line: str) -> bool:
    """Is this a version of the channel's own line? The base, which serves at first, is not."""
    return ref is not None and ref.partition("@")[0] == line


def promotable_again(history: list[GenerationView], stable: str | None) -> str:
    """The version that a rollback took off and a promotion without a canary would put back, or
    ''.
    """
    stood = (each.version for each in history if each.kind == "promote" and each.version != stable)
    return next((version for version in stood if version), "")


def _first(*reasons: str) -> str:
    return next((reason for reason in reasons if reason), "")


def _show(
    here: Visit,
    environment: str,
    team: str,
    name: str,
    channel: str,
    status: int = 200,
    **typed: Any,
) -> Response:
    check_environment(environment)
    line = parse_line(f"{team}/{name}").line
    known = versions.versions(here.store, here.actor, line)
    try:
        present = rollouts.channel(here.store, here.actor, environment, line, channel)
        history = rollouts.history(here.store, here.actor, line, environment, channel)
    except (
        NotFound
    ):  # nothing was ever started here: the page then offers to start the first canary
        if not known:
            raise
        present, history = None, []
    choices = releasable(known, environment, present)
    candidate = present.candidate if present else None
    newest_first = sorted(history, key=lambda each: each.generation, reverse=True)
    again = "" if candidate or not present else promotable_again(newest_first, present.stable)
    none_ready = "" if choices else f"No other version is approved for {environment}."
    shown: dict[str, Any] = {
        "environment": environment,
        "team": team,
        "name": name,
        "line": line,
        "channel": channel,
        "present": present,
        "history": newest_first,
        "fallen": versions.fallen(
            here.store,
            here.actor,
            [ref for each in history for ref in (each.version, each.candidate)],
        ),
        "choices": choices,
        "again": again,
        "bars": {
            "canary": _first(
                needs(here, Action.ROLLOUT_START, team),
                "A canary is running: promote it or roll it back first." if candidate else "",
                none_ready,
            ),
            "promote": _first(
                needs(here, Action.ROLLOUT_PROMOTE, team),
                "" if candidate or again else "No canary is running here.",
            ),
            "rollback": _first(
                needs(here, Action.CHANNEL_ROLL_BACK, team),
                "" if present and (present.stable or candidate) else "Nothing is served here.",
                "The base serves already."
                if not candidate and present and not own(present.stable, line)
                else "",
                "" if present and present.rollback_target else NOWHERE,
            ),
        },
        "failed": "",
        "error": None,
        "reason": "",
        "ref": here.request.query_params.get("ref", ""),
        "percent": "5",
    }
    return render(here, "deployment.html", status, **(shown | typed))


@router.get("/deployments/{environment}/{team}/{name}/{channel}")
def deployment(here: Here, environment: str, team: str, name: str, channel: str) -> Response:
    """One channel: what it serves, the forms that change it, and all it ever served."""
    return _show(here, environment, team, name, channel)


def basis_points(text: str) -> int:
    """A percentage as typed to basis points: '5' -> 500, '2.5' -> 250; Invalid for anything finer
    or no number.
    """
    try:
        points = Decimal(text.strip().rstrip("%").strip()) * 100
        whole = int(points)
    except (InvalidOperation, ValueError, OverflowError):
        raise Invalid(
            "bad-share", f"'{text[:20]}' is no percentage.", "Write a number like 5 or 2.5."
        ) from None
    if (
        abs(points) > 100_000
    ):  # a number nobody means; the rule's own sentence needs one it can print
        raise Invalid(
            "bad-share", f"{text[:20]}% is more than all traffic.", "Write a number like 5 or 2.5."
        )
    if whole != points:
        raise Invalid(
            "bad-share",
            f"{text[:20]}% is finer than one hundredth of a percent.",
            "Write it like 2.5.",
        )
    return whole


def _act(
    here: Visit,
    environment: str,
    team: str,
    name: str,
    channel: str,
    form: str,
    done: str,
    reason: str,
    act: Callable[[str], object],
    **typed: Any,
) -> Response:
    """Run one command with its required reason; a refusal is shown beside the form it came from,
    the words kept.
    """
    try:
        act(check_reason(reason.replace("\r\n", "\n")))
    except RegistryError as error:
        kept = {"failed": form, "error": error, "reason": reason} | typed
        return _show(here, environment, team, name, channel, STATUSES[error.family], **kept)
    return sent(f"/deployments/{environment}/{team}/{name}/{channel}", done)


@router.post("/deployments/{environment}/{team}/{name}/{channel}/canary")
def canary(
    here: Posted,
    environment: str,
    team: str,
    name: str,
    channel: str,
    ref: Annotated[str, Form()] = "",
    percent: Annotated[str, Form()] = "",
    reason: Annotated[str, Form()] = "",
) -> Response:
    """Let a version take a first share of the traffic."""
    return _act(
        here,
        environment,
        team,
        name,
        channel,
        "canary",
        "canary",
        reason,
        lambda why: commands.start(
            here.store, here.actor, ref, environment, channel, basis_points(percent), why
        ),
        ref=ref,
        percent=percent,
    )


@router.post("/deployments/{environment}/{team}/{name}/{channel}/promote")
def promote(
    here: Posted,
    environment: str,
    team: str,
    name: str,
    channel: str,
    reason: Annotated[str, Form()] = "",
) -> Response:
    """Let the canary take all of it."""
    return _act(
        here,
        environment,
        team,
        name,
        channel,
        "promote",
        "promoted",
        reason,
        lambda why: commands.promote(
            here.store, here.actor, f"{team}/{name}", environment, channel, why
        ),
    )


@router.post("/deployments/{environment}/{team}/{name}/{channel}/rollback")
def roll_back(
    here: Posted,
    environment: str,
    team: str,
    name: str,
    channel: str,
    reason: Annotated[str, Form()] = "",
) -> Response:
    """Give the traffic back to what served before."""
    return _act(
        here,
        environment,
        team,
        name,
        channel,
        "rollback",
        "rolled-back",
        reason,
        lambda why: commands.roll_back(
            here.store, here.actor, f"{team}/{name}", environment, channel, why
        ),
    )
