"""Rollouts: canary start and status, promote, rollback, recall, status, history."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING

import click

from registry.cli.output import emit, fields, json_option, percent, state, table
from registry.cli.parameters import IN_ENVIRONMENT, ON_CHANNEL, ONLY_ENVIRONMENT, REASON
from registry.cli.session import connect

if TYPE_CHECKING:
    from registry.views.rollouts import ChannelView, RouteView

OPTIONAL_REASON = click.option("--reason", default="", help="Why, in one sentence.")


class Share(click.ParamType[int]):
    """A percentage above 0 and at most 100, in steps of a basis point -> basis points."""

    name = "percent"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            basis_points = Decimal(value.removesuffix("%").strip()) * 100
        except InvalidOperation:
            basis_points = Decimal(0)
        if (
            basis_points.is_finite()
            and 0 < basis_points <= 10000
            and basis_points == int(basis_points)
        ):
            return int(basis_points)
        return self.fail(
            f"'{value}' is not a share: write a percentage above 0 and at most 100, with at most "
            "two decimals.",
            param,
            ctx,
        )


@click.group()
def canary() -> None:
    """Start and show canaries.

    A canary gives an approved version a share of the traffic of a channel.

    \b
    Example:
      countersign canary start acme/claims@v1 --env production --share 5
    """


@canary.command("start")
@click.argument("ref", metavar="REF")
@IN_ENVIRONMENT
@click.option(
    "--share",
    "share_bp",
    required=True,
    type=Share(),
    metavar="PERCENT",
    help="The share of the traffic: above 0 and at most 100.",
)
@ON_CHANNEL
@OPTIONAL_REASON
@json_option
def start(
    ref: str, environment: str, share_bp: int, channel: str | None, reason: str, as_json: bool
) -> None:
    """Give an approved version a share of a channel's traffic.

    \b
    Example:
      countersign canary start acme/claims@v1 --env production --share 5
    """
    with connect() as registry:
        _show(registry.start_canary(ref, environment, share_bp, channel, reason), as_json)


@canary.command("status")
@ONLY_ENVIRONMENT
@json_option
def canary_status(environment: str | None, as_json: bool) -> None:
    """Show the running canaries.

    \b
    Example:
      countersign canary status --env production
    """
    with connect() as registry:
        channels = [channel for channel in registry.channels(environment) if channel.candidate]
    _show_channels(channels, as_json, "No canary is running.")


@click.command()
@click.argument("name", metavar="NAME")
@IN_ENVIRONMENT
@ON_CHANNEL
@OPTIONAL_REASON
@json_option
def promote(name: str, environment: str, channel: str | None, reason: str, as_json: bool) -> None:
    """Make the canary of a channel its stable version.

    \b
    Example:
      countersign promote acme/claims --env production --reason "Clean for two hours"
    """
    with connect() as registry:
        _show(registry.promote(name, environment, channel, reason), as_json)


@click.command()
@click.argument("name", metavar="NAME")
@IN_ENVIRONMENT
@REASON
@ON_CHANNEL
@json_option
def rollback(name: str, environment: str, reason: str, channel: str | None, as_json: bool) -> None:
    """Undo the last step of a channel at once.

    A running canary ends. Without one, the channel returns to its rollback target.

    \b
    Example:
      countersign rollback acme/claims --env production --reason "Complaint 5512"
    """
    with connect() as registry:
        _show(registry.roll_back(name, environment, reason, channel), as_json)


@click.command()
@click.argument("ref", metavar="REF")
@REASON
@json_option
def recall(ref: str, reason: str, as_json: bool) -> None:
    """Take a thing and all that derives from it out of service for good.

    The reason has at least ten characters.

    \b
    Example:
      countersign recall acme/claims@v1 --reason "Trained on withdrawn data"
    """
    with connect() as registry:
        recalled = registry.recall(ref, reason)
    if as_json:
        emit(recalled)
        return
    fields(
        f"{recalled.ref}  {state('recalled')}",
        [("Reason", recalled.reason), ("Recalled", recalled.recalled)],
    )
    rows = [
        (channel.channel, channel.environment, channel.generation, channel.stable)
        for channel in recalled.channels
    ]
    table(["Channel", "Environment", "Generation", "Stable now"], rows, "No channel served it.")


@click.command()
@click.argument("name", metavar="[NAME]", required=False)
@ONLY_ENVIRONMENT
@json_option
def status(name: str | None, environment: str | None, as_json: bool) -> None:
    """Show what serves where, and what is possible now.

    \b
    Example:
      countersign status
    """
    with connect() as registry:
        channels = registry.channels(environment)
    shown = [channel for channel in channels if name in (None, channel.adapter)]
    _show_channels(shown, as_json, "Nothing serves yet.")


@click.command()
@click.argument("name", metavar="NAME")
@IN_ENVIRONMENT
@ON_CHANNEL
@json_option
def history(name: str, environment: str, channel: str | None, as_json: bool) -> None:
    """Show every generation of a channel.

    \b
    Example:
      countersign history acme/claims --env production
    """
    with connect() as registry:
        generations = registry.history(name, environment, channel)
    if as_json:
        emit(
            [
                {
                    "generation": generation.generation,
                    "version": generation.version,
                    "from": generation.valid_from,
                    "to": generation.valid_to,
                    "actor": generation.actor,
                    "reason": generation.reason,
                    "kind": generation.kind,
                    "candidate": generation.candidate,
                    "weight_bp": generation.weight_bp,
                }
                for generation in generations
            ]
        )
        return
    rows = [
        (
            generation.generation,
            generation.kind,
            generation.version,
            generation.candidate,
            percent(generation.weight_bp),
            generation.valid_from,
            generation.valid_to,
            generation.actor,
            generation.reason,
        )
        for generation in generations
    ]
    table(
        ["Generation", "Kind", "Stable", "Candidate", "Share", "From", "To", "Actor", "Reason"],
        rows,
    )


def _show(route: RouteView, as_json: bool) -> None:
    if as_json:
        emit(route)
        return
    fields(
        f"{route.channel} in {route.environment}  {_serving(route.stable, route.candidate)}",
        [
            ("Generation", route.generation),
            ("Stable", route.stable),
            ("Candidate", route.candidate),
            ("Share", percent(route.weight_bp)),
        ],
    )


def _show_channels(channels: list[ChannelView], as_json: bool, empty: str) -> None:
    if as_json:
        emit(channels)
        return
    rows = [
        (
            channel.adapter,
            channel.environment,
            channel.channel,
            _serving(channel.stable, channel.candidate),
            channel.stable,
            channel.candidate,
            percent(channel.weight_bp),
            channel.since,
            _possible(channel),
        )
        for channel in channels
    ]
    heads = [
        "Adapter",
        "Environment",
        "Channel",
        "State",
        "Stable",
        "Candidate",
        "Share",
        "Since",
        "Possible now",
    ]
    table(heads, rows, empty)


def _possible(channel: ChannelView) -> str:
    """What may be done to a channel now: `canary v3 v4, promote v2, rollback to acme/base@v1`."""
    possible = (
        ("canary", channel.acts.canary.versions),
        ("promote", channel.acts.promote.versions),
        ("rollback to", channel.acts.rollback.versions),
    )
    own = f"{channel.adapter}@"
    return ", ".join(
        f"{act} {' '.join(ref.removeprefix(own) for ref in refs)}" for act, refs in possible if refs
    )


def _serving(stable: str | None, candidate: str | None) -> str:
    return state("canary" if candidate else "serving" if stable else "stopped")
