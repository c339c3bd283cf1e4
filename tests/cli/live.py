"""A real registry for the command line: the application on PostgreSQL under uvicorn, with its
home's private files.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn

from registry.app import create_app, open_sequencer
from registry.cli.operations import prepare
from registry.postgres.home import claim
from registry.sequencer import Sequencer
from registry.settings import Settings


@dataclass
class Live:
    """A registry that answers; `sequence` numbers and signs what has happened so far, as the clock
    does.
    """

    url: str
    home: Path
    sequencer: Sequencer
    log_key: str
    asked: set[tuple[str, str]] = field(default_factory=set)
    """Method and path of every request so far."""

    def sequence(self) -> None:
        while self.sequencer.step():
            pass
        self.sequencer.sign()


@contextmanager
def live(database: str, home: Path) -> Iterator[Live]:
    """Serve on a free port of loopback, and leave `url` where `countersign up` leaves it."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        url = f"http://127.0.0.1:{door.getsockname()[1]}"
        settings = Settings(home=home, database_url=database, public_url=url)
        claim(home)
        prepare(settings)
        app = create_app(settings)
        sequencer = open_sequencer(settings)
        opened = Live(url, home, sequencer, app.state.log_key)

        async def noted(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                opened.asked.add((scope["method"], scope["path"]))
            await app(scope, receive, send)

        server = uvicorn.Server(uvicorn.Config(noted, log_config=None, access_log=False, ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [door]})
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive()
                time.sleep(0.02)
            (home / "private" / "url").write_text(url + "\n")
            yield opened
        finally:
            server.should_exit = True
            thread.join()
            app.state.store.engine.dispose()
            sequencer.store.engine.dispose()
