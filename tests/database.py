"""Databases for tests: made on the embedded PostgreSQL, or on the server that
COUNTERSIGN_DATABASE_URL names.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import create_engine, make_url, text

from registry.db import migrate
from registry.postgres.cluster import Cluster


class Databases(ABC):
    """Makes and drops databases; URLs are those of their owner, who may also act as every group
    role.
    """

    _template = ""

    @abstractmethod
    def create(self, name: str, template: str | None = None) -> str:
        """An empty database, or the copy of an idle one."""

    @abstractmethod
    def drop(self, name: str) -> None: ...

    def migrated(self, name: str) -> str:
        """A database at this code's schema: migrated once, and copied after that."""
        if not self._template:
            migrate.upgrade(self.create("migrated"))
            self._template = "migrated"
        return self.create(name, self._template)


class Embedded(Databases):
    """On a cluster of our own."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def create(self, name: str, template: str | None = None) -> str:
        self.cluster.create_database(name, template)
        return self.cluster.url("owner", name)

    def drop(self, name: str) -> None:
        self.cluster.drop_database(name)


class Ordinary(Databases):
    """On an ordinary server, whose given user may create databases and roles."""

    def __init__(self, url: str) -> None:
        self.url = make_url(url)
        self.prefix = f"cs_test_{os.getpid()}_"
        self.made: list[str] = []

    def _run(self, statement: str) -> None:
        engine = create_engine(self.url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(statement))
        engine.dispose()

    def create(self, name: str, template: str | None = None) -> str:
        full = self.prefix + name
        source = f'"{self.prefix}{template}"' if template else "template0"
        self._run(f'create database "{full}" template {source} encoding utf8')
        self.made.append(name)
        return self.url.set(database=full).render_as_string(hide_password=False)

    def drop(self, name: str) -> None:
        self._run(f'drop database if exists "{self.prefix}{name}" with (force)')
        self.made.remove(name)


@contextmanager
def open_databases(home: Path) -> Iterator[Databases]:
    """The server this run tests on."""
    if given := os.environ.get("COUNTERSIGN_DATABASE_URL"):
        ordinary = Ordinary(given)
        yield ordinary
        for name in list(ordinary.made):
            ordinary.drop(name)
    else:
        with Cluster(home / "countersign") as cluster:
            yield Embedded(cluster)
