"""A registry of one's own on the real PostgreSQL, served over HTTP, that can be taken away and
brought back.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

import uvicorn

from registry.app import create_app
from registry.cli.operations import prepare
from registry.client import Countersign
from registry.postgres.home import claim
from registry.settings import Settings
from tests.ports import free_port


class Live:
    """The whole application on a port; `down` and `up` are what an outage looks like to a
    worker.
    """

    def __init__(self, home: Path, database_url: str) -> None:
        self.port = free_port()
        settings = Settings(home=home, database_url=database_url, port=self.port, lease_seconds=5)
        claim(home)
        admin = prepare(settings).admin_token
        assert admin is not None
        self.url = f"http://127.0.0.1:{self.port}"
        self.app = create_app(settings)
        self.store = self.app.state.store
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self.up()
        with Countersign(self.url, admin) as registry:
            self.engineer = self._token(registry, "nora", "engineer")
            self.trainer = self._token(registry, "gpu-1", "trainer")

    @staticmethod
    def _token(registry: Countersign, account: str, role: str) -> str:
        registry.create_account(account, [role])
        made = registry.create_token(account, [role])
        assert made.token is not None
        return made.token

    def up(self) -> None:
        """Serve, and return when it does."""
        server = uvicorn.Server(
            uvicorn.Config(
                self.app, "127.0.0.1", self.port, log_config=None, access_log=False, ws="none"
            )
        )
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive(), "the registry did not start"
            time.sleep(0.02)
        self._server, self._thread = server, thread

    def down(self) -> None:
        """Stop answering."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join()
            self._server = None
