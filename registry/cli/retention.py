"""Keeping and letting go: `retention`, `hold`, `quota`, `gc`; and `delete` and `discard` for every
kind of thing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from registry.cli.output import emit, fields, json_option, note, state, table
from registry.cli.session import connect

if TYPE_CHECKING:
    from registry.views.retention import HoldView, QuotaView

REASON = click.option(
    "--reason", required=True, help="Why, in a sentence; the log keeps its commitment."
)


def attach(group: click.Group, kind: str, example: str, prefix: str = "") -> None:
    """Give a kind's group its `delete` and its `discard`."""
    _ending(
        group,
        "delete",
        prefix,
        "Delete a version that nothing holds, keeps or needs; its tombstone stays, and its "
        "number never comes back.",
        f"{kind} delete {example}@v1 --reason 'Superseded'",
    )
    _ending(
        group,
        "discard",
        prefix,
        "Discard a draft, for good.",
        f"{kind} discard {example}@draft-0a1b2c3d --reason 'A mistake'",
    )


def _ending(group: click.Group, verb: str, prefix: str, says: str, example: str) -> None:
    @group.command(verb, help=f"{says}\n\n\b\nExample:\n  countersign {example}")
    @click.argument("ref", metavar="REF")
    @REASON
    @json_option
    def end(ref: str, reason: str, as_json: bool) -> None:
        with connect() as registry:
            act = registry.delete if verb == "delete" else registry.discard
            stone = act(prefix + ref.removeprefix(prefix), reason)
        if as_json:
            emit(stone)
            return
        fields(
            f"{stone.ref}  {state(stone.how)}",
            [("Was", stone.was), ("At", stone.at), ("By", stone.by), ("Because", stone.reason)],
        )


@click.group()
def retention() -> None:
    """How long things are kept: classes, and what keeps one thing.

    \b
    Example:
      countersign retention show acme/claims@v3
    """


@retention.command("ls")
@json_option
def list_classes(as_json: bool) -> None:
    """List the retention classes.

    \b
    Example:
      countersign retention ls
    """
    with connect() as registry:
        classes = registry.retention_classes()
    if as_json:
        emit(classes)
    else:
        rows = [
            (one.name, one.keep_days, one.counted_from, one.after, one.draft_days, one.reason)
            for one in classes
        ]
        table(["Class", "Days", "Counted from", "Then", "Days of a draft", "Because"], rows)


@retention.command("add")
@click.argument("name", metavar="NAME")
@click.option(
    "--days",
    required=True,
    type=click.IntRange(0, 36500),
    help="Days to keep a version at the least.",
)
@click.option(
    "--from",
    "counted_from",
    type=click.Choice(["registration", "service"]),
    default="service",
    help="From when the days count: registration, or the last time of service.",
)
@click.option(
    "--after",
    type=click.Choice(["may-go", "due"]),
    default="may-go",
    help="What comes then: a person may delete it, or it is also listed as due.",
)
@click.option(
    "--draft-days",
    type=click.IntRange(1, 3650),
    default=30,
    help="Days until a draft is discarded.",
)
@REASON
@json_option
def add_class(
    name: str, days: int, counted_from: str, after: str, draft_days: int, reason: str, as_json: bool
) -> None:
    """Define a class; its terms never change.

    \b
    Example:
      countersign retention add claims-7y --days 2557 --reason 'Our insurer asks for it'
    """
    from registry.rules.retention import Terms

    terms = Terms(
        name,
        days,
        "registration" if counted_from == "registration" else "service",
        "due" if after == "due" else "may-go",
        draft_days,
    )
    with connect() as registry:
        made = registry.define_retention(terms, reason)
    if as_json:
        emit(made)
    else:
        fields(
            made.name,
            [("Days", made.keep_days), ("Counted from", made.counted_from), ("Then", made.after)],
        )


@retention.command("set")
@click.argument("name", metavar="team[/name]")
@click.option(
    "--class", "retention_class", required=True, metavar="CLASS", help="The class it comes under."
)
@REASON
@json_option
def set_class(name: str, retention_class: str, reason: str, as_json: bool) -> None:
    """Put a line, a data set (dataset:team/name) or a whole team under a class.

    What is registered already keeps what it had at the least.

    \b
    Example:
      countersign retention set acme/claims --class medical-6y --reason 'It reads patient letters'
    """
    with connect() as registry:
        setting = registry.retain(name, retention_class, reason)
    if as_json:
        emit(setting)
        return
    fields(setting.name, [("Class", setting.retention)])
    if setting.shortened:
        note("This class keeps for less time: it holds for what is registered from now on.")


@retention.command("due")
@json_option
def list_due(as_json: bool) -> None:
    """List what is due for deletion: its time is over, and nothing holds or needs it.

    \b
    Example:
      countersign retention due
    """
    with connect() as registry:
        found = list(registry.due())
    if as_json:
        emit(found)
    else:
        table(
            ["Version", "Kept until"],
            [(one.ref, one.kept_until) for one in found],
            "Nothing is due.",
        )


