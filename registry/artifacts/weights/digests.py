"""Weights weighed in one pass: the file's digest, each tensor's, and a search for NaN and infinity,
side by side.

Two hashes of the same bytes cost two cores about the time of one, since hashlib and numpy let go of
the interpreter while they work. `tensors.weigh_plain` says the same, slower; a test holds the
two together.
"""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

import numpy as np

from registry.artifacts.weights import tensors as rules
from registry.artifacts.weights.tensors import (
    EXPONENTS,
    File,
    Read,
    TensorInfo,
    Weigh,
    Weighed,
    fetch,
)

CHUNK = 4 << 20
"""Bytes read at once; a multiple of every element's size."""
AHEAD = 3
"""Pieces that may wait for a hash: what is held in memory is this many pieces, whatever the size of
the file.
"""
BLOCK = 128 << 10
"""Bytes looked through at once: they, and what is computed of them, stay in a core's own cache."""


def weigh(read: Read) -> Weigh:
    """The fast weigher over a blob store's `read`; it raises what `read` raises, and leaves no
    thread behind.
    """

    def one(file: File, tensors: Sequence[TensorInfo]) -> Weighed:
        return _weigh(file, sorted(tensors, key=lambda info: info.start), read)

    return one


def _weigh(file: File, ordered: list[TensorInfo], read: Read) -> Weighed:
    whole = hashlib.sha256()
    leaves = {info.name: hashlib.sha256() for info in ordered}
    nonfinite: dict[str, None] = {}

    def look(info: TensorInfo, piece: bytes) -> None:
        leaves[info.name].update(piece)
        if info.name not in nonfinite and holds_nonfinite(info.dtype, piece):
            nonfinite[info.name] = None

    with _Behind(whole.update) as into_whole, _Behind(look) as into_leaf:
        for piece in _pieces(file, read, 0, ordered[0].start if ordered else file.size):
            into_whole(piece)
        for info in ordered:
            for piece in _pieces(file, read, info.start, info.end):
                into_whole(piece)
                into_leaf(info, piece)
    return Weighed(
        whole.hexdigest(),
        {name: leaf.hexdigest() for name, leaf in leaves.items()},
        tuple(nonfinite),
    )


def _pieces(file: File, read: Read, start: int, end: int) -> Iterator[bytes]:
    for at in range(start, end, CHUNK):
        yield fetch(file, read, at, min(CHUNK, end - at))


class _Behind:
    """Work done in a thread of its own, in order, at most AHEAD pieces behind; done when the `with`
    ends.
    """

    def __init__(self, work: Callable[..., object]) -> None:
        self._work = work
        self._given: queue.Queue[tuple[object, ...] | None] = queue.Queue(AHEAD)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._error: Exception | None = None

    def _run(self) -> None:
        while (given := self._given.get()) is not None:
            if (
                self._error is None
            ):  # after a failure only the queue is emptied, for its giver must not wait forever
                try:
                    self._work(*given)
                except Exception as error:
                    self._error = error

    def __enter__(self) -> Callable[..., None]:
        self._thread.start()
        return lambda *given: self._given.put(given)

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:  # what waits is of no use any more
            with suppress(queue.Empty):
                while True:
                    self._given.get_nowait()
        self._given.put(None)
        self._thread.join()
        if self._error is not None and kind is None:
            raise self._error


def holds_nonfinite(dtype: str, data: bytes) -> bool:
    """Is an element of these whole little-endian elements NaN or infinite? As
    `rules.tensors.holds_nonfinite`.
    """
    if dtype not in EXPONENTS:
        return rules.holds_nonfinite(dtype, data)
    size, top = EXPONENTS[dtype]
    elements = np.frombuffer(data, np.dtype(f"<u{size}"))
    mask = elements.dtype.type(top << 8 * (size - 2))
    step = BLOCK // size
    bits = np.empty(min(step, len(elements)), elements.dtype)
    for at in range(0, len(elements), step):
        block = elements[at : at + step]
        # All exponent bits set is the largest value they can have: one AND and one maximum, no
        # table of answers.
        if np.bitwise_and(block, mask, out=bits[: len(block)]).max() == mask:
            return True
    return False
