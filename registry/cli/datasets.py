"""Data sets: dataset add, ls, show, deprecate, delete, discard."""

from __future__ import annotations

from pathlib import Path

import click

from registry.cli import deletions, deprecations
from registry.cli.added import refusal_as_document, show_added
from registry.cli.output import emit, fields, json_option, state, table
from registry.cli.parameters import FILE
from registry.cli.session import connect, document


@click.group()
def dataset() -> None:
    """Register, list, show and retire data sets.

    \b
    Example:
      countersign dataset ls
    """


deprecations.attach(dataset, "dataset", "acme/notices", "dataset:")
deletions.attach(dataset, "dataset", "acme/notices", "dataset:")


@dataset.command("add")
@click.argument("file", metavar="FILE", type=FILE)
@click.option("--name", required=True, metavar="team/name", help="The data set of the new version.")
@click.option(
    "--meta",
    type=FILE,
    help="YAML with source, licence, legal basis, class of personal data and retention.",
)
@json_option
def add(file: Path, name: str, meta: Path | None, as_json: bool) -> None:
    """Register a JSON Lines file as a version.

    Missing descriptions are listed; the version stays a draft until they are supplied.

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
            (
                version.ref,
                state(version.state),
                version.rows,
                version.splits,
                version.created_by,
                version.created_at,
            )
            for version in datasets
        ]
        table(["Version", "State", "Rows", "Splits", "Created by", "Created"], rows)


@dataset.command("show")
@click.argument("ref", metavar="REF")
@json_option
def show(ref: str, as_json: bool) -> None:
    """Show all properties of one data set version.

    \b
    Example:
      countersign dataset show acme/notices@v1
    """
    with connect() as registry:
        version = registry.dataset(ref)
    if as_json:
        emit(version)
        return
    fields(
        f"{version.ref}  {state(version.state)}",
        [
            ("Record root", version.record_root),
            ("SHA-256", version.sha256),
            ("Bytes", version.size),
            ("Rows", version.rows),
            ("Splits", version.splits),
            ("Duplicate rows", version.duplicates),
            ("In two splits", version.overlap),
            ("Created by", version.created_by),
            ("Created", version.created_at),
            *((f"meta {name}", value) for name, value in version.meta.items()),
        ],
    )
