"""`python -m trainer.demo`: the main job on real input, from a base model to a verified log, step
by step.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable

from registry.errors import RegistryError, Unavailable
from trainer.demo import delivery, steps
from trainer.demo.stage import Refusal, Stage, open_stage
from trainer.demo.table import ending

STEPS: tuple[Callable[[Stage], None], ...] = (
    steps.fetch,
    steps.people,
    steps.base,
    steps.data,
    steps.training,
    steps.evaluation,
    steps.submission,
    steps.self_approval,
    steps.approval,
    delivery.canary,
    delivery.promotion,
    delivery.rollback,
    delivery.promotion_again,
    steps.recall,
    delivery.proof,
)
TRIES = 5


def run(stage: Stage) -> None:
    """Every step in order; one that loses the registry half-way waits for it and looks again what
    is done.
    """
    for number, step in enumerate(STEPS, 1):
        if number == 2:
            # The inputs need no registry: they were made while it started.
            seconds = stage.await_ready()
            stage.note("ready_seconds", stage.result.get("ready_seconds", round(seconds, 1)))
            stage.say(f"  The registry answered after {seconds:.1f} s.")
        stage.say(f"\n{number:2}/{len(STEPS)}  {' '.join((step.__doc__ or '').split())}")
        for attempt in range(1, TRIES + 1):
            try:
                with stage.recorded(step.__name__):
                    step(stage)
                break
            except (Unavailable, Refusal) as error:
                if (isinstance(error, Refusal) and error.status != 7) or attempt == TRIES:
                    raise
                stage.say(f"  The registry is away ({error}); waiting for it.")
                time.sleep(2.0)


def main() -> int:
    """Run the demo and keep serving until Ctrl-C; DEMO_EXIT=1 ends it after the table."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    try:
        stage = open_stage()
        began = time.monotonic()
        stage.say("Countersign: the main job, from a base model to a verified log.")
        try:
            with stage.recorded("up"):
                stage.start()
            run(stage)
            stage.note("last_run_seconds", round(time.monotonic() - began, 1))
            stage.note(
                "total_seconds", stage.result.get("total_seconds", stage.result["last_run_seconds"])
            )
            stage.say(ending(stage))
            if not stage.ends:
                stage.say(
                    f"\nServing until Ctrl-C. Console: {stage.url}/  Sign in with the token in "
                    f"{stage.home}/people/carla/token"
                )
                stop.wait()
        finally:
            stage.stop()
    except KeyboardInterrupt:
        print("\nStopped. The next run goes on from here.", file=sys.stderr)
        return 0 if stop.is_set() else 130
    except (RegistryError, Refusal) as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
