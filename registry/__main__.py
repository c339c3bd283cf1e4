"""`python -m registry`: the command line.

`api` and `clock` run the processes that `countersign up` supervises.
"""

from __future__ import annotations

import sys
from contextlib import suppress

M_TRIM_THRESHOLD = -1
"""The parameter of mallopt(3) for the trim threshold."""
M_MMAP_THRESHOLD = -3
"""The parameter of mallopt(3) for the mmap threshold."""
TRIM_BYTES = 16 << 20
"""How many free bytes at the top of the heap make glibc return them to the system."""
MMAP_BYTES = 2 << 20
"""The size from which glibc maps a buffer by itself.

It is above the 1 MiB batches of uploads, because mapping each of those halved the measured speed.
"""


def serve_api(listener: int | None = None) -> int:
    """Serve HTTP until a signal stops the process; the exit status.

    `listener` is the number of a listening socket that the supervisor holds; without it, the host
    and port of the settings are bound.
    """
    import gc
    import socket

    import uvicorn

    from registry import log
    from registry.app import create_app
    from registry.settings import load

    settings = load()
    log.configure(settings.log_level)
    app = create_app(settings)
    # What is loaded by now stays loaded. Freezing it keeps collections from walking through it,
    # which would double the time to parse JSON.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)
    _return_large_buffers()
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=5,
        server_header=False,
    )
    sockets = None if listener is None else [socket.socket(fileno=listener)]
    server = uvicorn.Server(config)
    server.run(sockets=sockets)
    return 0 if server.started else 3


def _return_large_buffers() -> None:
    """Raise glibc's mmap and trim thresholds so that freed large buffers return to the system.

    Otherwise the arena of each of 40 threads keeps its own. Other C libraries have no such setting
    and do not need one.
    """
    import ctypes

    with suppress(AttributeError):
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, MMAP_BYTES)
        ctypes.CDLL(None).mallopt(M_TRIM_THRESHOLD, TRIM_BYTES)


def run_clock() -> int:
    """Run the sequencer and the jobs until a signal stops the process; the exit status."""
    from registry import clock, log
    from registry.app import open_blobs, open_sequencer, open_store
    from registry.settings import load

    settings = load()
    log.configure(settings.log_level)
    store = open_store(settings)
    assert settings.database_url is not None  # open_store has refused otherwise
    return clock.run(settings.database_url, store, open_blobs(settings), open_sequencer(settings))


def main() -> None:
    """Run a supervised process or the command line; always raises SystemExit."""
    from registry.errors import RegistryError

    try:
        match sys.argv[1:2]:
            case ["api"]:
                sys.exit(serve_api(int(sys.argv[2]) if len(sys.argv) > 2 else None))
            case ["clock"]:
                sys.exit(run_clock())
    except RegistryError as error:
        sys.exit(str(error))
    from registry.cli import main as command_line

    command_line()


if __name__ == "__main__":
    main()
