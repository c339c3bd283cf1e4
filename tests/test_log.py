"""The log: one canonical line a command, for machines and for people, and never a secret."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from registry import log

TOKEN = "cs_0123456789ab_" + "A" * 43


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(False)


def test_a_command_is_one_json_line(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("info")
    log.log_command(log.Command("review:vote", "ann", "review:7", "done", 12.345, "r1"))
    log.log_command(log.Command("version:recall", None, None, "not-recalled", 1.0, None))
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert first.pop("at").endswith("Z")
    assert first == {
        "level": "info",
        "logger": "registry.command",
        "message": "review:vote done",
        "action": "review:vote",
        "actor": "ann",
        "subject": "review:7",
        "outcome": "done",
        "ms": 12.3,
        "request_id": "r1",
    }
    assert (second["level"], second["outcome"]) == ("warning", "not-recalled")


def test_the_context_is_on_every_line_and_below_the_level_is_none(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log.configure("warning")
    request, actor = log.request_id.set("r2"), log.actor.set("bob")
    log.LOGGER.info("too quiet")
    log.LOGGER.warning("heard")
    log.request_id.reset(request)
    log.actor.reset(actor)
    (line,) = map(json.loads, capsys.readouterr().err.splitlines())
    assert (line["message"], line["request_id"], line["actor"]) == ("heard", "r2", "bob")


def test_a_person_reads_one_short_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    log.configure("info")
    log.log_command(log.Command("review:vote", "ann", "review:7", "done", 3.0, None))
    (line,) = capsys.readouterr().err.splitlines()
    assert (
        line[8:]
        == " info    review:vote done  action=review:vote actor=ann subject=review:7 outcome=done "
        "ms=3.0"
    )


def test_secrets_are_masked_also_in_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("info")
    try:
        raise ValueError(f"bad {TOKEN}")
    except ValueError:
        log.LOGGER.exception("with %s at %s", TOKEN, "postgresql+psycopg://app:word@/one")
    said = capsys.readouterr().err
    assert "A" * 43 not in said
    assert "word" not in said
    assert "cs_0123456789ab_***" in said
    assert "app:***@/one" in said
    assert "Traceback" in said
