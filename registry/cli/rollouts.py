"""Ship gradually and take back at once: canary, promote, rollback, recall, status, history."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING

import click

from registry.cli.output import emit, fields, json_option, percent, state, table
from registry.cli.reviews import ENVIRONMENT
from registry.cli.session import connect

if TYPE_CHECKING:
    from registry.views.rollouts import ChannelView, RouteView


class Share(click.ParamType[int]):
    """A percentage above 0 up to 100, no finer than a basis point -> basis points."""

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
            f"'{value}' is no share: give a percentage above 0 up to 100, no finer than 0.01.",
            param,
            ctx,
        )


@click.group()
def canary() -> None:
    """Give an approved version a share of the traffic.

    \b
    Example:
      countersign canary start acme/claims@v1 --env production --share 5
    """


@canary.command("start")
@click.argument("ref", metavar="REF")
@click.option("--env", "environment", required=True, type=ENVIRONMENT)
@click.option(
    "--share", "share_bp", required=True, type=Share(), metavar="PERCENT", help="Above 0 up to 100."
)
@click.option("--channel", help="Another channel than the environment's own.")
@click.option("--reason", default="", help="Why.")
@json_option
def start(
    ref: str, environment: str, share_bp: int, channel: str | None, reason: str, as_json: bool
) -> None:
    """Start a canary: an approved version gets a share of a channel's traffic.

    \b
    Example:
      countersign canary start acme/claims@v1 --env production --share 5
    """
    with connect() as registry:
        _show(registry.start_canary(ref, environment, share_bp, channel, reason), as_json)


@canary.command("status")
@click.option("--env", "environment", type=ENVIRONMENT)
@json_option
def canary_status(environment: str | None, as_json: bool) -> None:
    """Show the canaries that run.

    \b
    Example:
      countersign canary status --env production
    """
    with connect() as registry:
        _show_channels(
            [one for one in registry.channels(environment) if one.candidate],
            as_json,
            "No canary runs.",
        )


@click.command()
@click.argument("name", metavar="NAME")
@click.option("--env", "environment", required=True, type=ENVIRONMENT)
@click.option("--channel", help="Another channel than the environment's own.")
@click.option("--reason", default="", help="Why.")
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
@click.option("--env", "environment", required=True, type=ENVIRONMENT)
@click.option("--reason", required=True, help="Why.")
@click.option("--channel", help="Another channel than the environment's own.")
@json_option
def rollback(name: str, environment: str, reason: str, channel: str | None, as_json: bool) -> None:
    """Take the last step of a channel back, at once.

    \b
    Example:
      countersign rollback acme/claims --env production --reason "Complaint 5512"
    """
    with connect() as registry:
        _show(registry.roll_back(name, environment, reason, channel), as_json)


@click.command()
@click.argument("ref", metavar="REF")
@click.option("--reason", required=True, help="Why.")
@json_option
def recall(ref: str, reason: str, as_json: bool) -> None:
    """Order a thing and all that derives from it out of service, for good.

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
        [("Because", recalled.reason), ("Fell", recalled.recalled)],
    )
    rows = [(one.channel, one.environment, one.generation, one.stable) for one in recalled.channels]
    table(["Channel", "Environment", "Generation", "Stable now"], rows, "No channel served it.")


@click.command()
@click.argument("name", metavar="[NAME]", required=False)
@click.option("--env", "environment", type=ENVIRONMENT)
@json_option
def status(name: str | None, environment: str | None, as_json: bool) -> None:
    """Show what serves where.

    \b
    Example:
      countersign status
    """
    with connect() as registry:
        channels = [one for one in registry.channels(environment) if name in (None, one.adapter)]
    _show_channels(channels, as_json, "Nothing serves yet.")


@click.command()
@click.argument("name", metavar="NAME")
@click.option("--env", "environment", required=True, type=ENVIRONMENT)
@click.option("--channel", help="Another channel than the environment's own.")
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
                    "generation": one.generation,
                    "version": one.version,
                    "from": one.valid_from,
                    "to": one.valid_to,
                    "actor": one.actor,
                    "reason": one.reason,
                    "kind": one.kind,
                    "candidate": one.candidate,
                    "weight_bp": one.weight_bp,
                }
                for one in generations
            ]
        )
        return
    rows = [
        (
            one.generation,
            one.kind,
            one.version,
            one.candidate,
            percent(one.weight_bp),
            one.valid_from,
            one.valid_to,
            one.actor,
            one.reason,
        )
        for one in generations
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
        f"{route.channel} in {route.environment}  {_standing(route.stable, route.candidate)}",
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
            one.adapter,
            one.environment,
            one.channel,
            _standing(one.stable, one.candidate),
            one.stable,
            one.candidate,
            percent(one.weight_bp),
            one.since,
            _possible(one),
        )
        for one in channels
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
    named = (
        ("canary", channel.acts.canary.versions),
        ("promote", channel.acts.promote.versions),
        ("rollback to", channel.acts.rollback.versions),
    )
    own = f"{channel.adapter}@"
    return ", ".join(
        f"{act} {' '.join(ref.removeprefix(own) for ref in refs)}" for act, refs in named if refs
    )


def _standing(stable: str | None, candidate: str | None) -> str:
    return state("canary" if candidate else "serving" if stable else "stopped")
