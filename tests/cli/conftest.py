"""A command line of one's own: a configuration folder, a scripted registry, and a way to run one
command.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from registry.cli import main
from tests.client.wire import Wire, playing


@dataclass
class Result:
    """What one command left behind."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)

    def problem(self) -> Any:
        return json.loads(self.err.splitlines()[-1])


Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty configuration folder, and nothing of the tester's own environment."""
    for name in ("COUNTERSIGN_URL", "COUNTERSIGN_TOKEN", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "config"
    monkeypatch.setenv("COUNTERSIGN_CONFIG_DIR", str(folder))
    return folder


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    with playing() as server:
        monkeypatch.setenv("COUNTERSIGN_URL", server.url)
        monkeypatch.setenv("COUNTERSIGN_TOKEN", "a-token")
        yield server


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run one command in this process, as the console script does."""

    def run(*arguments: object) -> Result:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Result(int(ended.value.code or 0), out, err)

    return run
