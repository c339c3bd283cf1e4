"""`python -m registry`: the command line; `api` and `clock` are the processes `countersign up`
supervises.
"""

from __future__ import annotations

import sys
from contextlib import suppress

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of mallopt(3): how much may lie free before it is given back, and from how many bytes on each is
had by itself. Batches of uploads (1 MiB) stay below: had from the system one by one they were
measured at half the speed.
"""


def serve_api() -> int:
    """Serve HTTP until told to stop."""
    import gc

    import uvicorn

    from registry import log
    from registry.app import create_app
    from registry.settings import Settings

    settings = Settings()
    log.configure(settings.log_level)
    app = create_app(settings)
    # What is here now stays: were it looked through at each collection, parsing a stranger's JSON
    # would cost double.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)
    _give_memory_back()
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=5,
        server_header=False,
    )
    return 0


def _give_memory_back() -> None:
    """Have what was large go back to the system once it is free: glibc would keep it, for each of
    40 threads apart.

    Other C libraries know no such setting, and have no such habit.
    """
    import ctypes

    with suppress(AttributeError):
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 2 << 20)
        ctypes.CDLL(None).mallopt(M_TRIM_THRESHOLD, 16 << 20)


def run_clock() -> int:
    """Run the sequencer and the jobs until told to stop."""
    from registry import clock, log
    from registry.app import open_blobs, open_sequencer, open_store
    from registry.settings import Settings

    settings = Settings()
    log.configure(settings.log_level)
    store = open_store(settings)
    assert settings.database_url is not None  # open_store has refused otherwise
    return clock.run(settings.database_url, store, open_blobs(settings), open_sequencer(settings))


def main() -> None:
    """Run one of the supervised processes, or the command line; always ends by SystemExit."""
    match sys.argv[1:2]:
        case ["api"]:
            sys.exit(serve_api())
        case ["clock"]:
            sys.exit(run_clock())
        case _:
            from registry.cli import main as command_line

            command_line()


if __name__ == "__main__":
    main()
