"""The audit log: log, verify, as-of, export, tree-head, proof."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from registry.cli.output import emit, fields, json_option, note, percent, state, table
from registry.cli.parameters import IN_ENVIRONMENT
from registry.cli.session import connect
from registry.errors import Unverified


class Moment(click.ParamType[datetime]):
    """An ISO 8601 time -> an aware datetime; without an offset it is UTC."""

    name = "time"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"'{value}' is not a time: write it like 2026-11-22T19:30:00Z.", param, ctx)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


@click.group()
def audit() -> None:
    """Read, check, prove and export the audit log.

    \b
    Example:
      countersign audit export --out pack.zip
    """


@audit.command("log")
@click.option("--action", help="Only this action, such as review:vote.")
@click.option("--subject", help="Only what was done to this thing.")
@click.option(
    "--limit",
    default=50,
    show_default=True,
    type=click.IntRange(min=1),
    help="The maximum number of entries.",
)
@json_option
def log(action: str | None, subject: str | None, limit: int, as_json: bool) -> None:
    """Show the newest entries of the log.

    \b
    Example:
      countersign audit log --action review:vote --limit 10
    """
    with connect() as registry:
        events = registry.events(action, subject, limit)
    if as_json:
        emit(events)
    else:
        rows = [
            (event.seq, event.at, event.actor, event.action, event.subject, state(event.outcome))
            for event in events
        ]
        table(["Seq", "At", "Actor", "Action", "Subject", "Outcome"], rows)


@audit.command("verify")
@json_option
def verify(as_json: bool) -> None:
    """Have the registry recompute the whole log.

    It checks every leaf, root, tree head and vote. Exit with 8 unless all agree.

    \b
    Example:
      countersign audit verify
    """
    with connect() as registry:
        check = registry.check_log()
    if as_json:
        emit(check)
    else:
        fields(
            f"Log  {state('valid' if check.ok else 'broken')}",
            [
                ("Events", check.events),
                ("In the tree", check.size),
                ("Root", check.root),
                ("Tree heads", check.heads),
                ("Votes", check.votes),
            ],
        )
    if not check.ok:
        raise Unverified(
            "log-broken",
            f"The log does not verify: {'; '.join(check.problems)}.",
            problems=check.problems,
        )


@audit.command("as-of")
@click.argument("moment", metavar="TIME", type=Moment())
@IN_ENVIRONMENT
@json_option
def as_of(moment: datetime, environment: str, as_json: bool) -> None:
    """Show what served at a moment, and who approved it.

    \b
    Example:
      countersign audit as-of 2026-11-22T19:30:00Z --env production
    """
    with connect() as registry:
        channels = registry.as_of(moment, environment)
    if as_json:
        emit(channels)
    else:
        rows = [
            (
                channel.adapter,
                channel.channel,
                channel.generation,
                channel.version,
                channel.candidate,
                percent(channel.weight_bp),
                channel.since,
                channel.review,
                channel.approved_by,
            )
            for channel in channels
        ]
        heads = [
            "Adapter",
            "Channel",
            "Generation",
            "Stable",
            "Candidate",
            "Share",
            "Since",
            "Review",
            "Approved by",
        ]
        table(heads, rows, "Nothing served then.")


@audit.command("export")
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="The zip file to write.",
)
@json_option
def export(out: Path, as_json: bool) -> None:
    """Write the evidence pack.

    `countersign-verify` checks it without a server.

    \b
    Example:
      countersign audit export --out pack.zip
    """
    with connect() as registry:
        registry.export(out)
    if as_json:
        emit({"out": str(out), "size": out.stat().st_size})
    else:
        click.echo(f"Wrote {out} ({out.stat().st_size:,} bytes).")
        note(
            "Check it offline with the log's public key from the home of the registry: "
            f"countersign-verify {out} --key log.pub"
        )


@audit.command("tree-head")
@json_option
def tree_head(as_json: bool) -> None:
    """Print the newest signed tree head.

    \b
    Example:
      countersign audit tree-head
    """
    with connect() as registry:
        head = registry.tree_head()
    if as_json:
        emit(head)
    else:
        click.echo(head.note, nl=not head.note.endswith("\n"))
        note(f"Signed with {head.key}. {head.pending} events wait for the next tree head.")


@audit.group("proof")
def proof() -> None:
    """Prove something about the log.

    The registry supplies the proof. It is checked here, with the log's public key.

    \b
    Example:
      countersign audit proof entry 41 --key log.pub
    """


KEY = click.option(
    "--key",
    "key_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The log's public key; the same default as for countersign-verify.",
)
SIZE = click.option(
    "--size", type=click.IntRange(min=1), help="Prove against the tree head of this size."
)


@proof.command("entry")
@click.argument("seq", type=click.IntRange(min=0))
@click.option("--leaf", help="Your own copy of the entry's hash: sha256:<64 hex digits>.")
@SIZE
@KEY
@json_option
def entry(
    seq: int, leaf: str | None, size: int | None, key_file: Path | None, as_json: bool
) -> None:
    """Prove that an entry is in the signed log.

    Exit with 8 unless the proof is valid.

    \b
    Example:
      countersign audit proof entry 41 --key log.pub
    """
    log_key = _log_key(key_file)
    with connect() as registry:
        proven = registry.prove_entry(seq, log_key, leaf=leaf, size=size)
    if as_json:
        emit(proven)
    else:
        click.echo(f"Entry {seq}, {proven.leaf}, is in the signed log of {proven.size} entries.")


@proof.command("growth")
@click.argument("head", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@SIZE
@KEY
@json_option
def growth(head: Path, size: int | None, key_file: Path | None, as_json: bool) -> None:
    """Prove that the log has only grown since a tree head that you kept.

    Exit with 8 unless the proof is valid.

    \b
    Example:
      countersign audit tree-head > head.note
      countersign audit proof growth head.note --key log.pub
    """
    log_key = _log_key(key_file)
    with connect() as registry:
        proven = registry.prove_growth(head.read_text(encoding="utf-8"), log_key, size=size)
    if as_json:
        emit(proven)
    else:
        click.echo(f"The log of {proven.size} entries begins with the {proven.old_size} of {head}.")


def _log_key(path: Path | None) -> str:
    """The trusted key, from the same places as for countersign-verify."""
    from registry import verifier
    from registry.proof.notes import verifier_key

    try:
        key = verifier.trusted_key(path)
    except verifier.Rejected as rejected:
        raise Unverified(
            "no-log-key",
            str(rejected),
        ) from None
    return verifier_key(key.origin, key.public_key)
