"""One recipe to trained weights: metered, saved on the way, resumed to the same bytes.

The loop is transformers' own Trainer and not TRL's SFTTrainer. The latter would tokenise, template,
mask and shuffle again, all of which trainer.data has decided and the registry keeps by digest. What
remains is gradient steps, and for those the plain Trainer restores optimiser, schedule and random
states bit for bit after a restart (tests/trainer/test_loop kills it to check).
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from registry.artifacts.datasets.rows import Row
from registry.errors import Refused
from registry.rules.recipes import Recipe
from trainer import data, memory, model
from trainer.device import Device, be_deterministic

STATE = "trainer_state.json"
Record = dict[str, Any]
"""The meters of one step.

They are step, loss, learning_rate, grad_norm, peak_memory_bytes, and tokens and seconds so far.
"""


@dataclass(frozen=True, slots=True)
class Job:
    """What to train, and where. The folder `work` holds the save points and survives a crash.

    `on_rendered` gets the first row as the model sees it, before the first step.
    """

    recipe: Recipe
    base: Path
    rows: list[Row]
    device: Device
    work: Path
    on_step: Callable[[Record], None]
    publish: Callable[[int, Path, int], None]
    stopped: Callable[[], bool]
    on_rendered: Callable[[data.Rendered], None] = lambda _: None


def train(job: Job) -> Record | None:
    """Run a recipe to its end, from its last save point where there is one.

    Returns the meters of the training report, None when it was stopped. `publish(step, folder,
    tokens)` gets PEFT's own output at each step of `publish_at`, perhaps twice after a restart.
    Raises Refused `training-diverged` at a loss that is not a finite number, because the weights
    are worth nothing from then on.
    """
    be_deterministic()
    tokenizer = model.load_tokenizer(job.base)
    recipe = job.recipe
    whole = model.load_base(job.base, job.device)
    form = data.Form(recipe.template, recipe.system, model.end_tokens(whole, tokenizer))
    examples = data.tokenise(job.rows, tokenizer, form, recipe.max_length)
    first_row = next(data.training_rows(job.rows))
    job.on_rendered(data.rendered(tokenizer, form, first_row, examples[0]))
    places = data.order(len(examples), recipe.steps * recipe.batch_size, recipe.seed, recipe.sample)
    ordered = data.Ordered(examples, places)
    net = model.wrap(whole, recipe)
    flops = memory.flops_per_token(net, recipe.layers[0] if recipe.layers else 0)
    trainable = sum(weight.numel() for weight in net.parameters() if weight.requires_grad)

    points = SavePoints(job.work / "save-points")
    last = points.last()
    callback = Callback(job, points, ordered)
    trainer = InOrder(
        model=net,
        args=_arguments(job, points.folder),
        train_dataset=ordered,
        callbacks=[callback],
        data_collator=partial(data.collate, pad_id=tokenizer.pad_token_id),
    )
    trainer.remove_callback(PrinterCallback)
    if last is not None:
        # A kill may have come after this point was saved and before it was published.
        callback.publish(points.step_of(last), last, _history(last)[-1]["tokens"])
    if last is None or points.step_of(last) < recipe.steps:
        trainer.train(resume_from_checkpoint=str(last) if last else None)
        if trainer.state.global_step < recipe.steps:
            return None
        history = trainer.state.log_history
    else:
        history = _history(last)
    losses = [record for record in history if "loss" in record]
    seconds, tokens = losses[-1]["seconds"], losses[-1]["tokens"]
    return {
        "seconds": round(seconds, 3),
        "peak_memory_bytes": max(record["peak_memory_bytes"] for record in losses),
        "tokens": tokens,
        "tokens_per_second": round(tokens / seconds, 2),
        "loss_first": losses[0]["loss"],
        "loss_last": losses[-1]["loss"],
        "steps": losses[-1]["step"],
        "trainable_parameters": trainable,
        # A float: canonical JSON has no integers beyond 2**53.
        "flops": float(flops * tokens),
    }


def _arguments(job: Job, output: Path) -> TrainingArguments:
    recipe, on_cpu = job.recipe, job.device.name == "cpu"
    return TrainingArguments(
        output_dir=str(output),
        max_steps=recipe.steps,
        per_device_train_batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        warmup_steps=recipe.warmup_steps,
        lr_scheduler_type="linear",
        optim="adamw_torch",
        weight_decay=0.0,
        max_grad_norm=1.0,
        seed=recipe.seed,
        # The weights have the precision, without autocast: the base the recipe's dtype, the
        # adapter float32.
        bf16=False,
        fp16=False,
        use_cpu=on_cpu,
        dataloader_pin_memory=not on_cpu,
        # Every step is logged, and a loss that is not finite is seen instead of averaged away.
        logging_strategy="steps",
        logging_steps=1,
        logging_nan_inf_filter=False,
        # The callback decides when to save.
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
    )


class InOrder(Trainer):  # type: ignore[misc]  # transformers is untyped to mypy
    """The Trainer without its shuffle, because `data.order` has decided the order."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        from torch.utils.data import SequentialSampler

        return SequentialSampler(train_dataset if train_dataset is not None else self.train_dataset)


