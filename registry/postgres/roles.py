"""The roles and databases of the embedded PostgreSQL, made where they are missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import psycopg
from psycopg import sql

Login = Literal["owner", "app", "sequencer", "reader", "mlflow", "superuser"]

ROLES: dict[Login, str] = {
    "owner": "countersign_owner",
    "app": "countersign_app_login",
    "sequencer": "countersign_seq_login",
    "reader": "countersign_reader_login",
    "mlflow": "mlflow_login",
    "superuser": "postgres",
}
"""The PostgreSQL role that each login signs in as."""

GROUPS: dict[Login, str] = {
    "app": "countersign_app",
    "sequencer": "countersign_sequencer",
    "reader": "countersign_reader",
}
"""The group role that each login is a member of. The migrations grant rights to groups only."""


def provision(connection: psycopg.Connection[Any], passwords: Mapping[Login, str]) -> None:
    """Make roles and databases as a superuser, each only where it is missing.

    A start that was killed may have made some of them.
    """
    known = {name for (name,) in connection.execute("SELECT rolname FROM pg_roles")}
    if not known.issuperset({*ROLES.values(), *GROUPS.values()}):
        with connection.transaction():
            _create_roles(connection, known, passwords)
    databases = {name for (name,) in connection.execute("SELECT datname FROM pg_database")}
    if "countersign" not in databases:
        create_database(connection, "countersign", ROLES["owner"], GROUPS.values())
    if "mlflow" not in databases:
        create_database(connection, "mlflow", ROLES["mlflow"])


def create_database(
    connection: psycopg.Connection[Any],
    name: str,
    owner: str,
    groups: Iterable[str] = (),
    template: str | None = None,
) -> None:
    """Create a database that only its owner and `groups` may connect to."""
    database = sql.Identifier(name)
    connection.execute(
        sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE {}").format(
            database, sql.Identifier(owner), sql.Identifier(template or "template1")
        )
    )
    connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(database))
    for group in groups:
        connection.execute(
            sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(database, sql.Identifier(group))
        )


def _create_roles(
    connection: psycopg.Connection[Any], known: set[str], passwords: Mapping[Login, str]
) -> None:
    for login, role in ROLES.items():
        if role in known:
            continue
        # Hashed here, so that the clear password never reaches the server or its log.
        hashed = connection.pgconn.encrypt_password(
            passwords[login].encode(), role.encode(), b"scram-sha-256"
        )
        extra = "CREATEROLE" if login == "owner" else ""
        connection.execute(
            sql.SQL("CREATE ROLE {} LOGIN {} PASSWORD {}").format(
                sql.Identifier(role), sql.SQL(extra), sql.Literal(hashed.decode())
            )
        )
    # The owner makes the groups, as the migration does elsewhere: only then may it administer them.
    connection.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(ROLES["owner"])))
    for login, group in GROUPS.items():
        if group not in known:
            connection.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(group)))
        connection.execute(
            sql.SQL("GRANT {} TO {}").format(sql.Identifier(group), sql.Identifier(ROLES[login]))
        )
    connection.execute("RESET ROLE")
