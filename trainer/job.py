"""The child process: one piece of work, from files to files, without registry or token.

Training runs in a process of its own, so that a crash, or the system's out-of-memory killer, ends
one piece of work and never the worker that has to report it. They share only the folder: job.json
goes in; progress.jsonl, published/step-N, samples.jsonl, save points and outcome.json come out.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from registry.artifacts.datasets.rows import decode_prompts
from registry.errors import RegistryError
from registry.rules import recipes
from trainer import data, device, evaluate, loop, model, pack, probe
from trainer.exits import STOPPED

Write = Callable[[dict[str, Any]], None]
"""Writes one progress record."""


def main(folder: Path) -> int:
    """Do the folder's work and return the exit status.

    It is 0 with outcome.json written (meters or a named error), 75 when stopped before the end.
    """
    with (folder / "lock").open("w") as lock:
        # A child whose worker was killed stops within a step. Until then, a second child must not
        # write the same save points.
        fcntl.flock(lock, fcntl.LOCK_EX)
        quieten()
        try:
            outcome = _do(folder)
        except RegistryError as error:
            outcome = {"error": f"{error.kind}: {error}"}
        except (MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            why = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            outcome = {
                "error": f"out-of-memory: {why}. "
                "Lower batch_size, max_length or rank, or adapt fewer layers."
            }
        if outcome is None:
            return STOPPED
        part = folder / "outcome.part"
        part.write_text(json.dumps(outcome), encoding="utf-8")
        part.rename(folder / "outcome.json")
        return 0


def quieten() -> None:
    """Keep the libraries' progress bars and deprecation notes out of the log.

    What matters is raised, not printed.
    """
    from transformers.utils import logging as library_logging

    library_logging.disable_progress_bar()
    library_logging.set_verbosity_error()
    warnings.simplefilter("ignore", FutureWarning)
    logging.getLogger("torch").setLevel(logging.ERROR)


class _Stopped(Exception):
    """Stopped in the middle of a suite. Eval runs are short, so they start again."""


def _do(folder: Path) -> dict[str, Any] | None:
    job = json.loads((folder / "job.json").read_text("utf-8"))
    with (folder / "progress.jsonl").open("a", buffering=1, encoding="utf-8") as progress:

        def write(record: dict[str, Any]) -> None:
            progress.write(json.dumps(record) + "\n")

        write({"phase": "loading"})
        work = _train if job["kind"] == "training" else _evaluate
        return work(folder, job, write)


def _train(folder: Path, job: dict[str, Any], write: Write) -> dict[str, Any] | None:
    recipe = recipes.parse(job["recipe"])
    where = device.choose(recipe.dtype)
    base, dataset = job["base"], job["dataset"]
    rows = data.read_rows(Path(dataset["file"]), dataset["sha256"], dataset["root"])
    origin = pack.Origin(job["run"], job["adapter"], base["ref"], dataset["ref"], recipe)

    first_row: list[data.Rendered] = []

    def on_rendered(rendered: data.Rendered) -> None:
        first_row.append(rendered)
        write({"phase": "training", "first_row": rendered.shown()})

    def publish(step: int, written: Path, tokens: int) -> None:
        pack.bundle(
            written,
            folder / "published" / f"step-{step}",
            repository=base["repository"],
            commit=base["commit"],
            readme=pack.card(origin, first_row[0].form, step, tokens),
        )

    meters = loop.train(
        loop.Job(
            recipe=recipe,
            base=Path(base["folder"]),
            rows=rows,
            device=where,
            work=folder,
            on_step=lambda record: write({**record, "steps": recipe.steps}),
            publish=publish,
            stopped=_stop_signal(),
            on_rendered=on_rendered,
        )
    )
    if meters is None:
        return None
    return {
        "meters": meters,
        "environment": device.environment(where),
        "first_row": first_row[0].kept(),
    }


def _evaluate(folder: Path, job: dict[str, Any], write: Write) -> dict[str, Any] | None:
    items = decode_prompts(Path(job["items"]).read_bytes())
    where = device.choose(None)
    device.be_deterministic()
    tokenizer = model.load_tokenizer(Path(job["model"]))
    adapter = Path(job["adapter"]) if job["adapter"] else None
    net = model.load_base(Path(job["model"]), where, adapter)
    effect = None
    if adapter:
        before = probe.logits(net, tokenizer, items)
        net = model.adapted(net, adapter)
        effect = probe.difference(before, probe.logits(net, tokenizer, items))
    subject = evaluate.Subject(net, tokenizer)
    stopped = _stop_signal()

    def progress(done: int, of: int) -> None:
        write({"done": done, "of": of})
        if stopped():
            raise _Stopped

    try:
        meters = evaluate.run(subject, items, job["decoding"], folder / "samples.jsonl", progress)
    except _Stopped:
        return None
    return {"meters": meters, "effect": effect, "environment": device.environment(where)}


def _stop_signal() -> Callable[[], bool]:
    """A function that is true once SIGTERM has arrived or the worker has ended."""
    parent = os.getppid()
    signals: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: signals.append(number))
    return lambda: bool(signals) or os.getppid() != parent


def _out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return "allocate memory" in str(error)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m trainer.job FOLDER")
    sys.exit(main(Path(sys.argv[1])))
