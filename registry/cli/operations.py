"""What `countersign up`, `migrate` and `doctor` do to a registry's home and database."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from importlib import resources
from pathlib import Path
from typing import Any

from registry.app import log_key, open_blobs, open_store
from registry.callers import actor_of
from registry.commands import accounts, policies, retention, tokens
from registry.db import migrate as migrations
from registry.db.store import Store
from registry.errors import Conflict, Unauthenticated, Unavailable
from registry.proof import notes
from registry.proof.private_files import write_private
from registry.queries import retention as retention_queries
from registry.rules.actors import SYSTEM
from registry.rules.retention import BUILT_IN
from registry.settings import Settings

ADMIN_DAYS = 365
SERVICE_DAYS = 30


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a start needs to know: the first administrator's token."""

    admin_token: str | None


def migrate(settings: Settings) -> str:
    """Migrate the database to the schema of this code; return its revision."""
    url = settings.migrate_database_url or settings.database_url
    if url is None:
        raise Unavailable(
            "database-missing", "No database is configured.", "Set COUNTERSIGN_DATABASE_URL."
        )
    return migrations.upgrade(url)


def prepare(settings: Settings) -> Prepared:
    """Migrate the database, create the log key, and install the built-in policies and classes.

    Also makes sure that private/admin.token contains a valid token.
    """
    migrate(settings)
    log_key(settings)
    store = open_store(settings)
    try:
        for name in ("dev", "staging", "production"):
            file = resources.files("registry").joinpath(f"policies/{name}.yaml")
            with suppress(Conflict):  # another process was faster
                policies.publish(store, SYSTEM, file.read_text(encoding="utf-8"), only_first=True)
        existing = {terms.name for terms in retention_queries.classes(store, SYSTEM)}
        for terms in (terms for terms in BUILT_IN if terms.name not in existing):
            with suppress(Conflict):  # another process was faster
                retention.define(store, SYSTEM, terms, "built in")
        token = _stored_token(store, settings.private / "admin.token", "admin", "admin", ADMIN_DAYS)
    finally:
        store.engine.dispose()
    return Prepared(token)


def service_token(settings: Settings, account: str, role: str) -> str:
    """Return a token for a child process, stored under private/tokens.

    It is replaced a day before it expires.
    """
    folder = settings.private / "tokens"
    folder.mkdir(mode=0o700, exist_ok=True)
    store = open_store(settings)
    try:
        return _stored_token(store, folder / f"{account}.token", account, role, SERVICE_DAYS)
    finally:
        store.engine.dispose()


def _stored_token(store: Store, path: Path, account: str, role: str, days: int) -> str:
    """The token in the file if it is valid for another day, else a new one.

    A lost file therefore does not lock anybody out of the registry.
    """
    if path.exists():
        token = path.read_text().strip()
        try:
            actor_of(store, token, "up", "")
            if time.time() - path.stat().st_mtime < timedelta(days=days - 1).total_seconds():
                return token
        except Unauthenticated:
            pass
    accounts.create(store, SYSTEM, account, [role], None)
    minted = tokens.create(store, SYSTEM, tokens.TokenRequest(account, [role], None, days)).token
    assert minted is not None
    write_private(path, minted + "\n")
    return minted


def doctor(settings: Settings) -> dict[str, Any]:
    """Compare the governed tables with the log, check the log, and look for missing bytes."""
    from registry.queries import doctor as examination

    store, blobs = open_store(settings), open_blobs(settings)
    key, origin = log_key(settings)
    try:
        return examination.report(store, blobs, notes.verifier_key(origin, key.public))
    finally:
        store.engine.dispose()
