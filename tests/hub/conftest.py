"""The real server, and the real clients in processes of their own."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from registry.commands import rollouts
from registry.db import migrate
from tests.api.conftest import Door, opened
from tests.build import World, a_world, approved, install_policies, repository
from tests.database import Databases

PEERS = {"2.4": None, "1.5": "huggingface_hub==1.5.*", "0.36": "huggingface_hub==0.36.0"}


@pytest.fixture(scope="package")
def door(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    name = f"hub_{secrets.token_hex(4)}"
    url = databases.create(name)
    migrate.upgrade(url)
    with opened(url, tmp_path_factory.mktemp("hub")) as one:
        install_policies(one.store)
        yield one
    databases.drop(name)


@pytest.fixture(scope="module")
def served(door: Door) -> World:
    """A team whose adapter's second version is stable in production; its first is merely registered."""
    world = a_world(door.store, door.blobs, f"t{secrets.token_hex(4)}")
    ref = approved(world)
    rollouts.start(door.store, world.engineer.actor, ref, "production", None, 500, "first traffic")
    rollouts.promote(door.store, world.engineer.actor, f"{world.team}/adapter", "production", None, "it went well")
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


Run = Callable[..., Any]


@pytest.fixture
def client(door: Door, tmp_path: Path) -> Run:
    """Run a script with one version of the client; it sets `out`, which comes back."""

    def run(version: str, token: str, script: str, *, endpoint: str = "", cache: Path | None = None) -> Any:
        place = peer(version)
        env = {**os.environ, "HF_ENDPOINT": endpoint or door.url, "HF_TOKEN": token,
               "HF_HOME": str(cache or tmp_path / f"hf-{version}"),
               "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1",
               "OMP_NUM_THREADS": "1", "PYTHONPATH": str(place or "")}  # fmt: skip
        whole = (
            # Not *: the lazy names bring all there is, torch included.
            "import json, os, huggingface_hub as hub\n"
            "from huggingface_hub import HfApi, hf_hub_download, hf_hub_url, snapshot_download\napi = HfApi()\n"
            f"assert hub.__version__.startswith({version!r}), hub.__version__\n{script}\nprint('\\n@' + json.dumps(out))"
        )
        done = subprocess.run([sys.executable, "-c", whole], env=env, cwd=tmp_path, capture_output=True, text=True,
                              timeout=100)  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.rpartition("@")[2])

    return run


def get(door: Door, token: str, path: str, method: str = "GET", **more: Any) -> httpx.Response:
    """One request in the dialect."""
    headers = {"Authorization": f"Bearer {token}", **more.pop("headers", {})}
    return door.client.request(method, path, headers=headers, **more)
