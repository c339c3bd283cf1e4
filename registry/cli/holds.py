"""Legal holds: hold place, ls, lift."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from registry.cli.output import emit, fields, json_option, state, table
from registry.cli.parameters import REASON
from registry.cli.session import connect

if TYPE_CHECKING:
    from registry.views.retention import HoldView


@click.group()
def hold() -> None:
    """Place, list and lift legal holds.

    \b
    Example:
      countersign hold place acme/claims@v3 --case 'Matter 5512' --reason 'Order of the court'
    """


@hold.command("place")
@click.argument("over", metavar="REF")
@click.option("--case", required=True, help="The case or matter that requires the hold.")
@REASON
@json_option
def place(over: str, case: str, reason: str, as_json: bool) -> None:
    """Place a hold, so that nothing of a thing can be deleted.

    REF is a version, a line, a data set or one of its versions.

    \b
    Example:
      countersign hold place acme/claims --case 'Matter 5512' --reason 'Order of the court'
    """
    with connect() as registry:
        placed = registry.hold(over, case, reason)
    _show(placed, as_json)


@hold.command("ls")
@click.option("--over", metavar="REF", help="Only the holds that keep this version.")
@click.option("--all", "everything", is_flag=True, help="Also lifted holds.")
@json_option
def list_holds(over: str | None, everything: bool, as_json: bool) -> None:
    """List the holds that are in force.

    \b
    Example:
      countersign hold ls --over acme/claims@v3
    """
    with connect() as registry:
        holds = list(registry.holds(over, standing=not everything))
    if as_json:
        emit(holds)
        return
    rows = [
        (
            hold.number,
            hold.over,
            _readable(hold, hold.case),
            hold.placed_by,
            hold.placed_at,
            hold.lifted_at,
        )
        for hold in holds
    ]
    table(["Hold", "Over", "Case", "Placed by", "At", "Lifted"], rows, "No hold is in force.")


@hold.command("lift")
@click.argument("number", metavar="HOLD", type=int)
@REASON
@json_option
def lift(number: int, reason: str, as_json: bool) -> None:
    """Lift a hold that another person placed.

    \b
    Example:
      countersign hold lift 7 --reason 'The matter is settled'
    """
    with connect() as registry:
        lifted = registry.lift(number, reason)
    _show(lifted, as_json)


def _readable(hold: HoldView, text: str | None) -> str:
    return "(withheld)" if hold.withheld else text or "(erased)"


def _show(hold: HoldView, as_json: bool) -> None:
    if as_json:
        emit(hold)
        return
    fields(
        f"Hold {hold.number}  {state('withdrawn' if hold.lifted_at else 'open')}",
        [
            ("Over", hold.over),
            ("Case", _readable(hold, hold.case)),
            ("Placed by", hold.placed_by),
            ("At", hold.placed_at),
            ("Reason", _readable(hold, hold.reason)),
            ("Lifted by", hold.lifted_by),
            ("Lifted", hold.lifted_at),
        ],
    )
