"""A download whose connection is really cut goes on where it stopped, though the server was
restarted meanwhile.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import pytest

from registry.app import create_app
from registry.commands import versions
from tests.api.conftest import Door
from tests.build import BASE_META, MODULE, a_person, put, register, safetensors
from tests.gateway.served import Served
from tests.hub.conftest import Run
from tests.sampling import sampled

CUT = 700_000
"""Bytes of an answer after which the wire breaks; the file has three times as many."""


@dataclass
class Wire:
    """A TCP proxy that breaks the next `cuts` answers longer than CUT, by an end or, with `reset`,
    by a reset.
    """

    upstream: tuple[str, int]
    cuts: int = 0
    reset: bool = False
    asked: list[str] = field(default_factory=list)
    broken: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def serve(self, caller: socket.socket) -> None:
        with caller, socket.create_connection(self.upstream) as server:
            threading.Thread(target=self._up, args=(caller, server), daemon=True).start()
            sent = 0
            with suppress(OSError):
                while data := server.recv(1 << 14):
                    # One answer a connection is long enough to count: those before it are heads of
                    # files.
                    caller.sendall(data)
                    sent += len(data)
                    if sent > CUT and self.cuts:
                        self.cuts -= 1
                        if self.reset:
                            caller.setsockopt(
                                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                            )
                            caller.shutdown(
                                socket.SHUT_RD
                            )  # the other thread lets go of it, so that it closes
                        else:
                            caller.shutdown(socket.SHUT_RDWR)
                        self.broken.set()
                        return

    def _up(self, caller: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := caller.recv(1 << 14):
                self.asked += [
                    line
                    for line in data.decode("latin-1").split("\r\n")
                    if line.lower().startswith("range")
                ]
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)


@contextmanager
def wire(port: int) -> Iterator[Wire]:
    one = Wire(("127.0.0.1", port))
    with socket.create_server(("127.0.0.1", 0)) as door:
        one.url = f"http://127.0.0.1:{door.getsockname()[1]}"

        def accept() -> None:
            with suppress(OSError):
                while True:
                    threading.Thread(
                        target=one.serve, args=(door.accept()[0],), daemon=True
                    ).start()

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield one
        finally:
            door.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.fixture(scope="module")
def large(door: Door) -> tuple[str, str, str]:
    """The name of a base with one file of 2 MiB, the file's digest, and a token that may pull
    it.
    """
    engineer = a_person(door.store, "engineer", team=f"t{secrets.token_hex(4)}")
    name = f"{next(iter(engineer.actor.grants)).team}/large"
    data = safetensors({f"{MODULE}.weight": (512, 1024)})
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 512}
    files = [
        put(door.blobs, "model.safetensors", data),
        put(door.blobs, "config.json", json.dumps(config).encode()),
    ]
    register(door.store, door.blobs, engineer.actor, versions.Draft("base", name, files, BASE_META))
    return name, hashlib.sha256(data).hexdigest(), door.token(engineer)


SCRIPT = """
import hashlib, time
time.sleep = lambda seconds: None  # between attempts clients wait a second
hub.constants.DOWNLOAD_CHUNK_SIZE = 1 << 16  # they write 10 MB at a time: what is less is lost
calls = 0
while True:
    calls += 1
    try:
        path = hf_hub_download({name!r}, "model.safetensors", revision="v1", cache_dir={how!r})
        break
    except Exception as error:
        assert calls < 4, error
out = [hashlib.sha256(open(path, "rb").read()).hexdigest(), calls]
"""


# Calls it takes after two cuts, and ranges asked for. 2.4 goes on by itself after an end, and after
# a reset keeps nothing; the older ones raise, and go on from what they kept when they are called
# again.
GOES_ON = {
    ("2.4", False): (1, 2),
    ("2.4", True): (3, 0),
    ("1.5", False): (3, 2),
    ("1.5", True): (3, 2),
    ("0.36", False): (3, 2),
    ("0.36", True): (3, 2),
}


@pytest.mark.parametrize(("version", "reset"), sampled(GOES_ON, [("2.4", False), ("0.36", True)]))
def test_a_cut_download_goes_on(
    version: str, reset: bool, door: Door, large: tuple[str, str, str], client: Run
) -> None:
    name, digest, token = large
    app = create_app(door.settings)
    restarted = Served(app)
    try:
        with wire(int(door.url.rpartition(":")[2])) as one:
            one.cuts, one.reset = 2, reset

            def move() -> None:
                one.broken.wait(300)
                one.upstream = ("127.0.0.1", restarted.port)

            mover = threading.Thread(target=move)
            mover.start()
            found, calls = client(
                version, token, SCRIPT.format(name=name, how=str(reset)), endpoint=one.url
            )
            mover.join()
    finally:
        restarted.stop()
        app.state.store.engine.dispose()
    assert (found, one.cuts) == (digest, 0)
    assert (calls, len(one.asked)) == GOES_ON[version, reset]
