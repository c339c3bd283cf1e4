"""`python -m trainer worker` and `python -m trainer engine`: the trainer's two programs.

COUNTERSIGN_URL and COUNTERSIGN_TOKEN name the registry and the token. The worker also reads
COUNTERSIGN_MLFLOW_URL; without it, it reports to the MLflow server of the registry, if any. Both
keep their files in COUNTERSIGN_HOME unless an option names another folder.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

from registry.errors import RegistryError


def main(arguments: list[str] | None = None) -> int:
    """Run one of the two programs and return its exit status.

    It is 0 at a normal end, and 1 with one line on stderr after a refusal.
    """
    parser = argparse.ArgumentParser(prog="python -m trainer", description=__doc__)
    home = Path(os.environ.get("COUNTERSIGN_HOME") or "~/.countersign").expanduser()
    verbs = parser.add_subparsers(dest="verb", required=True)
    worker = verbs.add_parser("worker", help="lease training and eval runs and do them")
    worker.add_argument("--once", action="store_true", help="end when there is no work left")
    worker.add_argument(
        "--work-dir",
        type=Path,
        default=home / "trainer",
        help="the folder of save points, cache and signing key",
    )
    worker.add_argument(
        "--poll", type=float, default=0.5, help="seconds between two questions for work"
    )
    engine = verbs.add_parser("engine", help="serve a base and its adapters")
    engine.add_argument(
        "--base",
        default=os.environ.get("COUNTERSIGN_ENGINE_BASE"),
        help="the base's reference; by default, the base of the first route in production",
    )
    engine.add_argument("--port", type=int, default=8100, help="the port to listen on")
    engine.add_argument(
        "--cache", type=Path, default=home / "engine", help="the folder that keeps the base"
    )
    engine.add_argument(
        "--allow", type=Path, default=home, help="the folder that adapters may be loaded from"
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(format="%(asctime)s %(name)s %(levelname)s %(message)s", level=logging.INFO)
    # A line for every heartbeat would hide the rest.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        # Imported here, so that the worker never loads torch.
        if options.verb == "worker":
            from trainer.worker import main as work

            work(options.work_dir.absolute(), options.poll, once=options.once)
        else:
            from trainer.engine import main as serve

            serve(options.base, options.port, options.cache.absolute(), options.allow.absolute())
    except RegistryError as error:
        print(f"trainer: {error}", file=sys.stderr)  # noqa: T201 - the command's last line
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
