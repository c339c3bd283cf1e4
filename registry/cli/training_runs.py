"""Training runs: train queues one; run ls, show and cancel manage them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from registry.cli.following import follow
from registry.cli.output import emit, fields, json_option, note, state, table
from registry.cli.parameters import FILE, FOLLOW
from registry.cli.session import connect, document

if TYPE_CHECKING:
    from registry.views.training_runs import TrainingRunView


@click.command()
@click.option("--adapter", required=True, metavar="team/name", help="The line of the new versions.")
@click.option("--base", required=True, metavar="REF", help="The base model version to tune.")
@click.option("--data", required=True, metavar="REF", help="The data set version to train on.")
@click.option(
    "--recipe", required=True, type=FILE, help="YAML that says how to train; frozen with the run."
)
@click.option("--domain", help="The business domain of the line.")
@click.option("--meta", type=FILE, help="YAML with the purpose of the new versions; required.")
@FOLLOW
@json_option
def train(
    adapter: str,
    base: str,
    data: str,
    recipe: Path,
    domain: str | None,
    meta: Path | None,
    following: bool,
    as_json: bool,
) -> None:
    """Queue a training run.

    What could only fail later is refused at once: modules, layers, rows, template, missing meta.

    \b
    Example:
      countersign train --adapter acme/claims --base acme/tiny@v1 --data acme/rows@v1 \\
        --recipe a.yml --meta meta.yml
    """
    from registry.client import NewTrainingRun

    new = NewTrainingRun(adapter, base, data, document(recipe), domain, document(meta))
    with connect() as registry:
        queued = registry.train(new)
        if following:
            shown: list[str] = []

            def look() -> TrainingRunView:
                run = registry.training_run(queued.id)
                if run.first_row and not shown:
                    shown.append(first_row(run.first_row))
                    note(shown[0])
                return run

            queued = follow(f"Training {adapter}", look)
    _show(queued, as_json)


def first_row(row: dict[str, Any]) -> str:
    """The first row as the model sees it, for people who check a template by looking."""
    text = str(row.get("text") or row.get("form"))
    # A row may hold anything, also what a terminal would take for a command.
    plain = "".join(
        letter if letter.isprintable() or letter == "\n" else ascii(letter)[1:-1] for letter in text
    )
    return (
        f"The first training row as the model sees it, {row.get('tokens')} tokens, "
        f"of which the last {row.get('learned')} are learned:\n{plain}"
    )


@click.group()
def run() -> None:
    """List, show and cancel training runs.

    \b
    Example:
      countersign run ls
    """


@run.command("ls")
@json_option
def list_runs(as_json: bool) -> None:
    """List training runs, newest first.

    \b
    Example:
      countersign run ls
    """
    with connect() as registry:
        runs = registry.training_runs()
    if as_json:
        emit(runs)
        return
    rows = [
        (run.id, run.adapter, state(run.state), run.outputs, run.requested_by, run.created_at)
        for run in runs
    ]
    table(["Training run", "Adapter", "State", "Outputs", "Requested by", "Created"], rows)


@run.command("show")
@click.argument("run_id", metavar="ID", type=click.UUID)
@json_option
def show(run_id: str, as_json: bool) -> None:
    """Show one training run: inputs, progress, meters, outputs.

    \b
    Example:
      countersign run show 0197f3c2-5a3e-7c1d-9a55-3f1f5c0f7e11
    """
    with connect() as registry:
        _show(registry.training_run(run_id), as_json)


@run.command("cancel")
@click.argument("run_id", metavar="ID", type=click.UUID)
@json_option
def cancel(run_id: str, as_json: bool) -> None:
    """Cancel a training run; its trainer stops at the next beat.

    \b
    Example:
      countersign run cancel 0197f3c2-5a3e-7c1d-9a55-3f1f5c0f7e11
    """
    with connect() as registry:
        _show(registry.cancel_training(run_id), as_json)


def _show(run: TrainingRunView, as_json: bool) -> None:
    if as_json:
        emit(run)
        return
    fields(
        f"Training run {run.id}  {state(run.state)}",
        [
            ("Adapter", run.adapter),
            ("Base", run.base),
            ("Data", run.dataset),
            ("Recipe", run.recipe_digest),
            ("Attempt", run.attempt),
            ("Progress", run.progress),
            ("Outputs", run.outputs),
            ("Meters", run.meters),
            ("Rows as", run.first_row.get("form")),
            ("MLflow", run.mlflow_url),
            ("Requested by", run.requested_by),
            ("Trainer", run.trainer),
            ("Error", run.error),
        ],
    )
