"""What runs here: it never makes a registry where there is none, and says what it missed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Run


@pytest.fixture(autouse=True)
def no_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COUNTERSIGN_DATABASE_URL", raising=False)


@pytest.mark.parametrize("verb", ["doctor", "migrate"])
def test_a_home_without_a_database_is_named_and_left_alone(
    cli: Run, tmp_path: Path, verb: str
) -> None:
    result = cli(verb, "--home", tmp_path / "nowhere", "--json")
    assert result.code == 5
    assert result.problem()["kind"] == "no-database"
    assert not (tmp_path / "nowhere").exists()


def test_doctor_makes_no_log_key(cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a fresh key every tree head of the registry would look forged."""
    monkeypatch.setenv("COUNTERSIGN_DATABASE_URL", "postgresql+psycopg://nobody@127.0.0.1:1/none")
    result = cli("doctor", "--home", tmp_path / "other", "--json")
    assert result.code == 5
    assert result.problem()["kind"] == "log-key-missing"
    assert not (tmp_path / "other").exists()


def test_migrate_says_when_the_database_is_away(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COUNTERSIGN_DATABASE_URL", "postgresql+psycopg://nobody@127.0.0.1:1/none")
    assert cli("migrate", "--json").code == 7


def test_a_gateway_needs_an_address_and_an_engine(cli: Run) -> None:
    assert cli("gateway", "--port", 0, "--engine", "http://127.0.0.1:1").code == 2
    assert cli("gateway", "--port", 0).code == 2