@retention.command("show")
@click.argument("ref", metavar="REF")
@json_option
def show(ref: str, as_json: bool) -> None:
    """Show what keeps a version or data set version, or its tombstone.

    \b
    Example:
      countersign retention show acme/claims@v3
    """
    with connect() as registry:
        kept = registry.keeping(ref)
    if as_json:
        emit(kept)
        return
    stone = kept.tombstone
    fields(
        f"{kept.ref}  {state(kept.state)}",
        [
            ("Classes", kept.classes),
            ("Kept until", kept.kept_until),
            ("Holds", kept.holds),
            ("Needed", kept.needs),
            ("Due for deletion", "yes" if kept.due else "no"),
            *(
                []
                if stone is None
                else [
                    (stone.how.capitalize(), stone.at),
                    ("By", stone.by),
                    ("Because", stone.reason),
                ]
            ),
        ],
    )


@click.group()
def hold() -> None:
    """Legal holds: place, list, lift.

    \b
    Example:
      countersign hold place acme/claims@v3 --case 'Matter 5512' --reason 'Order of the court'
    """


@hold.command("place")
@click.argument("over", metavar="REF")
@click.option("--case", required=True, help="The case or matter it is for.")
@REASON
@json_option
def place(over: str, case: str, reason: str, as_json: bool) -> None:
    """Place a hold over a version, a line, a data set or one of its versions: nothing of it is
    deleted.

    \b
    Example:
      countersign hold place acme/claims --case 'Matter 5512' --reason 'Order of the court'
    """
    with connect() as registry:
        placed = registry.hold(over, case, reason)
    _show_hold(placed, as_json)


@hold.command("ls")
@click.option("--over", metavar="REF", help="Only those that keep this version.")
@click.option("--all", "everything", is_flag=True, help="Lifted ones too.")
@json_option
def list_holds(over: str | None, everything: bool, as_json: bool) -> None:
    """List the holds that stand.

    \b
    Example:
      countersign hold ls --over acme/claims@v3
    """
    with connect() as registry:
        holds = list(registry.holds(over, standing=not everything))
    if as_json:
        emit(holds)
    else:
        rows = [
            (
                one.number,
                one.over,
                _withheld(one, one.case),
                one.placed_by,
                one.placed_at,
                one.lifted_at,
            )
            for one in holds
        ]
        table(["Hold", "Over", "Case", "Placed by", "At", "Lifted"], rows, "No hold stands.")


@hold.command("lift")
@click.argument("number", metavar="HOLD", type=int)
@REASON
@json_option
def lift(number: int, reason: str, as_json: bool) -> None:
    """Lift a hold that another reviewer placed.

    \b
    Example:
      countersign hold lift 7 --reason 'The matter is settled'
    """
    with connect() as registry:
        lifted = registry.lift(number, reason)
    _show_hold(lifted, as_json)


def _withheld(one: HoldView, text: str | None) -> str:
    return "(withheld)" if one.withheld else text or "(erased)"


def _show_hold(one: HoldView, as_json: bool) -> None:
    if as_json:
        emit(one)
        return
    fields(
        f"Hold {one.number}  {state('withdrawn' if one.lifted_at else 'open')}",
        [
            ("Over", one.over),
            ("Case", _withheld(one, one.case)),
            ("Placed by", one.placed_by),
            ("At", one.placed_at),
            ("Because", _withheld(one, one.reason)),
            ("Lifted by", one.lifted_by),
            ("Lifted", one.lifted_at),
        ],
    )


@click.group()
def quota() -> None:
    """Quotas: what teams may use, and use.

    \b
    Example:
      countersign quota ls
    """


@quota.command("ls")
@json_option
def list_quotas(as_json: bool) -> None:
    """List what every team you see may use, and uses.

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
def show_quota(team: str, as_json: bool) -> None:
    """Show what one team may use, and uses.

    \b
    Example:
      countersign quota show acme
    """
    with connect() as registry:
        one = registry.quota(team)
    if as_json:
        emit(one)
    else:
        _table([one])


@quota.command("set")
@click.argument("team", metavar="TEAM")
@click.option(
    "--bytes",
    "max_bytes",
    type=click.IntRange(0),
    help="The most unique bytes; unlimited if left out.",
)
@click.option(
    "--versions",
    "max_versions",
    type=click.IntRange(0),
    help="The most versions; unlimited if left out.",
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
        one = registry.set_quota(team, max_bytes, max_versions, reason)
    if as_json:
        emit(one)
    else:
        _table([one])


def _table(quotas: list[QuotaView]) -> None:
    rows = [
        (
            one.team,
            one.used_bytes,
            "any" if one.max_bytes is None else one.max_bytes,
            one.used_versions,
            "any" if one.max_versions is None else one.max_versions,
        )
        for one in quotas
    ]
    table(["Team", "Bytes", "of at most", "Versions", "of at most"], rows)


@click.command()
@click.option("--dry-run", is_flag=True, help="Only say what would go, and how many bytes.")
@click.option(
    "--grace-hours",
    type=click.IntRange(0, 8760),
    default=24,
    help="Leave alone what was used or deleted since so many hours.",
)
@json_option
def gc(dry_run: bool, grace_hours: int, as_json: bool) -> None:
    """Collect bytes that no version needs any more; the clock does it every night.

    \b
    Example:
      countersign gc --dry-run
    """
    with connect() as registry:
        done = (
            registry.planned_collection(grace_hours) if dry_run else registry.collect(grace_hours)
        )
    if as_json:
        emit(done)
        return
    fields(
        "Would go" if dry_run else "Collected",
        [
            ("Of deleted versions", done.unnamed),
            ("Never registered", done.orphans),
            ("Left from before", done.leftovers),
            ("Bytes", done.bytes),
            *([] if dry_run else [("Removed", done.removed)]),
        ],
    )
