"""Many clients pull one adapter at once: the server's memory and the throughput, beside a bare
FileResponse.

Servers are processes of their own under the same uvicorn, so that their memory is theirs alone; the
clients are bare sockets in one process, which costs next to nothing. Both servers are measured in
turn, in the same run.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from uuid import uuid4

from registry.artifacts.weights.tensors import File
from registry.blobs.store import Blobs
from registry.commands import tokens, versions
from registry.db import migrate
from registry.db.store import Store, open_engine
from registry.rules.actors import SYSTEM
from tests.benches.blobs import _free, peak, running
from tests.build import BASE_META, MODULE, Person, a_person, install_policies, put, register
from tests.checkout import repository
from tests.database import open_databases

AT_ONCE = int(os.environ.get("COUNTERSIGN_BENCH_PULLS", "200"))
MEGABYTES = int(os.environ.get("COUNTERSIGN_BENCH_PULL_MB", "40"))
RUNS = 3
BOUND_MB = 64
"""What the server may grow by from one pull to all of them at once."""


def many(port: int, target: str, token: str, count: int, size: int) -> float:
    """So many GETs at the same time, their bytes thrown away; seconds until the last one has all of
    it.
    """
    head = (
        f"GET {target} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\nAuthorization: Bearer "
        f"{token}\r\n\r\n"
    ).encode()
    came, room = dict[socket.socket, int](), bytearray(1 << 20)
    began = time.perf_counter()
    with selectors.DefaultSelector() as ready:
        for _ in range(count):
            line = socket.create_connection(("127.0.0.1", port))
            line.sendall(head)
            line.setblocking(False)
            came[line] = 0
            ready.register(line, selectors.EVENT_READ)
        while ready.get_map():
            came_in = ready.select(60)
            assert came_in, f"{len(ready.get_map())} of {count} got nothing for a minute"
            for key, _ in came_in:
                line = key.fileobj
                assert isinstance(line, socket.socket)
                if got := line.recv_into(room):
                    came[line] += got
                else:
                    ready.unregister(line)
                    line.close()
    assert all(size <= one < size + 4096 for one in came.values()), sorted(came.values())[:3]
    return time.perf_counter() - began


def pull(port: int, target: str, token: str, count: int, size: int) -> float:
    """`many`, in a process of its own."""
    words = [
        sys.executable,
        "-c",
        "import sys; from tests.benches.pulls import many; "
        "print(many(int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), "
        "int(sys.argv[5])))",
        str(port),
        target,
        token,
        str(count),
        str(size),
    ]
    return float(
        subprocess.run(words, cwd=repository(), capture_output=True, check=True, timeout=600).stdout
    )


def weights(blobs: Blobs, megabytes: int) -> File:
    """A safetensors file of one tensor, written in pieces."""
    size, side = megabytes << 20, 1024
    shape = [size // 4 // side, side]
    header = {f"{MODULE}.weight": {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}}
    text = json.dumps(header, separators=(",", ":")).encode()
    piece = bytes(range(64)) * (1 << 14)  # small positive floats
    stored = blobs.put([len(text).to_bytes(8, "little") + text, *(piece for _ in range(megabytes))])
    return File("model.safetensors", stored.sha256, stored.size)


def large(store: Store, blobs: Blobs, engineer: Person, name: str, megabytes: int) -> int:
    """Register a line with one file of so many megabytes; the file's size."""
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 1024,
        "seed": uuid4().hex,
    }
    files = [weights(blobs, megabytes), put(blobs, "config.json", json.dumps(config).encode())]
    register(store, blobs, engineer.actor, versions.Draft("base", name, files, BASE_META))
    return files[0].size


def run() -> None:
    """Print the growth of the server's memory from one pull to all at once, and both
    throughputs.
    """
    with (
        tempfile.TemporaryDirectory(prefix="cs") as home,
        open_databases(Path(home) / "pg") as databases,
    ):
        url = databases.create("pulls")
        migrate.upgrade(url)
        store, blobs = (
            Store(open_engine(url, "countersign_app")),
            Blobs(Path(home, "registry", "private", "blobs")),
        )
        install_policies(store)
        engineer = a_person(store, "engineer", team="bench")
        token = str(
            tokens.create(
                store, SYSTEM, tokens.TokenRequest(engineer.actor.name, ["engineer"], "bench", 1)
            ).token
        )
        size = large(store, blobs, engineer, "bench/large", MEGABYTES)
        store.engine.dispose()
        there, port, other = Path(home, "bare"), _free(), _free()
        there.mkdir()
        weights(Blobs(Path(home, "copy")), MEGABYTES)
        next(Path(home, "copy", "sha256").rglob("?" * 64)).rename(there / "large")
        environ = {
            "COUNTERSIGN_HOME": str(Path(home, "registry")),
            "COUNTERSIGN_DATABASE_URL": url,
            "COUNTERSIGN_PORT": str(port),
        }
        reference = [
            "-c",
            f"from tests.benches.blobs import *; bare(Path({str(there)!r}), {other})",
        ]
        with (
            running(["-m", "registry", "api"], port, environ) as server,
            running(reference, other, {}) as theirs,
        ):
            place = "/bench/large/resolve/v1/model.safetensors"
            for _ in range(2):
                pull(port, place, token, 1, size)
                pull(other, "/large", token, 1, size)
            before, bare_before = peak(server), peak(theirs)
            ours, files = [], []
            for _ in range(RUNS):
                ours.append(pull(port, place, token, AT_ONCE, size))
                files.append(pull(other, "/large", token, AT_ONCE, size))
            grew, bare_grew = peak(server) - before, peak(theirs) - bare_before
            print(
                f"{f'memory, {AT_ONCE} pulls of {MEGABYTES} MB at once':<44}{grew:>9.0f} MB more "
                "than for one   "
                f"bare FileResponse {bare_grew:.0f} MB   bound {BOUND_MB} MB"
            )
            mine, bare = statistics.median(ours), statistics.median(files)
            print(
                f"{'their throughput':<44}{AT_ONCE * MEGABYTES / mine:>9.0f} MB/s   bare "
                "FileResponse "
                f"{AT_ONCE * MEGABYTES / bare:.0f} MB/s   ratio {bare / mine:.2f}"
            )


if __name__ == "__main__":
    run()
