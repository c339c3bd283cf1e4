"""Everything on S3: bytes in, resumed, registered, and out again by the storage's own address,
without our token.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from registry.client import Countersign, NewVersion, Progress
from tests import s3 as storages
from tests.api.conftest import Door, opened
from tests.build import MODULE, Person, a_base, a_person, install_policies, safetensors
from tests.database import Databases
from tests.hub.conftest import Run

MB = 1 << 20


@pytest.fixture(scope="module")
def storage() -> Iterator[storages.ObjectStorage]:
    """One of this module's own, for its last test ends it."""
    with storages.serving() as one:
        yield one


class Line(socketserver.ThreadingTCPServer):
    """What stands before the storage: passes every byte on, and keeps what was asked."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Passing)
        self.port, self.asked = port, bytearray()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def heads(self) -> list[bytes]:
        """The head of every request that begins with its method."""
        return re.findall(rb"(?:GET|HEAD|PUT|POST|DELETE) /[^\r]*\r\n(?:[^\r]+\r\n)*", self.asked)


class _Passing(socketserver.BaseRequestHandler):
    server: Line

    def handle(self) -> None:
        try:
            with socket.create_connection(("127.0.0.1", self.server.port)) as there:
                back = threading.Thread(target=self._copy, args=(there, self.request, False))
                back.start()
                self._copy(self.request, there, True)
                back.join()
        except OSError:
            return  # the storage is gone: so is the line

    def _copy(self, source: socket.socket, target: socket.socket, keep: bool) -> None:
        with suppress(OSError):
            while piece := source.recv(65536):
                if keep:
                    self.server.asked += piece
                target.sendall(piece)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)


@pytest.fixture(scope="module")
def seen(storage: storages.ObjectStorage) -> Iterator[Line]:
    with Line(storage.port) as line:
        thread = threading.Thread(target=line.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield line
        line.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def door(
    databases: Databases,
    storage: storages.ObjectStorage,
    seen: Line,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Door]:
    name = f"s3_{secrets.token_hex(4)}"
    url = databases.migrated(name)
    with pytest.MonkeyPatch.context() as environ:
        for key, value in {**storage.environ, "AWS_ENDPOINT": seen.url}.items():
            environ.setenv(key, value)
        home = tmp_path_factory.mktemp("s3")
        with opened(url, home, blob_url=storage.bucket(), max_blob_bytes=64 * MB) as one:
            install_policies(one.store)
            yield one
    databases.drop(name)


@pytest.fixture(scope="module")
def engineer(door: Door) -> Person:
    return a_person(door.store, "engineer", team="s3")


@pytest.fixture(scope="module")
def adapter(
    door: Door, engineer: Person, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    """A version added by the client, and the folder it came from."""
    base = a_base(door.store, door.blobs, engineer, "s3")
    folder = tmp_path_factory.mktemp("adapter")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": 2,
        "lora_alpha": 4,
        "target_modules": ["q_proj"],
        "bias": "none",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    tensors = {
        f"base_model.model.{MODULE}.lora_A.weight": (2, 8),
        f"base_model.model.{MODULE}.lora_B.weight": (8, 2),
    }
    (folder / "adapter_model.safetensors").write_bytes(safetensors(tensors))
    with Countersign(door.url, door.token(engineer)) as registry:
        return registry.add(
            "adapter", folder, NewVersion("s3/adapter", base=base.ref, domain="legal")
        ).ref, folder


def test_what_was_added_is_pulled_and_verifies(
    door: Door, engineer: Person, adapter: tuple[str, Path], tmp_path: Path
) -> None:
    ref, folder = adapter
    with Countersign(door.url, door.token(engineer)) as registry:
        registry.pull(ref, tmp_path / "back")
        assert registry.verify(ref).ok
    assert (tmp_path / "back" / "adapter_model.safetensors").read_bytes() == (
        folder / "adapter_model.safetensors"
    ).read_bytes()


def test_a_large_file_goes_on_after_a_cut(door: Door, engineer: Person, tmp_path: Path) -> None:
    path, total, resumed = tmp_path / "weights.bin", [0], [0]
    path.write_bytes(os.urandom(14 * MB))

    def cut(n: int) -> None:
        total.append(n)
        if sum(total) >= 11 * MB:
            raise KeyboardInterrupt

    class Watch(Progress):
        def resumed(self, n: int) -> None:
            resumed.append(n)

    with Countersign(door.url, door.token(engineer)) as registry:
        with pytest.raises(KeyboardInterrupt):
            registry.put_file(path, cut)
        sent = registry.put_file(path, Watch())
        assert 8 * MB <= sum(resumed) < 14 * MB
        assert registry.get_blob(sent.sha256, tmp_path / "back").read_bytes() == path.read_bytes()
    assert door.blobs.verify(sent.sha256)
    assert door.blobs.size(sent.sha256) == 14 * MB
    assert door.blobs.sweep(lambda digest: digest != sent.sha256, timedelta(seconds=-60)) == 1
    assert not door.blobs.has(sent.sha256)


def test_hub_clients_fetch_from_the_storage_without_our_token(
    door: Door, seen: Line, engineer: Person, adapter: tuple[str, Path], client: Run
) -> None:
    ref, folder = adapter
    number, token = ref.rpartition("@")[2], door.token(engineer)
    seen.asked.clear()
    script = (
        "out = open(hf_hub_download('s3/adapter', 'adapter_model.safetensors', "
        f"revision={number!r}), 'rb').read().hex()"
    )
    pulled = client("2.4", token, script)
    assert bytes.fromhex(pulled) == (folder / "adapter_model.safetensors").read_bytes()
    [fetched] = [
        head for head in seen.heads() if head.startswith(b"GET ") and b"X-Amz-Signature=" in head
    ]
    assert b"/sha256/" in fetched
    assert b"authorization" not in fetched.lower()
    assert token.encode() not in seen.asked


def test_when_the_storage_is_gone_it_says_so_and_nothing_is_half_there(
    door: Door, storage: storages.ObjectStorage, engineer: Person, adapter: tuple[str, Path]
) -> None:
    versions = door.done(engineer, "GET", "/lines/s3/adapter/versions")
    digest = versions[0]["files"][0]["sha256"] if "files" in versions[0] else "0" * 64
    other = b"what nobody has"
    new = hashlib.sha256(other).hexdigest()
    storage.stop()
    body = {
        "name": "s3/adapter",
        "files": [{"path": "adapter_config.json", "sha256": digest, "size": 1}],
        "base": "s3/tiny@v1",
    }
    asked = [
        ("PUT", f"/blobs/{new}", {"content": other}),
        ("PATCH", f"/uploads/{new}", {"content": other, "headers": {"Upload-Offset": "0"}}),
        ("DELETE", f"/uploads/{digest}", {}),
        ("GET", f"/blobs/{digest}", {}),
        ("POST", "/adapters", {"body": body}),
    ]
    for method, path, more in asked:
        answer = door.ask(engineer, method, path, **more)
        assert (answer.status_code, answer.json()["kind"]) == (503, "blobs-unreachable"), (
            method,
            path,
        )
        assert int(answer.headers["retry-after"]) >= 1
        assert "a-secret" not in answer.text
    for path in (f"/blobs/{digest}", f"/uploads/{digest}"):
        assert door.ask(engineer, "HEAD", path).status_code == 503
    assert door.done(engineer, "GET", "/lines/s3/adapter/versions") == versions
