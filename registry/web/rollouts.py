"""What serves where, and the three things a person does to it: start a canary, promote, roll
back.
"""

from __future__ import annotations

from collections.abc import Callable
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
from registry.views.rollouts import ActsView
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


def _bars(here: Visit, team: str, acts: ActsView) -> dict[str, str]:
    """By form, why it is disabled: the role, or what the command would answer; '' if it works."""
    asked = {
        "canary": (Action.ROLLOUT_START, acts.canary),
        "promote": (Action.ROLLOUT_PROMOTE, acts.promote),
        "rollback": (Action.CHANNEL_ROLL_BACK, acts.rollback),
    }
    return {
        form: needs(here, action, team)
        or (act.refusal.detail if act.refusal and not act.versions else "")
        for form, (action, act) in asked.items()
    }


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
    except NotFound:
        # Nothing was ever started here: the page then offers to start the first canary.
        if not known:
            raise
        present, history = None, []
    acts = (
        present.acts
        if present
        else rollouts.first_acts(here.store, here.actor, environment, line, channel)
    )
    shown: dict[str, Any] = {
        "environment": environment,
        "team": team,
        "name": name,
        "line": line,
        "channel": channel,
        "present": present,
        "history": sorted(history, key=lambda each: each.generation, reverse=True),
        "fallen": versions.fallen(
            here.store,
            here.actor,
            [ref for each in history for ref in (each.version, each.candidate)],
        ),
        "acts": acts,
        "digests": {version.ref: version.manifest_digest for version in known},
        "bars": _bars(here, team, acts),
        "failed": "",
        "error": None,
        "reason": "",
        "again": acts.promote.default,
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
            here.store,
            here.actor,
            commands.Canary(ref, environment, channel, basis_points(percent), why),
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
    ref: Annotated[str, Form()] = "",
    reason: Annotated[str, Form()] = "",
) -> Response:
    """Let the canary take all of it, or put back a version that served here before."""
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
            here.store,
            here.actor,
            commands.Place(ref or f"{team}/{name}", environment, channel),
            why,
        ),
        again=ref,
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
            here.store, here.actor, commands.Place(f"{team}/{name}", environment, channel), why
        ),
    )
