"""An engine, a registry door, and a gateway between them, each a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from registry.client import Countersign
from registry.gateway.app import Gateway, create_app
from tests.gateway.door import BASE, TOKEN, Door
from tests.gateway.engine import SmallEngine
from tests.gateway.served import Served, until


class Stage:
    """Everything a test needs: move `door`, break `engine`, ask the gateway."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.door, self.engine = Door(), SmallEngine(BASE.ref)
        self.registry_server, self.engine_server = Served(self.door.app), Served(self.engine.app)
        self.http = httpx.Client(timeout=60.0)
        self.gateway: Gateway
        self._running: Served | None = None

    def start(self) -> None:
        registry = Countersign(self.registry_server.url, TOKEN)
        self.gateway = Gateway(registry, self.engine_server.url, "production", self.cache)
        self._running = Served(create_app(self.gateway, poll_every=(0.02, 0.05), keep_every=0.1))
        self.http.base_url = httpx.URL(self._running.url)

    def stop(self) -> None:
        if self._running is not None:
            self._running.stop()
            self._running = None
            self.gateway.registry.close()

    def close(self) -> None:
        self.stop()
        self.http.close()
        self.engine_server.wind_down()
        self.registry_server.stop()
        self.engine_server.stop()

    def ready(self) -> None:
        until(lambda: self.http.get("/readyz").status_code == 200, "the gateway is ready")

    def applied(self, generation: int) -> None:
        until(
            lambda: self.shown()["generation"] == generation, f"generation {generation} is applied"
        )

    def shown(self) -> dict[str, Any]:
        data = self.http.get("/v1/models").json()["data"]
        return dict(data[0]["countersign"]) if data else {"generation": None}

    def ask(
        self, unit: str | None = None, model: str = "acme/claims", **more: Any
    ) -> httpx.Response:
        headers = {"X-Unit-Id": unit} if unit is not None else {}
        body = {
            "model": model,
            "messages": [{"role": "user", "content": "a secret prompt"}],
            **more,
        }
        return self.http.post("/v1/chat/completions", json=body, headers=headers)

    def says(self, unit: str | None = None) -> str:
        answer = self.ask(unit)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["choices"][0]["message"]["content"])

    def records(self) -> list[dict[str, Any]]:
        files = sorted((self.cache / "records").glob("*.jsonl"))
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path / "cache")
    yield made
    made.close()
