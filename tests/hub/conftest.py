"""The real server, and the real clients in processes of their own."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from registry.commands import rollouts
from tests.api.conftest import Door, opened
from tests.build import World, a_world, approved, install_policies
from tests.checkout import repository
from tests.database import Databases

PEERS = {"2.4": None, "1.5": "huggingface_hub==1.5.*", "0.36": "huggingface_hub==0.36.0"}


@pytest.fixture(scope="package")
def door(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    name = f"hub_{secrets.token_hex(4)}"
    url = databases.migrated(name)
    with opened(url, tmp_path_factory.mktemp("hub")) as one:
        install_policies(one.store)
        yield one
    databases.drop(name)


@pytest.fixture(scope="module")
def served(door: Door) -> World:
    """A team whose adapter's second version is stable in production; its first is merely
    registered.
    """
    world = a_world(door.store, door.blobs, f"t{secrets.token_hex(4)}")
    ref = approved(world)
    rollouts.start(
        door.store,
        world.engineer.actor,
        rollouts.Canary(ref, "production", None, 500, "first traffic"),
    )
    rollouts.promote(
        door.store,
        world.engineer.actor,
        rollouts.Place(f"{world.team}/adapter", "production", None),
        "it went well",
    )
    return world


def peer(version: str) -> Path | None:
    """Where a client's version is installed, beside the main one; kept between runs."""
    wanted = PEERS[version]
    if wanted is None:
        return None
    place = repository() / ".venv" / "peers" / f"hf-{version}"
    place.mkdir(parents=True, exist_ok=True)
    with (place.parent / f"{version}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not any(place.glob("huggingface_hub-*.dist-info")):
            command = [sys.executable, "-m", "pip", "install", "-q", "--target", str(place), wanted]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                pytest.fail(f"huggingface_hub {version} cannot be installed: {done.stderr[-500:]}")
    return place


# Reads one piece of Python a line, and answers with what `out` then is: what a client imports is
# imported once.
LOOP = """
import json, sys, traceback
space = {}
for line in sys.stdin:
    space.pop("out", None)
    try:
        exec(json.loads(line), space)
        said = {"out": space.get("out")}
    except BaseException:
        said = {"failed": traceback.format_exc()}
    print("\\n@" + json.dumps(said), flush=True)
"""

# Not *: the lazy names bring all there is, torch included.
HUB = """
import json, os, huggingface_hub as hub
from huggingface_hub import HfApi, hf_hub_download, hf_hub_url, snapshot_download
assert hub.__version__.startswith({version!r}), hub.__version__
api = HfApi()
"""


class Session:
    """A foreign client in a process of its own: it knows the endpoint, a home, and a token at a
    time.
    """

    def __init__(self, endpoint: str, home: Path, python_path: str = "") -> None:
        home.mkdir(exist_ok=True)
        env = {
            **os.environ,
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(home),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "OMP_NUM_THREADS": "2",
            "PYTHONPATH": python_path,
        }
        self.errors = (home / "stderr").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-c", LOOP],
            env=env,
            cwd=home,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
        )

    def run(self, script: str, token: str = "") -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        script = f"import os; os.environ['HF_TOKEN'] = {token!r}\n{script}" if token else script
        print(json.dumps(script), file=self.process.stdin, flush=True)
        while not (said := self.process.stdout.readline()).startswith("@"):
            assert said or self.process.poll() is None, "the client died"
        answer = json.loads(said[1:])
        assert "failed" not in answer, answer["failed"]
        return answer["out"]

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        ended = self.process.wait(120)
        self.process.stdout.close()
        self.errors.close()
        assert ended == 0


Run = Callable[..., Any]


@pytest.fixture(scope="package")
def sessions(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Path, dict[tuple[str, str], Session]]]:
    """Where the clients' homes are, one a version, and their processes, one a version and
    endpoint.
    """
    opened = dict[tuple[str, str], Session]()
    yield tmp_path_factory.mktemp("clients"), opened
    for one in opened.values():
        one.close()


@pytest.fixture(scope="module")
def client(door: Door, sessions: tuple[Path, dict[tuple[str, str], Session]]) -> Run:
    """Run a script with one version of the client; what it sets as `out` comes back.

    Its cache is that of its version; with `fresh`, a new process stands before it.
    """
    homes, opened = sessions

    def run(
        version: str, token: str, script: str, *, endpoint: str = "", fresh: bool = False
    ) -> Any:
        key = (version, endpoint or door.url)
        if fresh and key in opened:
            opened.pop(key).close()
        if key not in opened:
            opened[key] = Session(key[1], homes / f"hf-{version}", str(peer(version) or ""))
            opened[key].run(HUB.format(version=version))
        found = opened[key].run(script, token)
        if endpoint:
            opened.pop(key).close()
        return found

    return run


def get(door: Door, token: str, path: str, method: str = "GET", **more: Any) -> httpx.Response:
    """One request in the dialect."""
    headers = {"Authorization": f"Bearer {token}", **more.pop("headers", {})}
    return door.client.request(method, path, headers=headers, **more)


def raw(
    door: Door, token: str, method: str, target: str, headers: dict[str, str], body: bytes
) -> tuple[int, bytes, bytes]:
    """Status, head and body of a request whose target is sent as it stands: no client tidies it
    first.
    """
    told = {"Host": "x", "Connection": "close", "Authorization": f"Bearer {token}", **headers}
    if method == "POST":
        told["Content-Length"] = str(len(body))
    head = (
        f"{method} {target} HTTP/1.1\r\n"
        + "".join(f"{name}: {value}\r\n" for name, value in told.items())
        + "\r\n"
    )
    answer = b""
    with socket.create_connection(("127.0.0.1", int(door.url.rpartition(":")[2])), 20) as line:
        line.sendall(head.encode("utf-8") + (body if method == "POST" else b""))
        while piece := line.recv(65536):
            answer += piece
    top, _, rest = answer.partition(b"\r\n\r\n")
    return int(top.split()[1]), top, rest
