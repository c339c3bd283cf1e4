"""The gateway as its own process: how it starts, ends, and what a kill leaves behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from registry.errors import Conflict, Invalid, Unauthenticated
from registry.gateway.main import GatewayConfig, _listen, run
from tests.gateway.conftest import Stage
from tests.gateway.door import TOKEN
from tests.gateway.served import until
from tests.ports import free_port

START = """
import sys
from pathlib import Path

from registry.gateway.main import GatewayConfig, run

url, token, engine, port, cache = sys.argv[1:]
run(GatewayConfig(url, token, engine, "production", Path(cache)), "127.0.0.1", int(port))
"""


class Process:
    """A gateway started as a user would start it."""

    def __init__(self, stage: Stage) -> None:
        self.port = free_port()
        argv = [
            stage.registry_server.url,
            TOKEN,
            stage.engine_server.url,
            str(self.port),
            str(stage.cache),
        ]
        environment = {
            **os.environ,
            "PYTHONWARNINGS": "error",
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", START, *argv], env=environment, stderr=subprocess.PIPE, text=True
        )
        self.url = f"http://127.0.0.1:{self.port}"
        stage.http.base_url = httpx.URL(self.url)
        until(lambda: self.is_ready(stage.http), "the process is ready")

    def is_ready(self, http: httpx.Client) -> bool:
        assert self.process.poll() is None, self.process.stderr and self.process.stderr.read()
        try:
            return http.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def end(self, number: signal.Signals) -> tuple[int, str]:
        """Send a signal, wait, and give back the exit code and what was logged."""
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=60)
        return self.process.returncode, errors


@pytest.fixture
def running(stage: Stage) -> Iterator[list[Process]]:
    started: list[Process] = []
    yield started
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate()


def test_sigterm_lets_a_request_finish_and_ends_well(stage: Stage, running: list[Process]) -> None:
    stage.door.route(stage.door.version("acme/claims@v1", "one"))
    running.append(Process(stage))
    stage.engine.slow = 1.0
    answers: list[httpx.Response] = []
    asking = threading.Thread(target=lambda: answers.append(stage.ask("jane.doe@example.org")))
    asking.start()
    until(lambda: stage.engine.prompts, "the engine has the request")
    code, errors = running[0].end(signal.SIGTERM)
    asking.join()
    assert code == 0, errors
    assert answers[0].status_code == 200
    assert [record["status"] for record in stage.records()] == [200]
    assert "Traceback" not in errors
    assert "secret" not in errors
    assert "jane" not in errors


def test_sigterm_ends_at_once_while_the_registry_is_gone(
    stage: Stage, running: list[Process]
) -> None:
    stage.door.route(stage.door.version("acme/claims@v1", "one"))
    running.append(Process(stage))
    stage.registry_server.stop()
    # By then the client is in the middle of being patient.
    threading.Event().wait(3)
    code, errors = running[0].end(signal.SIGTERM)
    assert code == 0, errors
    assert "Traceback" not in errors


def test_a_killed_gateway_goes_on_counting(stage: Stage, running: list[Process]) -> None:
    v1, v2 = (
        stage.door.version("acme/claims@v1", "one"),
        stage.door.version("acme/claims@v2", "two"),
    )
    stage.door.route(v1, v2)
    running.append(Process(stage))
    for number in range(10):
        assert stage.ask(f"user-{number}").status_code == 200
    before = stage.http.get("/records/summary").json()
    code, _ = running[0].end(signal.SIGKILL)
    assert code == -signal.SIGKILL
    running.append(Process(stage))
    assert stage.http.get("/records/summary").json() == before
    assert before["requests"] == 10 == len(stage.records())
    stage.ask("user-1")
    after = stage.http.get("/records/summary").json()
    assert after["requests"] == 11
    assert json.dumps(after["counts"]).count('"version": "acme/claims@v') == 2


def test_answers_wait_for_no_acknowledgement() -> None:
    with _listen("127.0.0.1", 0) as door, socket.create_connection(door.getsockname()):
        accepted, _ = door.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_what_cannot_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COUNTERSIGN_URL", raising=False)
    monkeypatch.delenv("COUNTERSIGN_TOKEN", raising=False)
    url = "http://127.0.0.1:1"
    config = GatewayConfig(url, TOKEN, url, "production", tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = int(taken.getsockname()[1])
        with pytest.raises(Conflict) as refusal:
            run(config, "127.0.0.1", port)
        assert refusal.value.kind == "port-taken"
    with pytest.raises(Invalid) as no_engine:
        run(replace(config, engine="localhost:8000"), "127.0.0.1", 0)
    assert no_engine.value.kind == "no-engine"
    with pytest.raises(Unauthenticated):
        run(replace(config, token=None), "127.0.0.1", 0)
    with pytest.raises(Invalid):
        run(replace(config, url=None), "127.0.0.1", 0)
    assert list(tmp_path.iterdir()) == []
