"""Training: train queues it; run ls, show, cancel look after it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from registry.cli.added import FILE
from registry.cli.following import follow
from registry.cli.output import emit, fields, json_option, state, table
from registry.cli.session import connect, document

if TYPE_CHECKING:
    from registry.views.training_runs import TrainingRunView


@click.command()
@click.option(
    "--adapter", required=True, metavar="team/name", help="The line its versions will belong to."
)
@click.option("--base", required=True, metavar="REF", help="The base model version to tune.")
@click.option("--data", required=True, metavar="REF", help="The data set version to train on.")
@click.option(
    "--recipe", required=True, type=FILE, help="How to train, as YAML; frozen with the run."
)
@click.option("--domain", help="The business domain the adapter serves.")
@click.option("--meta", type=FILE, help="Purpose and the like of the versions it makes, as YAML.")
@click.option(
    "--follow", "following", is_flag=True, help="Wait for its end; exit 1 unless it succeeds."
)
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

    \b
    Example:
      countersign train --adapter acme/claims --base acme/tiny@v1 --data acme/rows@v1 --recipe a.yml
    """
    from registry.client import NewTrainingRun

    new = NewTrainingRun(adapter, base, data, document(recipe), domain, document(meta))
    with connect() as registry:
        queued = registry.train(new)
        if following:
            queued = follow(f"Training {adapter}", lambda: registry.training_run(queued.id))
    _show(queued, as_json)


@click.group()
def run() -> None:
    """Training runs: list, show, cancel.

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
    else:
        rows = [
            (one.id, one.adapter, state(one.state), one.outputs, one.requested_by, one.created_at)
            for one in runs
        ]
        table(["Training run", "Adapter", "State", "Outputs", "By", "Since"], rows)


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
    """Cancel a training run; its worker stops at the next beat.

    \b
    Example:
      countersign run cancel 0197f3c2-5a3e-7c1d-9a55-3f1f5c0f7e11
    """
    with connect() as registry:
        _show(registry.cancel_training(run_id), as_json)


def _show(one: TrainingRunView, as_json: bool) -> None:
    if as_json:
        emit(one)
        return
    fields(
        f"Training run {one.id}  {state(one.state)}",
        [
            ("Adapter", one.adapter),
            ("Base", one.base),
            ("Data", one.dataset),
            ("Recipe", one.recipe_digest),
            ("Attempt", one.attempt),
            ("Progress", one.progress),
            ("Outputs", one.outputs),
            ("Meters", one.meters),
            ("MLflow", one.mlflow_url),
            ("Asked by", one.requested_by),
            ("Trainer", one.trainer),
            ("Error", one.error),
        ],
    )
