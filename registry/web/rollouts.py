"""What serves where, and the acts that change it: start a canary, promote, roll back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form
from fastapi.responses import Response

from registry.api.problems import STATUSES
from registry.commands import rollouts as commands
from registry.errors import Invalid, NotFound, RegistryError
from registry.queries import rollouts, versions
from registry.rules.actions import Action
from registry.rules.refs import ENVIRONMENTS, check_environment, parse_line
from registry.rules.rollouts import check_reason
from registry.views.rollouts import ActsView
from registry.web import words
from registry.web.pages import Page, needs, render, sent
from registry.web.visits import Here, Posted, Visit

router = APIRouter(route_class=Page, include_in_schema=False)
DONE = {"canary": "canary", "promote": "promoted", "rollback": "rolled-back"}
"""Form -> what its page says when the act is done (`pages.DONE`)."""


@dataclass(frozen=True, slots=True)
class ChannelAddress:
    """The address of a channel's page, as its path names it."""

    environment: str
    team: str
    name: str
    channel: str

    @property
    def line(self) -> str:
        return f"{self.team}/{self.name}"

    @property
    def path(self) -> str:
        return f"/deployments/{self.environment}/{self.line}/{self.channel}"


def _address(environment: str, team: str, name: str, channel: str) -> ChannelAddress:
    return ChannelAddress(environment, team, name, channel)


At = Annotated[ChannelAddress, Depends(_address)]


@router.get("/deployments")
def deployments(here: Here, environment: str = "") -> Response:
    """Every channel with its present split of the traffic."""
    chosen = environment if environment in ENVIRONMENTS else ""
    channels = rollouts.channels(here.store, here.actor, environment=chosen or None)
    return render(
        here, "deployments.html", channels=channels, environments=ENVIRONMENTS, chosen=chosen
    )


def _bars(here: Visit, team: str, acts: ActsView) -> dict[str, str]:
    """By form, why it is disabled, or '': the missing role, or what the command would answer."""
    actions = {
        "canary": (Action.ROLLOUT_START, acts.canary),
        "promote": (Action.ROLLOUT_PROMOTE, acts.promote),
        "rollback": (Action.CHANNEL_ROLL_BACK, acts.rollback),
    }
    return {
        form: needs(here, action, team)
        or (act.refusal.detail if act.refusal and not act.versions else "")
        for form, (action, act) in actions.items()
    }


def _show(here: Visit, at: ChannelAddress, status: int = 200, **typed: Any) -> Response:
    check_environment(at.environment)
    line = parse_line(at.line).line
    of_line = versions.versions(here.store, here.actor, line)
    try:
        present = rollouts.channel(here.store, here.actor, at.environment, line, at.channel)
        history = rollouts.history(here.store, here.actor, line, at.environment, at.channel)
    except NotFound:
        # Nothing was ever started here: the page then offers to start the first canary.
        if not of_line:
            raise
        present, history = None, []
    acts = (
        present.acts
        if present
        else rollouts.first_acts(here.store, here.actor, at.environment, line, at.channel)
    )
    done = {}
    if present and here.request.query_params.get("done") == DONE["rollback"]:
        serving = words.arm(present.stable, line)
        done["done"] = (
            f"Rolled back. {serving[:1].upper()}{serving[1:]} was ordered to serve the whole "
            f"channel at {words.utc(present.since)}."
        )
    served = [ref for each in history for ref in (each.version, each.candidate)]
    shown: dict[str, Any] = {
        "environment": at.environment,
        "name": at.name,
        "line": line,
        "channel": at.channel,
        "present": present,
        "history": sorted(history, key=lambda each: each.generation, reverse=True),
        "fallen": versions.fallen(here.store, here.actor, served),
        "acts": acts,
        "digests": {version.ref: version.manifest_digest for version in of_line},
        "bars": _bars(here, at.team, acts),
        "failed": "",
        "error": None,
        "reason": "",
        "again": acts.promote.default,
        "ref": here.request.query_params.get("ref", ""),
        "percent": "5",
    }
    return render(here, "deployment.html", status, **(shown | done | typed))


@router.get("/deployments/{environment}/{team}/{name}/{channel}")
def deployment(here: Here, at: At) -> Response:
    """One channel: what it serves, the forms that change it, and everything it ever served."""
    return _show(here, at)


def basis_points(text: str) -> int:
    """Basis points of a typed percentage: '5' -> 500, '2.5' -> 250.

    Raises Invalid (`bad-share`) for a text that is not a number, or is finer than a basis point.
    """
    try:
        points = Decimal(text.strip().rstrip("%").strip()) * 100
        whole = int(points)
    except (InvalidOperation, ValueError, OverflowError):
        raise Invalid(
            "bad-share", f"'{text[:20]}' is not a percentage.", "Write a number like 5 or 2.5."
        ) from None
    # The rule refuses every share above 100%, but quotes the number, which must stay printable.
    if abs(points) > 100_000:
        raise Invalid(
            "bad-share", f"{text[:20]}% is more than all traffic.", "Write a number like 5 or 2.5."
        )
    if whole != points:
        raise Invalid(
            "bad-share",
            f"{text[:20]}% is finer than one hundredth of a percent.",
            "Write a number like 5 or 2.5.",
        )
    return whole


def _act(
    here: Visit,
    at: ChannelAddress,
    form: str,
    reason: str,
    act: Callable[[str], object],
    **typed: Any,
) -> Response:
    """Run one command with its required reason.

    A refusal is shown beside the form it came from, which keeps what was typed.
    """
    try:
        act(check_reason(reason.replace("\r\n", "\n")))
    except RegistryError as error:
        refused = {"failed": form, "error": error, "reason": reason}
        return _show(here, at, STATUSES[error.family], **refused, **typed)
    return sent(at.path, DONE[form])


@router.post("/deployments/{environment}/{team}/{name}/{channel}/canary")
def canary(
    here: Posted,
    at: At,
    ref: Annotated[str, Form()] = "",
    percent: Annotated[str, Form()] = "",
    reason: Annotated[str, Form()] = "",
) -> Response:
    """Start a canary: give a version a first share of the traffic."""

    def start(reason: str) -> None:
        share = basis_points(percent)
        commands.start(
            here.store,
            here.actor,
            commands.Canary(ref, at.environment, at.channel, share, reason),
        )

    return _act(here, at, "canary", reason, start, ref=ref, percent=percent)


@router.post("/deployments/{environment}/{team}/{name}/{channel}/promote")
def promote(
    here: Posted,
    at: At,
    ref: Annotated[str, Form()] = "",
    reason: Annotated[str, Form()] = "",
) -> Response:
    """Give the canary all traffic, or restore a version that served here before."""

    def act(reason: str) -> None:
        name = ref or at.line
        place = commands.Place(name, at.environment, at.channel)
        commands.promote(here.store, here.actor, place, reason)

    return _act(here, at, "promote", reason, act, again=ref)


@router.post("/deployments/{environment}/{team}/{name}/{channel}/rollback")
def roll_back(here: Posted, at: At, reason: Annotated[str, Form()] = "") -> Response:
    """Return the traffic to what served before."""

    def act(reason: str) -> None:
        place = commands.Place(at.line, at.environment, at.channel)
        commands.roll_back(here.store, here.actor, place, reason)

    return _act(here, at, "rollback", reason, act)
