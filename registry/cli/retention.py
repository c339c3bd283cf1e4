"""Retention: retention classes, what keeps one version, and the collection of bytes (`gc`)."""

from __future__ import annotations

from typing import Any

import click

from registry.cli.output import emit, fields, json_option, note, state, table
from registry.cli.parameters import REASON
from registry.cli.session import connect


@click.group()
def retention() -> None:
    """Manage how long versions are kept.

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
        return
    rows = [
        (
            terms.name,
            terms.keep_days,
            terms.counted_from,
            terms.after,
            terms.draft_days,
            terms.reason,
        )
        for terms in classes
    ]
    table(["Class", "Days", "Counted from", "Afterwards", "Days of a draft", "Reason"], rows)


@retention.command("add")
@click.argument("name", metavar="NAME")
@click.option(
    "--days",
    required=True,
    type=click.IntRange(0, 36500),
    help="Keep a version for at least this many days.",
)
@click.option(
    "--from",
    "counted_from",
    type=click.Choice(["registration", "service"]),
    default="service",
    show_default=True,
    help="Count the days from its registration, or from when it last served.",
)
@click.option(
    "--after",
    type=click.Choice(["may-go", "due"]),
    default="may-go",
    show_default=True,
    help="Afterwards, a person may delete the version; `due` also lists it as due for deletion.",
)
@click.option(
    "--draft-days",
    type=click.IntRange(1, 3650),
    default=30,
    show_default=True,
    help="Discard a draft after this many days.",
)
@REASON
@json_option
def add_class(
    name: str, days: int, counted_from: str, after: str, draft_days: int, reason: str, as_json: bool
) -> None:
    """Define a retention class. Its terms never change.

    \b
    Example:
      countersign retention add claims-7y --days 2557 --reason 'Our insurer requires it'
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
        added = registry.define_retention(terms, reason)
    if as_json:
        emit(added)
        return
    fields(
        added.name,
        [
            ("Days", added.keep_days),
            ("Counted from", added.counted_from),
            ("Afterwards", added.after),
        ],
    )


@retention.command("set")
@click.argument("name", metavar="team[/name]")
@click.option(
    "--class", "retention_class", required=True, metavar="CLASS", help="The retention class."
)
@REASON
@json_option
def set_class(name: str, retention_class: str, reason: str, as_json: bool) -> None:
    """Assign a retention class to a line, a data set or a team.

    Write `dataset:team/name` for a data set. Versions that are already registered are kept for at
    least as long as before.

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
        note("This class keeps for less time. It applies to what is registered from now on.")


@retention.command("due")
@json_option
def list_due(as_json: bool) -> None:
    """List what is due for deletion.

    A version is listed once its time is over and nothing holds or needs it.

    \b
    Example:
      countersign retention due
    """
    with connect() as registry:
        due = list(registry.due())
    if as_json:
        emit(due)
    else:
        rows = [(version.ref, version.kept_until) for version in due]
        table(["Version", "Kept until"], rows, "Nothing is due.")


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
        keeping = registry.keeping(ref)
    if as_json:
        emit(keeping)
        return
    pairs: list[tuple[str, Any]] = [
        ("Classes", keeping.classes),
        ("Kept until", keeping.kept_until),
        ("Holds", keeping.holds),
        ("Needed by", keeping.needs),
        ("Due for deletion", "yes" if keeping.due else "no"),
    ]
    if (tombstone := keeping.tombstone) is not None:
        pairs += [
            (tombstone.how.capitalize(), tombstone.at),
            ("By", tombstone.by),
            ("Reason", tombstone.reason),
        ]
    fields(f"{keeping.ref}  {state(keeping.state)}", pairs)


@click.command()
@click.option("--dry-run", is_flag=True, help="Only show what would be removed.")
@click.option(
    "--grace-hours",
    type=click.IntRange(0, 8760),
    default=24,
    show_default=True,
    help="Spare what was used, or whose version was deleted, within this many hours.",
)
@json_option
def gc(dry_run: bool, grace_hours: int, as_json: bool) -> None:
    """Remove bytes that no version needs any more.

    The clock of a running registry does this every night.

    \b
    Example:
      countersign gc --dry-run
    """
    with connect() as registry:
        collection = (
            registry.planned_collection(grace_hours) if dry_run else registry.collect(grace_hours)
        )
    if as_json:
        emit(collection)
        return
    fields(
        "Would be collected" if dry_run else "Collected",
        [
            ("Of deleted versions", collection.unnamed),
            ("Never registered", collection.orphans),
            ("Left from before", collection.leftovers),
            ("Bytes", collection.bytes),
            *([] if dry_run else [("Removed", collection.removed)]),
        ],
    )
