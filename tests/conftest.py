"""Real PostgreSQL for every test that needs one: embedded by default, any other through
COUNTERSIGN_DATABASE_URL.

One database is migrated once a session; tests commit for real and stay apart by team names of their
own, so what is tested is what runs: deferred triggers, outbox, two connections.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from registry.blobs.store import Blobs
from registry.db.store import Store, open_engine
from tests.database import Databases, open_databases
from tests.s3 import ObjectStorage, serving

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "2")

# How long an example takes says more of the machine than of us; what must be quick is tested by its
# CPU time. Seeded, so that a run fails for what was changed and for nothing else;
# `--hypothesis-profile wide` looks further.
settings.register_profile(
    "house", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "wide", settings.get_profile("house"), derandomize=False, max_examples=2000
)
settings.load_profile("house")

FIRST = ("demo", "trainer")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The rooms whose files take longest come first, so that two processes end together; the others
    stay side by side, for what a room's tests share is made anew each time a process comes back to
    it.
    """
    rooms = [f"/tests/{room}/" for room in FIRST]
    items.sort(
        key=lambda item: next(
            (place for place, room in enumerate(rooms) if room in str(item.path)), len(rooms)
        )
    )


@pytest.fixture(scope="session")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Databases]:
    """A server to make databases on."""
    with open_databases(tmp_path_factory.mktemp("home")) as opened:
        yield opened


@pytest.fixture(scope="session")
def database(databases: Databases) -> str:
    """The URL of the session's migrated database."""
    return databases.migrated("shared")


@pytest.fixture
def fresh_database(databases: Databases) -> Iterator[str]:
    """The URL of a migrated database of one's own: for what looks at the whole log."""
    name = f"own_{secrets.token_hex(4)}"
    url = databases.migrated(name)
    yield url
    databases.drop(name)


@pytest.fixture(scope="session")
def store(database: str) -> Iterator[Store]:
    """The store as the app role, with the built-in policies in force."""
    from tests.build import install_classes, install_policies

    opened = Store(open_engine(database, "countersign_app"))
    install_policies(opened)
    install_classes(opened)
    yield opened
    opened.engine.dispose()


@pytest.fixture
def fresh_store(fresh_database: str) -> Iterator[Store]:
    """A store on a database of one's own."""
    from tests.build import install_policies

    opened = Store(open_engine(fresh_database, "countersign_app"))
    install_policies(opened)
    yield opened
    opened.engine.dispose()


@pytest.fixture(scope="session")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> Blobs:
    """A blob store in a folder."""
    return Blobs(tmp_path_factory.mktemp("blobs").as_uri())


@pytest.fixture(scope="session")
def object_storage() -> Iterator[ObjectStorage]:
    """An S3 on loopback."""
    with serving() as storage:
        yield storage


@pytest.fixture
def s3(object_storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty blob store on it; credentials are in the environment, as in
    production.
    """
    for name, value in object_storage.environ.items():
        monkeypatch.setenv(name, value)
    return object_storage.bucket()


@pytest.fixture
def team() -> str:
    """A team of one's own."""
    return f"t{secrets.token_hex(4)}"
