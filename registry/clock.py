"""The clock process: the sequencer, and the worker that runs periodic and deferred jobs."""

from __future__ import annotations

import asyncio
import signal
import threading

from registry import jobs, log
from registry.blobs.store import Blobs
from registry.db.store import Store
from registry.sequencer import Sequencer


def run(url: str, store: Store, blobs: Blobs, sequencer: Sequencer) -> int:
    """Run the sequencer and the worker until SIGTERM or SIGINT; the exit status.

    The status is 8 when the sequencer has failed, as it does for a forked log, so that nobody
    overlooks it.
    """
    stop = threading.Event()
    failed: list[BaseException] = []

    def sequence() -> None:
        try:
            sequencer.run(stop)
        except BaseException as error:
            failed.append(error)
            stop.set()

    thread = threading.Thread(target=sequence, name="sequencer", daemon=True)
    thread.start()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    worker = threading.Thread(
        target=_work, args=(url, store, blobs, stop), name="jobs", daemon=True
    )
    worker.start()
    stop.wait()
    thread.join(timeout=10)
    worker.join(timeout=10)
    return 8 if failed else 0


def _work(url: str, store: Store, blobs: Blobs, stop: threading.Event) -> None:
    """Run the worker. Procrastinate needs an event loop; nothing else in this service does."""

    async def serve() -> None:
        app = jobs.build(url, store, blobs)
        async with app.open_async():
            task = asyncio.create_task(
                app.run_worker_async(
                    install_signal_handlers=False, delete_jobs="successful", concurrency=2
                )
            )
            while not stop.is_set() and not task.done():
                await asyncio.sleep(0.5)
            if task.done():
                task.result()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    while not stop.is_set():
        try:
            asyncio.run(serve())
        except Exception as error:
            log.LOGGER.warning("jobs wait: %s", error)
            stop.wait(2.0)
