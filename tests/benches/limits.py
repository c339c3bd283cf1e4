"""Hostile bundles, senders and templates: CPU seconds and megabytes of the real server, and CPU
seconds of judging alone.

What bounds them is counted in tests/api/test_limits.py, tests/artifacts/bundles/test_costs.py and
tests/artifacts; here it is measured.
"""

from __future__ import annotations

import gc
import hashlib
import os
import resource
import secrets
import socket
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from registry.api import bytes as pieces
from registry.artifacts.bundles.judge import inspect
from registry.artifacts.methods import adapters
from registry.artifacts.methods.anatomies import anatomy
from registry.artifacts.tokenizers import sandbox
from registry.commands import tokens
from registry.db import migrate
from registry.db.store import Store, open_engine
from registry.rules.actors import SYSTEM
from tests.artifacts.bundle_files import declared
from tests.artifacts.tokenizers.templates import HOSTILE
from tests.assets.cases import Files, sound
from tests.assets.worst import WORST, like_gemma, matched
from tests.benches.blobs import _free, running
from tests.build import a_person, install_policies
from tests.database import open_databases

TICK = os.sysconf("SC_CLK_TCK")
MEGABYTES = 256
AT_ONCE = 8
BUNDLES = {name: make for name, (make, _) in WORST.items()} | {
    "the largest genuine tokenizer": lambda: sound() | {"tokenizer.json": like_gemma()}
}


@dataclass
class Server:
    """`python -m registry api` by its process id, and one engineer who sends it things."""

    pid: int
    client: httpx.Client
    token: str

    def cpu(self) -> float:
        """Seconds of CPU it used so far, all threads."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def peak(self) -> int:
        """The most megabytes it held at once since it started, or since `forget`."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) >> 10

    def forget(self) -> None:
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def body(self, files: Files) -> dict[str, Any]:
        """A request for this bundle, whose bytes are sent."""
        listed = []
        for path, content in files.items():
            digest = hashlib.sha256(content).hexdigest()
            self.client.put(f"/blobs/{digest}", content=content).raise_for_status()
            listed.append({"path": path, "sha256": digest, "size": len(content)})
        meta = {"licence": "x", "source": "x"}
        return {"name": f"bench/b{secrets.token_hex(4)}", "meta": meta, "files": listed}


def run() -> None:
    """Print a line a bundle: CPU of judging it, and CPU and memory of a server that is sent it;
    then crowds, templates, and the matching of names.
    """
    for name, make in BUNDLES.items():
        files = make()
        if (child := os.fork()) == 0:
            _judge(name, files)
            os._exit(0)
        os.waitpid(child, 0)
    with serving() as server:
        for name, make in BUNDLES.items():
            body = server.body(make())
            server.forget()
            before = server.cpu()
            server.client.post("/bases", json=body)
            _say(f"server: {name}", server.cpu() - before, server.peak())
        _crowd(server)
        _slow_senders(server)
    _templates()
    _matching()


def _say(name: str, seconds: float, megabytes: int) -> None:
    print(f"{name[:60]:<60}{seconds:>7.2f} s    bound 1 s{megabytes:>7} MB    bound {MEGABYTES} MB")


def _judge(name: str, files: Files) -> None:
    listed, read = declared(files)
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)
    began = time.process_time()
    inspect("base", listed, read, base=None, meta={})
    print(f"{name[:44]:<44}{time.process_time() - began:>9.2f} s    bound 1 s", flush=True)


@contextmanager
def serving() -> Iterator[Server]:
    with (
        tempfile.TemporaryDirectory(prefix="cs") as home,
        open_databases(Path(home) / "pg") as databases,
    ):
        url = databases.create("limits")
        migrate.upgrade(url)
        store = Store(open_engine(url, "countersign_app"))
        install_policies(store)
        name = a_person(store, "engineer", team="bench").actor.name
        token = str(
            tokens.create(store, SYSTEM, tokens.TokenRequest(name, ["engineer"], "bench", 1)).token
        )
        store.engine.dispose()
        port = _free()
        environ = {
            "COUNTERSIGN_HOME": str(Path(home, "registry")),
            "COUNTERSIGN_DATABASE_URL": url,
            "COUNTERSIGN_PORT": str(port),
        }
        with (
            running(["-m", "registry", "api"], port, environ) as process,
            httpx.Client(
                base_url=f"http://127.0.0.1:{port}/api/v1",
                headers={"Authorization": f"Bearer {token}"},
                timeout=120,
            ) as client,
        ):
            yield Server(process.pid, client, token)


def _crowd(server: Server) -> None:
    bodies = [server.body(make()) for make in list(BUNDLES.values())[-AT_ONCE:]]
    server.forget()
    with ThreadPoolExecutor(AT_ONCE) as crowd:
        list(crowd.map(lambda body: server.client.post("/bases", json=body), bodies))
    name = f"memory, {AT_ONCE} of them judged at once"
    print(f"{name:<44}{server.peak():>9} MB    bound {MEGABYTES} MB")


def _slow_senders(server: Server) -> None:
    server.forget()
    url, size = server.client.base_url, 4 << 20
    with ExitStack() as lines:
        for number in range(pieces.MAX_BODIES):
            line = lines.enter_context(closing(socket.create_connection((url.host, url.port))))
            line.sendall(
                f"PUT /api/v1/blobs/{number:064x} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n"
                f"Authorization: Bearer {server.token}\r\n\r\n".encode()
                + bytes((3 << 20) - 1)
            )
        server.client.get("/lines").raise_for_status()
        name = f"memory, {pieces.MAX_BODIES} senders who stop half-way"
        print(f"{name:<44}{server.peak():>9} MB    bound {MEGABYTES} MB")


def _templates() -> None:
    for name, template in sorted(HOSTILE.items()):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        began = time.process_time()
        sandbox.look({"default": template}, {})
        ours = time.process_time() - began
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        theirs = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        print(
            f"{f'template: {name}':<44}{theirs:>9.2f} s    bound 2 s    the service itself "
            f"{ours:.2f} s    largest child so far {after.ru_maxrss >> 10} MB    bound 256 MB"
        )


def _matching() -> None:
    shapes, keys = matched(2)
    whole = anatomy(shapes, {})
    least = {"LORA": {"r": 4, "lora_alpha": 8}, "LN_TUNING": {}}
    for kind, more in keys.items():
        config, _ = adapters.read_config({"peft_type": kind, **least[kind], **more})
        assert config is not None
        began = time.process_time()
        config.method.predict(config.values, whole)
        took = time.process_time() - began
        print(f"{f'{kind}, 11,400 modules, 4,090 names':<44}{took:>9.2f} s    bound 1 s")


if __name__ == "__main__":
    run()
