"""Eval suites and eval runs: eval suite add|ls, eval run, eval show, eval ls."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from registry.cli.following import follow
from registry.cli.output import emit, fields, json_option, state, table
from registry.cli.session import connect

if TYPE_CHECKING:
    from registry.views.evals import EvalRunView, MetricView


@click.group("eval")
def evaluation() -> None:
    """Eval suites and eval runs.

    \b
    Example:
      countersign eval run acme/claims@v1 --suite acme/gold@v1 --follow
    """


@evaluation.group("suite")
def suite() -> None:
    """Eval suites: freeze, list.

    \b
    Example:
      countersign eval suite ls
    """


@suite.command("add")
@click.argument("name", metavar="team/name")
@click.option(
    "--dataset", required=True, metavar="REF", help="The data set version its items come from."
)
@click.option("--split", required=True, help="The split its items come from.")
@click.option("--metric", default="exact_match", show_default=True)
@click.option("--max-new-tokens", type=click.IntRange(min=1), default=16, show_default=True)
@click.option("--template", type=click.Choice(["chat", "plain"]), default="chat", show_default=True)
@click.option("--system", help="The system prompt; none without it.")
@json_option
def add_suite(
    name: str,
    dataset: str,
    split: str,
    metric: str,
    max_new_tokens: int,
    template: str,
    system: str | None,
    as_json: bool,
) -> None:
    """Freeze one split of a data set as an eval suite.

    \b
    Example:
      countersign eval suite add acme/gold --dataset acme/notices@v1 --split test
    """
    decoding = {"template": template, "max_new_tokens": max_new_tokens, "system": system}
    with connect() as registry:
        made = registry.freeze_suite(name, dataset, split, metric, decoding)
    if as_json:
        emit(made)
    else:
        fields(
            made.ref,
            [
                ("Digest", made.digest),
                ("Items", made.items),
                ("Metric", made.metric),
                ("Data set", made.dataset),
                ("Split", made.split),
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
            (one.ref, one.items, one.metric, one.dataset, one.split, one.created_at)
            for one in suites
        ]
        table(["Suite", "Items", "Metric", "Data set", "Split", "Since"], rows)


@evaluation.command("run")
@click.argument("ref", metavar="REF")
@click.option("--suite", "suite_ref", required=True, metavar="REF", help="The frozen suite to run.")
@click.option(
    "--follow", "following", is_flag=True, help="Wait for its end; exit 1 unless it succeeds."
)
@json_option
def run_eval(ref: str, suite_ref: str, following: bool, as_json: bool) -> None:
    """Queue an eval run; a worker takes it up.

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
@click.option("--subject", metavar="REF", help="Only those of one version.")
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
    else:
        rows = [
            (one.id, one.subject, one.suite, state(one.state), [_metric(m) for m in one.metrics])
            for one in runs
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
            *((one.name, _metric(one)) for one in run.metrics),
            ("Error", run.error),
        ],
    )


def _metric(one: MetricView) -> str:
    return f"{one.value:.1%} of {one.n} (95 % interval {one.ci_low:.1%} to {one.ci_high:.1%})"
