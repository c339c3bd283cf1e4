"""How long a registration and a vote take, beside another checkout of this repository.

`COUNTERSIGN_BENCH_BEFORE=/path/to/checkout make bench` compares: that checkout, with a virtual
environment of its own in `.venv`, does the same work in a process and a database of its own, in
turn with ours. Without it there is nothing to compare with, and only our medians are printed.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

RUNS = int(os.environ.get("COUNTERSIGN_BENCH_REGISTERING", "30"))
BEFORE = os.environ.get("COUNTERSIGN_BENCH_BEFORE")
WORK = (
    "register a base",
    "register an adapter",
    "the same adapter again",
    "register an adapter over REST",
    "vote",
)


def works(url: str, home: str) -> Iterator[dict[str, Callable[[], float]]]:
    """By name: do it once, on new bytes, and say how many seconds it took."""
    from registry.commands import versions
    from registry.db import migrate
    from tests.api.conftest import opened
    from tests.build import (
        ADAPTER_META,
        BASE_META,
        MODULE,
        a_world,
        adapter_files,
        evaluate,
        install_policies,
        put,
        safetensors,
        sent,
        submit,
        train,
        vote,
    )

    migrate.upgrade(url)
    with opened(url, Path(home)) as door:
        store, blobs = door.store, door.blobs
        install_policies(store)
        world = a_world(store, blobs, "bench")
        train(world)
        evaluate(world, world.base.ref, 5)
        evaluate(world, world.versions[-1], 50)
        engineer = world.engineer.actor
        numbers = iter(range(1000, 1_000_000))
        last: list[versions.Draft] = []
        meta = {**ADAPTER_META, "domain": "legal"}

        def register(draft: versions.Draft, expected: str = "registered") -> float:
            sent(store, engineer, *(file.sha256 for file in draft.files))
            began = time.perf_counter()
            added = versions.register(store, blobs, engineer, draft)
            seconds = time.perf_counter() - began
            assert added.status == expected, added
            return seconds

        def base() -> float:
            shapes = {f"{MODULE}.weight": (8, 8), "model.norm.weight": (8,)}
            config = b'{"model_type":"llama","architectures":["LlamaForCausalLM"],"hidden_size":8}'
            files = [
                put(blobs, "model.safetensors", safetensors(shapes, next(numbers))),
                put(blobs, "config.json", config),
                put(blobs, "tokenizer.json", b'{"version":"1.0","model":{}}'),
            ]
            return register(versions.Draft("base", "bench/bases", files, BASE_META))

        def adapter() -> float:
            files = adapter_files(blobs, next(numbers))
            last[:] = [versions.Draft("adapter", "bench/adapters", files, meta, world.base.ref)]
            return register(last[0])

        def rest() -> float:
            files = adapter_files(blobs, next(numbers))
            sent(store, engineer, *(file.sha256 for file in files))
            body = {
                "name": "bench/rest",
                "files": [
                    {"path": file.path, "sha256": file.sha256, "size": file.size} for file in files
                ],
                "meta": meta,
                "base": world.base.ref,
            }
            token = {"Authorization": f"Bearer {door.token(world.engineer)}"}
            began = time.perf_counter()
            answer = door.client.post("/api/v1/adapters", json=body, headers=token)
            seconds = time.perf_counter() - began
            assert answer.status_code == 201, answer.text
            return seconds

        def voted() -> float:
            submit(world, world.versions[-1])
            began = time.perf_counter()
            vote(world, world.compliance, "reject")
            return time.perf_counter() - began

        yield dict(
            zip(
                WORK,
                (base, adapter, lambda: register(last[0], "found"), rest, voted),
                strict=True,
            )
        )


def serve(url: str, home: str) -> None:
    """Do what each line of stdin names, and answer with its seconds on a line of stdout."""
    for work in works(url, home):
        print("ready", flush=True)
        for line in sys.stdin:
            print(work[line.strip()](), flush=True)


@contextmanager
def worker(checkout: Path, url: str) -> Iterator[Callable[[str], float]]:
    """A process that works on a checkout's own code."""
    with tempfile.TemporaryDirectory(prefix="cs") as home:
        process = subprocess.Popen(
            [str(checkout / ".venv" / "bin" / "python"), "-P", __file__, url, home],
            cwd=checkout,
            env={**os.environ, "PYTHONPATH": str(checkout)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        given, told = process.stdin, process.stdout

        def ask(name: str) -> float:
            given.write(name + "\n")
            given.flush()
            return float(told.readline())

        try:
            ready = told.readline().strip()
            assert ready == "ready", ready
            yield ask
        finally:
            given.close()
            process.wait(60)
            told.close()


def run() -> None:
    """Print the median of each work, and the ratio to the other checkout where one is named."""
    from tests.checkout import repository
    from tests.database import open_databases

    checkouts = [repository(), *([Path(BEFORE)] if BEFORE else [])]
    with (
        tempfile.TemporaryDirectory(prefix="cs") as home,
        open_databases(Path(home)) as databases,
        ExitStack() as stack,
    ):
        workers = [
            stack.enter_context(worker(checkout, databases.create(f"registering_{number}")))
            for number, checkout in enumerate(checkouts)
        ]
        for name in WORK:
            pairs = []
            for number in range(RUNS):
                # Who goes first changes each time; what is done again was done just before.
                order = range(len(workers)) if number % 2 else reversed(range(len(workers)))
                seconds = dict.fromkeys(range(len(workers)), 0.0)
                for place in order:
                    if name == WORK[2]:
                        workers[place](WORK[1])
                    seconds[place] = workers[place](name)
                pairs.append(tuple(seconds.values()))
            medians = [statistics.median(column) * 1000 for column in zip(*pairs, strict=True)]
            line = f"{name:<44}{medians[0]:>9.1f} ms"
            if len(medians) > 1:
                ratio = statistics.median(ours / before for ours, before in pairs)
                line += f"   before {medians[1]:.1f} ms   ratio {ratio:.2f}"
            print(line, flush=True)


if __name__ == "__main__":
    serve(*sys.argv[1:])
