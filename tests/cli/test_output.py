"""How answers look: JSON as REST words it, tables that align, states told by a word."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from registry.cli.output import cell, emit, plain, state, table
from tests.cli.conftest import Run
from tests.client.wire import Answer, Wire


@dataclass(frozen=True, slots=True)
class Thing:
    id: UUID
    at: datetime
    inner: list[dict[str, float]]


def test_json_is_worded_as_rest_words_it(capsys: pytest.CaptureFixture[str]) -> None:
    thing = Thing(UUID(int=1), datetime(2026, 1, 2, 3, 4, 5, 600, tzinfo=UTC), [{"größe": 0.5}])
    emit([thing])
    assert json.loads(capsys.readouterr().out) == [
        {
            "id": "00000000-0000-0000-0000-000000000001",
            "at": "2026-01-02T03:04:05.000600Z",
            "inner": [{"größe": 0.5}],
        }
    ]
    assert plain((True, None, 1)) == [True, None, 1]


def test_columns_align_whatever_their_colours(capsys: pytest.CaptureFixture[str]) -> None:
    table(
        ["Name", "State", "N"], [("a", state("approved"), 12345), ("longer", state("open"), None)]
    )
    assert capsys.readouterr().out.splitlines() == [
        "Name    State       N",
        "a       ✓ approved  12,345",
        "longer  ○ open      –",
    ]


def test_no_rows_is_a_remark_and_no_data(capsys: pytest.CaptureFixture[str]) -> None:
    table(["Name"], [], "Nothing serves yet.")
    assert capsys.readouterr() == ("", "Nothing serves yet.\n")


def test_cells_read_as_a_person_reads() -> None:
    assert cell(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)) == "2026-01-02 03:04:05 UTC"
    assert cell({"train": 1000, "test": 64}) == "train 1,000, test 64"
    values: list[Any] = [None, "", [], 0, False, 0.12345]
    assert [cell(value) for value in values] == ["–", "–", "–", "0", "False", "0.1235"]


@pytest.mark.parametrize(("no_colour", "escapes"), [("", True), ("1", False)])
def test_no_color_is_obeyed(
    wire: Wire, cli: Run, monkeypatch: pytest.MonkeyPatch, no_colour: str, escapes: bool
) -> None:
    monkeypatch.setattr("click._compat.isatty", lambda _: True)
    monkeypatch.setenv("NO_COLOR", no_colour)
    wire.script = lambda _: Answer(200, [])
    assert (
        "\033[" in cli("people", "ls").out + cli("token", "ls").err
    ) is False  # nothing to colour
    assert ("\033[" in cli("audit", "verify").err) is escapes
