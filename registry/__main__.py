"""`python -m registry`: the command line; `api` and `clock` are the processes `countersign up`
supervises.
"""

from __future__ import annotations

import sys
from contextlib import suppress

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt(3)."""
TRIM_BYTES = 16 << 20
"""Free bytes at the top of the heap from which on glibc returns them to the system."""
MMAP_BYTES = 2 << 20
"""Size from which on a buffer is mapped by itself. Above the 1 MiB batches of uploads: mapping
each of those halved the measured speed.
"""


def serve_api() -> int:
    """Serve HTTP until told to stop."""
    import gc

    import uvicorn

    from registry import log
    from registry.app import create_app
    from registry.settings import load

    settings = load()
    log.configure(settings.log_level)
    app = create_app(settings)
    # Everything loaded so far stays. Without freezing it, each collection would walk through it,
    # and parsing JSON would take twice as long.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)
    _return_large_buffers()
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


def _return_large_buffers() -> None:
    """Set glibc's mmap and trim thresholds so that large buffers return to the system when they are
    freed; otherwise the arena of each of 40 threads keeps its own.

    Other C libraries have no such setting and do not need it.
    """
    import ctypes

    with suppress(AttributeError):
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, MMAP_BYTES)
        ctypes.CDLL(None).mallopt(M_TRIM_THRESHOLD, TRIM_BYTES)


def run_clock() -> int:
    """Run the sequencer and the jobs until told to stop."""
    from registry import clock, log
    from registry.app import open_blobs, open_sequencer, open_store
    from registry.settings import load

    settings = load()
    log.configure(settings.log_level)
    store = open_store(settings)
    assert settings.database_url is not None  # open_store has refused otherwise
    return clock.run(settings.database_url, store, open_blobs(settings), open_sequencer(settings))


def main() -> None:
    """Run one of the supervised processes, or the command line; always ends by SystemExit."""
    from registry.errors import RegistryError

    try:
        match sys.argv[1:2]:
            case ["api"]:
                sys.exit(serve_api())
            case ["clock"]:
                sys.exit(run_clock())
    except RegistryError as error:
        sys.exit(str(error))
    from registry.cli import main as command_line

    command_line()


if __name__ == "__main__":
    main()
