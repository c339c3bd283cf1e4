"""The one pass over weights, against one bare SHA-256 pass over the same file; and the header check
by itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from registry.artifacts.weights.digests import weigh
from registry.artifacts.weights.headers import parse_header
from registry.artifacts.weights.tensors import File
from registry.blobs.store import Blobs
from tests.benches import RUNS

MEGABYTES = int(os.environ.get("COUNTERSIGN_BENCH_MB", "1024"))
TENSORS = 290


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall seconds, and CPU seconds of all threads."""
    wall, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    work()
    after = resource.getrusage(resource.RUSAGE_SELF)
    return (
        time.perf_counter() - wall,
        after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
    )


def _header(tensors: int, elements: int) -> bytes:
    side = elements * 2
    table = {
        f"model.layers.{n}.mlp.down_proj.weight": {
            "dtype": "BF16",
            "shape": [elements],
            "data_offsets": [n * side, (n + 1) * side],
        }
        for n in range(tensors)
    }
    text = json.dumps(table, separators=(",", ":")).encode()
    return len(text).to_bytes(8, "little") + text


def run() -> None:
    """Print both ratios and their bounds (CPU 2.6, wall 1.5), and the header's milliseconds."""
    with tempfile.TemporaryDirectory() as folder:
        elements = (MEGABYTES << 20) // 2 // TENSORS
        blobs = Blobs(Path(folder))
        noise = np.random.default_rng(0)

        def content() -> object:
            yield _header(TENSORS, elements)
            for _ in range(TENSORS):
                yield (
                    (noise.standard_normal(elements, np.float32).view("<u4") >> 16)
                    .astype("<u2")
                    .tobytes()
                )

        stored = blobs.put(content())
        file = File("model.safetensors", stored.sha256, stored.size)
        infos = parse_header(file, blobs.read).tensors
        path = next(Path(folder).glob("sha256/*/*/*"))

        def bare() -> None:
            with path.open("rb") as source:
                hashlib.file_digest(source, "sha256")

        bare()
        pairs = [
            (_timed(lambda: weigh(blobs.read)(file, infos)), _timed(bare)) for _ in range(RUNS)
        ]
        ours, theirs = (
            [statistics.median(column) for column in zip(*side, strict=True)]
            for side in zip(*pairs, strict=True)
        )
        for which, mine, other, bound in zip(
            ("wall", "CPU"), ours, theirs, (1.5, 2.6), strict=True
        ):
            print(
                f"{f'weigh {MEGABYTES} MB, {which}':<44}{mine:>9.2f} s    one SHA-256 pass "
                f"{other:.2f} s   "
                f"ratio {mine / other:.2f}   bound {bound}"
            )
    for count in (448, 20_000):
        print(
            f"{f'header check, {count} tensors':<44}{_checked(count) * 1000:>9.1f} ms   bound "
            f"{3 * count / 448:.0f} ms"
        )


def _checked(count: int) -> float:
    data = _header(count, 8) + bytes(count * 16)
    file = File("f", hashlib.sha256(data).hexdigest(), len(data))

    def check() -> object:
        return parse_header(file, lambda _, start, length: data[start : start + length])

    return statistics.median(_timed(check)[0] for _ in range(RUNS))
