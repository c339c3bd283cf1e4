"""The fast weigher: one pass for the file's digest, each tensor's digest and largest number.

Two hashes of the same bytes, on two cores, take about the time of one, because hashlib and numpy
release the interpreter while they work. `tensors.weigh_plain` gives the same results more slowly; a
test compares the two.
"""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from registry.artifacts.weights.tensors import (
    File,
    Read,
    TensorInfo,
    Weigh,
    Weighed,
    fetch,
    largest_bits,
    weighed,
)

CHUNK = 4 << 20
"""Bytes read at once; a multiple of every element's size."""
MAX_WAITING_PIECES = 3
"""Pieces that may wait for a hash; they bound the memory in use, whatever the size of the file."""


def weigh(read: Read) -> Weigh:
    """The fast weigher over a blob store's `read`.

    It raises what `read` raises, and leaves no thread behind.
    """

    def weigh_file(file: File, tensors: Sequence[TensorInfo]) -> Weighed:
        return _weigh(file, sorted(tensors, key=lambda info: info.start), read)

    return weigh_file


def _weigh(file: File, ordered: list[TensorInfo], read: Read) -> Weighed:
    whole = hashlib.sha256()
    leaves = {info.name: hashlib.sha256() for info in ordered}
    largest = dict.fromkeys(leaves, 0)

    def inspect(info: TensorInfo, piece: bytes) -> None:
        leaves[info.name].update(piece)
        largest[info.name] = max(largest[info.name], largest_bits(info.dtype, piece))

    with _Worker(whole.update) as into_whole, _Worker(inspect) as into_leaf:
        for piece in _pieces(file, read, 0, ordered[0].start if ordered else file.size):
            into_whole(piece)
        for info in ordered:
            for piece in _pieces(file, read, info.start, info.end):
                into_whole(piece)
                into_leaf(info, piece)
    digests = {name: leaf.hexdigest() for name, leaf in leaves.items()}
    return weighed(whole.hexdigest(), digests, ordered, largest)


def _pieces(file: File, read: Read, start: int, end: int) -> Iterator[bytes]:
    for offset in range(start, end, CHUNK):
        yield fetch(file, read, offset, min(CHUNK, end - offset))


class _Worker:
    """Work done in order on a thread of its own, at most MAX_WAITING_PIECES pieces behind.

    The work is complete when the `with` block ends.
    """

    def __init__(self, work: Callable[..., object]) -> None:
        self._work = work
        self._queue: queue.Queue[tuple[object, ...] | None] = queue.Queue(MAX_WAITING_PIECES)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._error: Exception | None = None

    def _run(self) -> None:
        while (arguments := self._queue.get()) is not None:
            # After a failure the queue is only emptied, so that its sender does not wait forever.
            if self._error is None:
                try:
                    self._work(*arguments)
                except Exception as error:
                    self._error = error

    def __enter__(self) -> Callable[..., None]:
        self._thread.start()
        return lambda *arguments: self._queue.put(arguments)

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:  # the waiting pieces are no longer needed
            with suppress(queue.Empty):
                while True:
                    self._queue.get_nowait()
        self._queue.put(None)
        self._thread.join()
        if self._error is not None and kind is None:
            raise self._error
