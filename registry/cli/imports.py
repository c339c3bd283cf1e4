"""`import`, the same verb for base models, adapters and checkpoints: what other tools left becomes
a version.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from registry.cli.added import FILE, refusal_as_document, show_added
from registry.cli.output import emit, json_option, note, table
from registry.cli.session import connect, document

if TYPE_CHECKING:
    from registry.client import Progress
    from registry.client.sources import Source


def quantised_option(kind: str) -> Callable[[Any], Any]:
    """Only a checkpoint may be a quantisation of something."""
    if kind != "checkpoint":
        return lambda command: command
    return click.option(
        "--quantised-of",
        metavar="REF",
        help="What it is a quantisation of; worked out from the bytes.",
    )


def attach(
    group: click.Group, kind: Literal["base", "adapter", "checkpoint"], example: str
) -> None:
    """Give a kind's group its `import`."""

    @group.command(
        "import",
        help="Register what another tool left: the output folder of PEFT or transformers, a "
        "snapshot in a Hugging Face "
        "cache, or an MLflow run's artifacts. What does not belong in a bundle stays behind and "
        "is listed."
        f"\n\n\b\nExample:\n  countersign {kind} import ./output --name {example}"
        f"\n  countersign {kind} import mlflow:4f1d9c --name {example} --mlflow "
        "http://127.0.0.1:5000",
    )
    @click.argument("source", metavar="DIR|mlflow:RUN[/PATH]")
    @click.option(
        "--name", required=True, metavar="team/name", help="The line of work this is a version of."
    )
    @click.option("--base", "base_ref", metavar="REF", help="The base model version it stands on.")
    @click.option("--domain", help="The business domain it serves.")
    @click.option(
        "--meta",
        type=FILE,
        help="Purpose, licence and the like, as YAML; goes before what the source says.",
    )
    @click.option(
        "--leave-out", multiple=True, metavar="FILE", help="A file not to take although it belongs."
    )
    @click.option(
        "--without-code",
        is_flag=True,
        help="Take out of the settings what names code, such as auto_map.",
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

            def chosen(found: Source) -> Progress:
                note(
                    f"{len(found.files)} files are taken from {found.name}, {len(found.left_out)} "
                    "left out."
                )
                return stack.enter_context(bar(f"Sending {found.name}", found.size, as_json))

            registry = stack.enter_context(connect())
            stack.enter_context(refusal_as_document(as_json))
            imported = registry.import_bundle(
                kind,
                origin,
                new,
                on_chosen=chosen,
                on_fetch=lambda size: bar(f"Fetching {source}", size, as_json),
            )
        if as_json:
            emit(imported)
            return
        show_added(imported, as_json)
        if imported.left_out:
            click.echo("Left out:")
            table(["File", "Why"], [(one.path, one.why) for one in imported.left_out])
