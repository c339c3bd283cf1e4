"""Quotas: quota ls, show, set."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from registry.cli.output import emit, json_option, table
from registry.cli.parameters import REASON
from registry.cli.session import connect

if TYPE_CHECKING:
    from registry.views.retention import QuotaView


@click.group()
def quota() -> None:
    """Show and set the quotas of teams.

    \b
    Example:
      countersign quota ls
    """


@quota.command("ls")
@json_option
def list_quotas(as_json: bool) -> None:
    """List the quota and the use of every team that you may see.

    \b
    Example:
      countersign quota ls
    """
    with connect() as registry:
        quotas = registry.quotas()
    if as_json:
        emit(quotas)
    else:
        _table(quotas)


@quota.command("show")
@click.argument("team", metavar="TEAM")
@json_option
def show(team: str, as_json: bool) -> None:
    """Show the quota and the use of one team.

    \b
    Example:
      countersign quota show acme
    """
    with connect() as registry:
        shown = registry.quota(team)
    if as_json:
        emit(shown)
    else:
        _table([shown])


@quota.command("set")
@click.argument("team", metavar="TEAM")
@click.option(
    "--bytes",
    "max_bytes",
    type=click.IntRange(0),
    help="The maximum of unique bytes; unlimited if omitted.",
)
@click.option(
    "--versions",
    "max_versions",
    type=click.IntRange(0),
    help="The maximum number of versions; unlimited if omitted.",
)
@REASON
@json_option
def set_quota(
    team: str, max_bytes: int | None, max_versions: int | None, reason: str, as_json: bool
) -> None:
    """Set a team's quota from now on.

    \b
    Example:
      countersign quota set acme --bytes 500000000000 --versions 2000 --reason 'Half the disk'
    """
    with connect() as registry:
        changed = registry.set_quota(team, max_bytes, max_versions, reason)
    if as_json:
        emit(changed)
    else:
        _table([changed])


def _table(quotas: list[QuotaView]) -> None:
    rows = [
        (
            quota.team,
            quota.used_bytes,
            "unlimited" if quota.max_bytes is None else quota.max_bytes,
            quota.used_versions,
            "unlimited" if quota.max_versions is None else quota.max_versions,
        )
        for quota in quotas
    ]
    table(["Team", "Bytes", "of at most", "Versions", "of at most"], rows)
