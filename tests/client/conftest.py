"""The wire and a client on it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from registry.client import Countersign
from tests.client.wire import Wire, playing


@pytest.fixture
def wire() -> Iterator[Wire]:
    with playing() as server:
        yield server


@pytest.fixture
def registry(wire: Wire) -> Iterator[Countersign]:
    with Countersign(wire.url, "a-token") as client:
        yield client
