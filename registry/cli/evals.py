"""Eval suites and eval runs: eval suite add and ls, eval run, show, ls."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from registry.cli.following import follow
from registry.cli.output import emit, fields, json_option, state, table
from registry.cli.parameters import FOLLOW
from registry.cli.session import connect

if TYPE_CHECKING:
    from registry.views.evals import EvalRunView, MetricView


@click.group("eval")
def evaluation() -> None:
    """Freeze eval suites and run them on versions.

    \b
    Example:
      countersign eval run acme/claims@v1 --suite acme/gold@v1 --follow
    """


@evaluation.group("suite")
def suite() -> None:
    """Freeze and list eval suites.

    \b
    Example:
      countersign eval suite ls
    """


@suite.command("add")
@click.argument("name", metavar="team/name")
@click.option(
    "--dataset", required=True, metavar="REF", help="The data set version that has the items."
)
@click.option("--split", required=True, help="The split that has the items.")
@click.option("--metric", default="exact_match", show_default=True, help="How an answer is scored.")
@click.option(
    "--max-new-tokens",
    type=click.IntRange(min=1),
    default=16,
    show_default=True,
    help="The maximum length of an answer.",
)
@click.option(
    "--template",
    type=click.Choice(["chat", "plain"]),
    default="chat",
    show_default=True,
    help="Ask through the chat template, or with the plain text.",
)
@click.option("--system", help="The system prompt; none by default.")
@click.option(
    "--stop",
    multiple=True,
    metavar="TEXT",
    help="Where an answer ends, at most 4 times; write '\\n' for a new line.",
)
@json_option
def add_suite(
    name: str,
    dataset: str,
    split: str,
    metric: str,
    max_new_tokens: int,
    template: str,
    system: str | None,
    stop: tuple[str, ...],
    as_json: bool,
) -> None:
    """Freeze one split of a data set as an eval suite.

    \b
    Example:
      countersign eval suite add acme/gold --dataset acme/notices@v1 --split test
    """
    decoding = {
        "template": template,
        "max_new_tokens": max_new_tokens,
        "system": system,
        "stop": [text.replace("\\n", "\n") for text in stop],
    }
    with connect() as registry:
        frozen = registry.freeze_suite(name, dataset, split, metric, decoding)
    if as_json:
        emit(frozen)
        return
    fields(
        frozen.ref,
        [
            ("Digest", frozen.digest),
            ("Items", frozen.items),
            ("Metric", frozen.metric),
            ("Data set", frozen.dataset),
            ("Split", frozen.split),
        ],
    )


@suite.command("ls")
@json_option
def list_suites(as_json: bool) -> None:
    """List eval suites.

    \b
    Example:
      countersign eval suite ls
    """
    with connect() as registry:
        suites = registry.suites()
    if as_json:
        emit(suites)
    else:
        rows = [
            (suite.ref, suite.items, suite.metric, suite.dataset, suite.split, suite.created_at)
            for suite in suites
        ]
        table(["Suite", "Items", "Metric", "Data set", "Split", "Created"], rows)


@evaluation.command("run")
@click.argument("ref", metavar="REF")
@click.option("--suite", "suite_ref", required=True, metavar="REF", help="The eval suite to run.")
@FOLLOW
@json_option
def run_eval(ref: str, suite_ref: str, following: bool, as_json: bool) -> None:
    """Queue an eval run; a trainer will run it.

    \b
    Example:
      countersign eval run acme/claims@v1 --suite acme/gold@v1 --follow
    """
    with connect() as registry:
        queued = registry.evaluate(ref, suite_ref)
        if following:
            queued = follow(f"Evaluating {ref}", lambda: registry.eval_run(queued.id))
    _show(queued, as_json)


@evaluation.command("show")
@click.argument("run_id", metavar="ID", type=click.UUID)
@json_option
def show(run_id: str, as_json: bool) -> None:
    """Show one eval run with its metrics and their intervals.

    \b
    Example:
      countersign eval show 0197f3c2-5a3e-7c1d-9a55-3f1f5c0f7e11
    """
    with connect() as registry:
        _show(registry.eval_run(run_id), as_json)


@evaluation.command("ls")
@click.option("--subject", metavar="REF", help="Only eval runs of this version.")
@json_option
def list_evals(subject: str | None, as_json: bool) -> None:
    """List eval runs.

    \b
    Example:
      countersign eval ls --subject acme/claims@v1
    """
    with connect() as registry:
        runs = registry.eval_runs(subject)
    if as_json:
        emit(runs)
        return
    rows = [
        (
            run.id,
            run.subject,
            run.suite,
            state(run.state),
            [_interval(metric) for metric in run.metrics],
        )
        for run in runs
    ]
    table(["Eval run", "Subject", "Suite", "State", "Metrics"], rows)


def _show(run: EvalRunView, as_json: bool) -> None:
    if as_json:
        emit(run)
        return
    fields(
        f"Eval run {run.id}  {state(run.state)}",
        [
            ("Subject", run.subject),
            ("Suite", run.suite),
            *((metric.name, _interval(metric)) for metric in run.metrics),
            ("Error", run.error),
        ],
    )


def _interval(metric: MetricView) -> str:
    return (
        f"{metric.value:.1%} of {metric.n} "
        f"(95 % interval {metric.ci_low:.1%} to {metric.ci_high:.1%})"
    )
