"""A real server killed in the middle of uploads, short of disk, or with its object store gone."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from registry.blobs.store import Blobs
from registry.client import Countersign, NewVersion, Progress
from registry.commands import tokens
from registry.db.store import Store
from registry.errors import Unavailable
from registry.rules.actors import SYSTEM
from tests.api.server import Server, serving
from tests.build import BASE_META, a_person, safetensors
from tests.commands.test_races import started
from tests.db.around import held

MB = 1 << 20


@pytest.fixture(scope="module")
def token(database: str, store: Store) -> str:
    person = a_person(store, "engineer", team="killed")
    return str(
        tokens.create(
            store, SYSTEM, tokens.TokenRequest(person.actor.name, ["engineer"], "killed", 1)
        ).token
    )


@pytest.fixture(scope="module")
def server(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server"), database) as one:
        yield one


def blobs(server: Server) -> Blobs:
    return Blobs(server.home / "private" / "blobs")


def a_file(folder: Path, megabytes: int) -> tuple[Path, str]:
    path, hasher = folder / "weights.bin", hashlib.sha256()
    with path.open("wb") as file:
        for _ in range(megabytes):
            piece = os.urandom(MB)
            hasher.update(piece)
            file.write(piece)
    return path, hasher.hexdigest()


class Killing(Progress):
    """Kills the server once so many bytes are sent, for each of the numbers, and starts it again a
    moment later.
    """

    def __init__(self, server: Server, at: list[int]) -> None:
        super().__init__()
        self.server, self.at, self.total, self.sent, self.starting = (
            server,
            at,
            0,
            0,
            threading.Thread(),
        )

    def __call__(self, n: int) -> None:
        self.total += n
        self.sent += max(n, 0)
        if self.at and self.total >= self.at[0]:
            self.at.pop(0)
            if self.starting.ident:
                self.starting.join()
            self.server.kill()
            self.starting = threading.Thread(target=self.server.start)
            self.starting.start()


def test_an_upload_outlives_its_server(
    server: Server, token: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the middle, and when all bytes were sent: one call of the client brings it home."""
    monkeypatch.setattr(
        "registry.client.blobs.PAUSES", (0.3,) * 2000
    )  # however slowly this machine starts a server
    path, digest = a_file(tmp_path, 40)
    watch = Killing(server, [12 * MB, 40 * MB])
    with Countersign(server.url, token) as registry:
        sent = registry.put_file(path, watch)
    watch.starting.join()
    assert not watch.at
    assert (sent.sha256, sent.size, watch.total) == (digest, 40 * MB, 40 * MB)
    assert blobs(server).verify(digest)
    # Less than two thirds more than once: what had arrived was not sent again.
    assert watch.sent < 40 * MB * 5 // 3


def test_the_same_command_goes_on_after_ctrl_c(server: Server, token: str, tmp_path: Path) -> None:
    path, digest = a_file(tmp_path, 24)
    script = (
        "import os, signal, sys\nfrom registry.client import Countersign\nsent = 0\n"
        # a suite run in the background inherits it ignored
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "def step(n):\n  global sent\n  sent += n\n  if sent >= 12 << 20: os.kill(os.getpid(), "
        "signal.SIGINT)\n"
        "Countersign(sys.argv[1], sys.argv[2]).put_file(sys.argv[3], step)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, server.url, token, str(path)], capture_output=True, text=True
    )
    assert done.returncode == -signal.SIGINT, done.stderr
    assert not blobs(server).has(digest)
    resumed: list[int] = []

    class Watch(Progress):
        def resumed(self, n: int) -> None:
            resumed.append(n)

    with Countersign(server.url, token) as registry:
        registry.put_file(path, Watch())
    assert 8 * MB <= sum(resumed) < 24 * MB
    assert blobs(server).verify(digest)


def test_a_full_disk_is_named_and_the_upload_goes_on_once_there_is_room(
    server: Server, token: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry.client.blobs.PAUSES", (0.05, 0.05))
    monkeypatch.setattr("registry.client.transport.PATIENCE", 0)
    path, digest = a_file(tmp_path, 12)
    small = tmp_path / "small"
    small.write_bytes(os.urandom(6 * MB))
    server.fill(5 * MB)
    with Countersign(server.url, token) as registry:
        with pytest.raises(Unavailable) as refusal:
            registry.put_file(path)
        assert refusal.value.kind == "upload-broken"
        assert "The blob store is full" in refusal.value.detail
        assert "Run the same command again" in refusal.value.fix
        assert 0 < refusal.value.facts["offset"] <= 5 * MB
        assert not registry.has_blob(digest)
        with pytest.raises(Unavailable) as refusal:
            registry.put_file(small)
        assert refusal.value.kind == "blobs-full"
        server.fill()
        registry.put_file(path)
        registry.put_file(small)
    assert blobs(server).verify(digest)


def a_base_folder(folder: Path) -> Path:
    folder.mkdir()
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    (folder / "model.safetensors").write_bytes(
        safetensors({"model.embed_tokens.weight": (64, 64)}, secrets.randbelow(99))
    )
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps({"version": "1.0", "model": {}}))
    return folder


def test_a_server_killed_between_the_last_byte_and_the_row(
    server: Server, token: str, store: Store, tmp_path: Path
) -> None:
    """First with all bytes sent and nothing asked, then with the rows written and not committed:
    nothing is to be seen, and the same command again registers it.
    """
    folder, name = a_base_folder(tmp_path / "base"), f"killed/base-{secrets.token_hex(4)}"

    def add() -> Any:
        with Countersign(server.url, token) as registry:
            return registry.add("base", folder, NewVersion(name, meta=BASE_META))

    def named() -> int:
        with store.read(SYSTEM) as session:
            rows = session.execute(
                text("select count(*) from line where team || '/' || name = :name"), {"name": name}
            )
            return int(rows.scalar_one())

    with Countersign(server.url, token) as registry:
        sent = [registry.put_file(path) for path in sorted(folder.iterdir())]
    server.kill()
    assert named() == 0
    server.start()
    with Countersign(server.url, token) as registry:
        assert all(
            registry.has_blob(one.sha256) for one in sent
        )  # what was sent is known as his, by a new process too
    with held(store) as database:
        adding = started(add)
        database.until_waiting(1)
        server.kill()
        outcome = adding.result(60)
        assert isinstance(outcome, Unavailable), outcome
    assert named() == 0
    server.start()
    again = add()
    assert (again.ref, again.status, named()) == (f"{name}@v1", "registered", 1)
    assert all(blobs(server).verify(one.sha256) for one in sent)
