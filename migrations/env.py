"""Run migrations, each in its own transaction.

An advisory lock keeps two deployments from migrating at the same time.
"""

from __future__ import annotations

import os

from alembic import context
from sqlalchemy import NullPool, create_engine, text

import registry.db  # noqa: F401  (fills the metadata)
from registry.db.table import Table

MIGRATION_LOCK = 0x636F756E74657273  # "counters"
config = context.config


def _url() -> str:
    url = (
        config.attributes.get("url")
        or os.environ.get("COUNTERSIGN_MIGRATE_URL")
        or os.environ.get("COUNTERSIGN_DATABASE_URL")
    )
    if not url:
        raise SystemExit(
            "No database: set COUNTERSIGN_DATABASE_URL, or run countersign migrate --home DIR."
        )
    return str(url)


def is_ours(_object: object, name: str | None, kind: str, _reflected: bool, _other: object) -> bool:
    """Whether Alembic compares this object: every one but its own table."""
    return not (kind == "table" and name == "alembic_version")


def offline() -> None:
    context.configure(
        url="postgresql+psycopg://",
        literal_binds=True,
        target_metadata=Table.metadata,
        transaction_per_migration=True,
        dialect_opts={"paramstyle": "named"},
    )
    with context.begin_transaction():
        context.run_migrations()


def online() -> None:
    engine = create_engine(_url(), poolclass=NullPool)
    with engine.connect() as connection:
        connection.execute(text("select pg_advisory_lock(:lock)"), {"lock": MIGRATION_LOCK})
        connection.commit()
        try:
            context.configure(
                connection=connection,
                target_metadata=Table.metadata,
                include_object=is_ours,
                transaction_per_migration=True,
                compare_server_default=False,
            )
            with context.begin_transaction():
                context.run_migrations()
        finally:
            connection.rollback()
            connection.execute(text("select pg_advisory_unlock(:lock)"), {"lock": MIGRATION_LOCK})
            connection.commit()


if context.is_offline_mode():
    offline()
else:
    online()
