"""The composition root: makes the store, the blobs, the log and the doors from the settings."""

from __future__ import annotations

import secrets

from fastapi import FastAPI
from prometheus_client import Histogram

from registry import version, web
from registry.api import health, hub, openapi, problems, rest
from registry.api.hub.door import PULLS
from registry.api.requests import Requests
from registry.blobs.store import Blobs
from registry.blobs.uploads import Uploads
from registry.db.store import Store, open_engine
from registry.errors import Unavailable
from registry.proof import notes
from registry.proof.keys import SigningKey
from registry.sequencer import Sequencer, Witness
from registry.settings import Settings

UNFINISHED_FILES = 2
"""How many unfinished uploads of the largest allowed file one account may have."""


def open_store(settings: Settings, role: str = "countersign_app") -> Store:
    """The store on the configured database, as one database role.

    Raises Unavailable `database-missing` when no database is configured.
    """
    url = settings.sequencer_database_url if role == "countersign_sequencer" else None
    url = url or settings.database_url
    if url is None:
        raise Unavailable("database-missing", "No database is configured.")
    return Store(open_engine(url, role))


def open_blobs(settings: Settings) -> Blobs:
    """The blob store: private/blobs in the home unless the settings name another URL."""
    return Blobs(settings.blob_url)


def log_key(settings: Settings) -> tuple[SigningKey, str]:
    """The log's signing key and its origin.

    The first start creates both, and pins the public half in log.pub, beside the key and in the
    home.
    """
    settings.private.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = settings.log_key_file
    name = path.with_suffix(".origin")
    if not path.exists():
        name.write_text(f"countersign.local/{secrets.token_hex(6)}\n")
        SigningKey.generate().save(path)
    key, origin = SigningKey.load(path), name.read_text().strip()
    line = notes.verifier_key(origin, key.public) + "\n"
    for pinned in (settings.private / "log.pub", settings.home / "log.pub"):
        # Never overwritten: a key that changes later must not replace the copy auditors rely on.
        if not pinned.exists():
            pinned.write_text(line)
    return key, origin


def open_sequencer(settings: Settings) -> Sequencer:
    """The log's single writer, with its witness file outside of the database."""
    key, origin = log_key(settings)
    return Sequencer(
        open_store(settings, "countersign_sequencer"),
        key,
        origin,
        Witness(settings.private / "tree-heads.log"),
    )


def create_app(settings: Settings) -> FastAPI:
    """The HTTP application: every dialect, the console, health and metrics."""
    app = FastAPI(
        title="Countersign",
        version=version(),
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        description="Registry and governance service for LLM adapters.",
    )
    key, origin = log_key(settings)
    app.state.settings = settings
    app.state.store = open_store(settings)
    app.state.blobs = open_blobs(settings)
    app.state.uploads = Uploads(app.state.blobs, UNFINISHED_FILES * settings.max_blob_bytes)
    app.state.log_key = notes.verifier_key(origin, key.public)
    app.include_router(rest.router())
    app.include_router(hub.router())
    problems.install(app)
    openapi.install(app)
    seconds = Histogram(
        "countersign_http_seconds", "Time of one request.", ["method", "status"], registry=None
    )
    app.add_middleware(Requests, max_body=settings.max_json_bytes, seconds=seconds)
    app.include_router(health.router([seconds, PULLS]))
    # Last, so that its headers are on every answer, including refusals by the limits.
    web.install(app)
    return app
