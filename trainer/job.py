"""The child process: one piece of work, from files to files. It knows no registry and holds no
token.

Training runs apart from the worker so that a crash, or the system's killing it for memory, ends one
piece of work and never the worker that has to report it. The folder is all they share: job.json in;
progress.jsonl, published/step-N, samples.jsonl, save points and outcome.json out.
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

from registry.artifacts.datasets.rows import decode_items
from registry.errors import RegistryError
from registry.rules import recipes
from trainer import data, device, evaluate, loop, model, pack
from trainer.exits import STOPPED

Tell = Callable[[dict[str, Any]], None]


def main(folder: Path) -> int:
    """Do the folder's work; 0 with outcome.json (meters or a named error), 75 when told to stop
    before the end.
    """
    with (folder / "lock").open("w") as lock:
        # A child whose worker was killed stops within a step; until then two would write the same
        # save points.
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
                "error": f"out-of-memory: {why}. Lower batch_size, max_length or rank, or adapt "
                "fewer layers."
            }
        if outcome is None:
            return STOPPED
        part = folder / "outcome.part"
        part.write_text(json.dumps(outcome), encoding="utf-8")
        part.rename(folder / "outcome.json")
        return 0


def quieten() -> None:
    """Keep the libraries' bars and deprecation notes out of the log; what matters is raised, not
    printed.
    """
    from transformers.utils import logging as noise

    noise.disable_progress_bar()
    noise.set_verbosity_error()
    warnings.simplefilter("ignore", FutureWarning)
    logging.getLogger("torch").setLevel(logging.ERROR)


class _Stopped(Exception):
    """Told to stop in the middle of a suite; eval runs are short and start again."""


def _do(folder: Path) -> dict[str, Any] | None:
    job = json.loads((folder / "job.json").read_text("utf-8"))
    with (folder / "progress.jsonl").open("a", buffering=1, encoding="utf-8") as progress:

        def tell(record: dict[str, Any]) -> None:
            progress.write(json.dumps(record) + "\n")

        tell({"phase": "loading"})
        return (
            _train(folder, job, tell) if job["kind"] == "training" else _evaluate(folder, job, tell)
        )


def _train(folder: Path, job: dict[str, Any], tell: Tell) -> dict[str, Any] | None:
    recipe = recipes.parse(job["recipe"])
    where = device.choose(recipe.dtype)
    rows = data.read_rows(
        Path(job["dataset"]["file"]), job["dataset"]["sha256"], job["dataset"]["root"]
    )

    def publish(step: int, written: Path, tokens: int) -> None:
        readme = pack.card(
            job["run"],
            job["adapter"],
            job["base"]["ref"],
            job["dataset"]["ref"],
            recipe,
            step,
            tokens,
        )
        pack.bundle(
            written,
            folder / "published" / f"step-{step}",
            line=job["base"]["line"],
            commit=job["base"]["commit"],
            readme=readme,
        )

    meters = loop.train(
        loop.Job(
            recipe=recipe,
            base=Path(job["base"]["folder"]),
            rows=rows,
            device=where,
            work=folder,
            on_step=lambda record: tell({**record, "steps": recipe.steps}),
            publish=publish,
            stopped=_stop_asked(),
        )
    )
    return None if meters is None else {"meters": meters, "environment": device.environment(where)}


def _evaluate(folder: Path, job: dict[str, Any], tell: Tell) -> dict[str, Any] | None:
    items = decode_items(Path(job["items"]).read_bytes())
    where = device.choose(None)
    device.be_deterministic()
    tokenizer = model.load_tokenizer(Path(job["base"]))
    net = model.load_base(Path(job["base"]), where)
    if job["adapter"]:
        net = model.adapted(net, Path(job["adapter"]))
    stopped = _stop_asked()

    def progress(done: int, of: int) -> None:
        tell({"done": done, "of": of})
        if stopped():
            raise _Stopped

    try:
        meters = evaluate.run(
            net, tokenizer, items, job["decoding"], folder / "samples.jsonl", progress
        )
    except _Stopped:
        return None
    return {"meters": meters, "environment": device.environment(where)}


def _stop_asked() -> Callable[[], bool]:
    """True from the moment that SIGTERM came, or that the worker which started this process is
    gone.
    """
    parent = os.getppid()
    asked = []
    signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
    return lambda: bool(asked) or os.getppid() != parent


def _out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(
        error
    )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m trainer.job FOLDER")
    sys.exit(main(Path(sys.argv[1])))
