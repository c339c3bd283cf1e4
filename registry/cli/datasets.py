"""Data sets: dataset add, ls, show."""

from __future__ import annotations

from pathlib import Path

import click

from registry.cli import deprecations, retention
from registry.cli.added import FILE, refusal_as_document, show_added
from registry.cli.output import emit, fields, json_option, state, table
from registry.cli.session import connect, document


@click.group()
def dataset() -> None:
    """Data sets: add, list, show.

    \b
    Example:
      countersign dataset ls
    """


deprecations.attach(dataset, "dataset", "acme/notices", "dataset:")
retention.attach(dataset, "dataset", "acme/notices", "dataset:")


@dataset.command("add")
@click.argument("file", metavar="FILE", type=FILE)
@click.option(
    "--name", required=True, metavar="team/name", help="The data set this is a version of."
)
@click.option(
    "--meta", type=FILE, help="Source, licence, legal basis, personal data, retention, as YAML."
)
@json_option
def add(file: Path, name: str, meta: Path | None, as_json: bool) -> None:
    """Send a JSON Lines file and register it as a version; what is missing is listed as findings.

    \b
    Example:
      countersign dataset add notices.jsonl --name acme/notices --meta notices.yaml
    """
    from registry.cli.progress import bar

    known, size = document(meta), file.stat().st_size
    with (
        connect() as registry,
        refusal_as_document(as_json),
        bar(f"Sending {file}", size, as_json) as step,
    ):
        added = registry.add_dataset(file, name, known, on_bytes=step)
    show_added(added, as_json)


@dataset.command("ls")
@json_option
def list_datasets(as_json: bool) -> None:
    """List data set versions.

    \b
    Example:
      countersign dataset ls
    """
    with connect() as registry:
        datasets = registry.datasets()
    if as_json:
        emit(datasets)
    else:
        rows = [
            (one.ref, state(one.state), one.rows, one.splits, one.created_by, one.created_at)
            for one in datasets
        ]
        table(["Version", "State", "Rows", "Splits", "By", "Since"], rows)


@dataset.command("show")
@click.argument("ref", metavar="REF")
@json_option
def show(ref: str, as_json: bool) -> None:
    """Show one data set version whole.

    \b
    Example:
      countersign dataset show acme/notices@v1
    """
    with connect() as registry:
        one = registry.dataset(ref)
    if as_json:
        emit(one)
        return
    fields(
        f"{one.ref}  {state(one.state)}",
        [
            ("Record root", one.record_root),
            ("SHA-256", one.sha256),
            ("Bytes", one.size),
            ("Rows", one.rows),
            ("Splits", one.splits),
            ("Duplicate rows", one.duplicates),
            ("In two splits", one.overlap),
            ("Made by", one.created_by),
            ("Since", one.created_at),
            *((f"meta {name}", value) for name, value in one.meta.items()),
        ],
    )
