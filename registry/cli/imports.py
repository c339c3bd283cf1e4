"""`import`, the same verb for base models, adapters and checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from registry.cli.added import refusal_as_document, show_added
from registry.cli.output import emit, json_option, note, table
from registry.cli.parameters import FILE, Kind
from registry.cli.session import connect, document

if TYPE_CHECKING:
    from registry.client import Progress
    from registry.client.sources import Source


def quantised_option(kind: Kind) -> Callable[[Any], Any]:
    """--quantised-of, for checkpoints: nothing else can be a quantisation."""
    if kind != "checkpoint":
        return lambda command: command
    return click.option(
        "--quantised-of",
        metavar="REF",
        help="The version that it is a quantisation of; verified from the bytes.",
    )


def attach(group: click.Group, kind: Kind, example: str) -> None:
    """Add `import` to the group of a kind."""

    @group.command(
        "import",
        help="Register what another tool wrote.\n\n"
        "The source is an output folder of PEFT or transformers, a snapshot in a Hugging Face "
        "cache, an MLflow run, or a model that MLflow logged or registered. Files that do not "
        "belong in a bundle are left out and listed.\n\n"
        f"\b\nExample:\n  countersign {kind} import ./output --name {example}"
        f"\n  countersign {kind} import mlflow:4f1d9c --name {example} --mlflow "
        "http://127.0.0.1:5000"
        f"\n  countersign {kind} import models:/claims/3 --name {example}",
    )
    @click.argument("source", metavar="DIR|mlflow:RUN[/PATH]|models:/...")
    @click.option("--name", required=True, metavar="team/name", help="The line of the new version.")
    @click.option("--base", "base_ref", metavar="REF", help="The base model version it is for.")
    @click.option("--domain", help="The business domain of the line.")
    @click.option(
        "--meta",
        type=FILE,
        help="YAML with purpose, licence and the like; takes precedence over the source.",
    )
    @click.option(
        "--leave-out",
        multiple=True,
        metavar="FILE",
        help="Leave out this file or folder although it may belong to the model; repeatable. "
        "Weights that are left out stay a risk of the version.",
    )
    @click.option(
        "--without-code",
        is_flag=True,
        help="Remove the settings that name code, such as auto_map.",
    )
    @click.option("--mlflow", metavar="URL", help="The MLflow server; default MLFLOW_TRACKING_URI.")
    @quantised_option(kind)
    @json_option
    def import_(
        source: str,
        name: str,
        base_ref: str | None,
        domain: str | None,
        meta: Path | None,
        leave_out: tuple[str, ...],
        without_code: bool,
        mlflow: str | None,
        as_json: bool,
        quantised_of: str | None = None,
    ) -> None:
        from registry.cli.progress import bar
        from registry.client import NewVersion, Origin

        origin = Origin(source, leave_out, without_code, mlflow)
        new = NewVersion(name, base_ref, domain, document(meta), quantised_of)
        with ExitStack() as stack:

            def on_chosen(chosen: Source) -> Progress:
                note(
                    f"{chosen.name}: {len(chosen.files)} files are imported, "
                    f"{len(chosen.left_out)} are left out."
                )
                return stack.enter_context(bar(f"Sending {chosen.name}", chosen.size, as_json))

            registry = stack.enter_context(connect())
            stack.enter_context(refusal_as_document(as_json))
            imported = registry.import_bundle(
                kind,
                origin,
                new,
                on_chosen=on_chosen,
                on_fetch=lambda size: bar(f"Fetching {source}", size, as_json),
            )
        if as_json:
            emit(imported)
            return
        show_added(imported, as_json)
        if imported.left_out:
            click.echo("Left out:")
            table(["File", "Why"], [(file.path, file.why) for file in imported.left_out])