class Callback(TrainerCallback):  # type: ignore[misc]  # transformers is untyped to mypy
    """Meters each step, decides when to save and publish, and stops the Trainer when asked to."""

    def __init__(self, job: Job, points: SavePoints, ordered: data.Ordered) -> None:
        self._job = job
        self._points = points
        self._ordered = ordered
        self._since = 0.0
        self._seconds = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._since = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._seconds = time.perf_counter() - self._since
        recipe = self._job.recipe
        due = state.global_step % recipe.save_every == 0 or state.global_step in recipe.publish_at
        if self._job.stopped():
            due = control.should_training_stop = True
        control.should_save = due

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
        """Complete the step's record in the Trainer's history, which every save point contains."""
        if "loss" not in logs:
            return
        step, record = state.global_step, state.log_history[-1]
        before = state.log_history[-2] if len(state.log_history) > 1 else {}
        batch = self._job.recipe.batch_size
        places = range((step - 1) * batch, step * batch)
        record["tokens"] = before.get("tokens", 0) + self._ordered.tokens(places)
        record["seconds"] = before.get("seconds", 0.0) + self._seconds
        record["peak_memory_bytes"] = memory.peak_bytes()
        if not math.isfinite(record["loss"]):
            raise Refused("training-diverged", f"The loss at step {step} is {record['loss']}.")
        self._job.on_step(dict(record))

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        point = self._points.keep(state.global_step)
        self.publish(state.global_step, point, state.log_history[-1]["tokens"])

    def publish(self, step: int, point: Path, tokens: int) -> None:
        if step in self._job.recipe.publish_at:
            self._job.publish(step, point, tokens)


class SavePoints:
    """Training states on disk, each complete or absent.

    The Trainer writes one to a folder of its own, which is then flushed and renamed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for incomplete in folder.glob("checkpoint-*"):
            shutil.rmtree(incomplete)

    def last(self) -> Path | None:
        """The newest save point."""
        return max(self.folder.glob("step-*"), key=self.step_of, default=None)

    def step_of(self, point: Path) -> int:
        """The step of a save point."""
        return int(point.name.removeprefix("step-"))

    def keep(self, step: int) -> Path:
        """Turn the state that the Trainer just wrote into the save point; remove the last one."""
        written = self.folder / f"checkpoint-{step}"
        for path in written.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        before = self.last()
        point = written.rename(self.folder / f"step-{step}")
        if before is not None and before != point:
            shutil.rmtree(before)
        return point


def _history(point: Path) -> list[Record]:
    history: list[Record] = json.loads((point / STATE).read_text("utf-8"))["log_history"]
    return history
