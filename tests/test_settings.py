"""Settings: defaults, the environment, secret files, and what is wrong with them."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

import registry
from registry import settings
from registry.errors import Invalid
from registry.settings import PREFIX, Settings, load


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(PREFIX + name.upper(), raising=False)


def test_what_is_not_set_follows_from_what_is(tmp_path: Path) -> None:
    read = load(home=tmp_path, database_url="postgresql+psycopg://app@/one")
    assert (
        read.migrate_database_url == read.sequencer_database_url == "postgresql+psycopg://app@/one"
    )
    assert read.blob_url == (tmp_path / "private" / "blobs").as_uri()
    assert read.log_key_file == tmp_path / "private" / "log.key"
    assert read.url == "http://127.0.0.1:8080"
    assert load().home == Path.home() / ".countersign"
    assert load().database_url is None


def test_given_goes_before_environment_and_environment_before_secret_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "SECRETS", tmp_path)
    (tmp_path / "countersign_database_url").write_text("postgresql+psycopg://file@/one\n")
    (tmp_path / "countersign_port").write_text("1001")
    assert load().database_url == "postgresql+psycopg://file@/one"
    monkeypatch.setenv("COUNTERSIGN_PORT", "1002")
    assert load().port == 1002
    assert load(port=1003, host=None).port == 1003
    monkeypatch.setenv("COUNTERSIGN_PORT", "")
    assert load().port == 1001


def test_a_wrong_value_is_named_but_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COUNTERSIGN_PORT", "hunter2")
    monkeypatch.setenv("COUNTERSIGN_LEASE_SECONDS", "1")
    with pytest.raises(Invalid, match=r"COUNTERSIGN_PORT.*COUNTERSIGN_LEASE_SECONDS") as refused:
        load()
    assert refused.value.kind == "bad-setting"
    assert "hunter2" not in str(refused.value)


def test_settings_are_frozen_described_and_keep_passwords_to_themselves() -> None:
    read = load(database_url="postgresql+psycopg://app:word@/one", blob_url="s3://key:word@bucket")
    with pytest.raises(ValidationError):
        read.port = 1
    assert "word" not in repr(read)
    assert all(field.description for field in Settings.model_fields.values())


def test_the_version_is_stated_once() -> None:
    """pyproject.toml states it; application, command line and metadata read it there."""
    root = Path(registry.__file__).parents[1]
    stated = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    assert registry.version() == stated
    sources = [*(root / "registry").rglob("*.py"), *(root / "trainer").rglob("*.py")]
    assert [path for path in sources if f'"{stated}"' in path.read_text()] == []


def test_a_process_started_by_itself_names_the_wrong_setting(
    tmp_path: Path,
) -> None:
    """`python -m registry api` reads its settings as `countersign up` does."""
    done = subprocess.run(
        [sys.executable, "-m", "registry", "api"],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "COUNTERSIGN_PORT": "none"},
        cwd=Path(registry.__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "COUNTERSIGN_PORT" in done.stderr
    assert "Traceback" not in done.stderr
