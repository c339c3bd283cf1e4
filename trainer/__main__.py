"""`python -m trainer worker` and `python -m trainer engine`: which registry and whose token comes
from the environment.

COUNTERSIGN_URL and COUNTERSIGN_TOKEN; for the worker also COUNTERSIGN_MLFLOW_URL, if there is an
MLflow server. COUNTERSIGN_HOME is where either keeps its files unless told otherwise.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

from registry.errors import RegistryError


def main(arguments: list[str] | None = None) -> int:
    """Run one of the two; 0 when it ended as asked, 1 with one line on stderr when the registry
    said no.
    """
    parser = argparse.ArgumentParser(prog="python -m trainer", description=__doc__)
    home = Path(os.environ.get("COUNTERSIGN_HOME") or "~/.countersign").expanduser()
    verbs = parser.add_subparsers(dest="verb", required=True)
    worker = verbs.add_parser("worker", help="lease training and eval runs and do them")
    worker.add_argument("--once", action="store_true", help="end when there is no work left")
    worker.add_argument(
        "--work-dir", type=Path, default=home / "trainer", help="save points, cache and signing key"
    )
    worker.add_argument("--poll", type=float, default=0.5, help="seconds between asking for work")
    engine = verbs.add_parser("engine", help="serve a base and its adapters")
    engine.add_argument(
        "--base",
        default=os.environ.get("COUNTERSIGN_ENGINE_BASE"),
        help="its reference; without one, the base of the first route in production",
    )
    engine.add_argument("--port", type=int, default=8100)
    engine.add_argument(
        "--cache", type=Path, default=home / "engine", help="where the base is kept"
    )
    engine.add_argument(
        "--allow", type=Path, default=home, help="adapters are loaded from under this folder only"
    )
    given = parser.parse_args(arguments)
    logging.basicConfig(format="%(asctime)s %(name)s %(levelname)s %(message)s", level=logging.INFO)
    logging.getLogger("httpx").setLevel(
        logging.WARNING
    )  # a line for every beat would bury the rest
    try:
        # Imported here, so that the worker never loads torch.
        if given.verb == "worker":
            from trainer.worker import main as work

            work(given.work_dir.absolute(), given.poll, once=given.once)
        else:
            from trainer.engine import main as serve

            serve(given.base, given.port, given.cache.absolute(), given.allow.absolute())
    except RegistryError as error:
        print(f"trainer: {error}", file=sys.stderr)  # noqa: T201 - what a command says before it ends
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
