"""Records survive what a process does not."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from registry.gateway.records import Record, Records, now

ONE = Record(
    now(),
    "acme/claims@production",
    3,
    "candidate",
    "acme/claims@v2",
    "sha256:aa",
    200,
    12.5,
    False,
    "ab" * 8,
)


def fresh(directory: Path) -> Records:
    records = Records(directory, b"k" * 32)
    records.restore()
    return records


def test_counts_are_the_same_after_a_restart(tmp_path: Path) -> None:
    records = fresh(tmp_path / "records")
    for record in (
        ONE,
        replace(ONE, status=503, version=None),
        replace(ONE, fallback=True),
        replace(ONE, arm="stable"),
    ):
        records.append(record)
    records.close()
    again = fresh(tmp_path / "records")
    assert again.summary() == records.summary()
    assert again.summary()["requests"] == 4
    assert again.summary()["counts"][1] == {
        "channel": "acme/claims@production",
        "generation": 3,
        "arm": "candidate",
        "version": "acme/claims@v2",
        "requests": 2,
        "ok": 2,
        "errors": 0,
        "fallbacks": 1,
    }


def test_a_torn_line_costs_itself_only(tmp_path: Path) -> None:
    directory = tmp_path / "records"
    records = fresh(directory)
    records.append(ONE)
    records.close()
    file = next(directory.iterdir())
    whole = file.read_bytes()
    file.write_bytes(whole + whole[: len(whole) // 2])
    again = fresh(directory)
    assert (again.summary()["requests"], again.summary()["damaged"]) == (1, 1)
    again.append(ONE)
    again.close()
    once_more = fresh(directory)
    assert (once_more.summary()["requests"], once_more.summary()["damaged"]) == (2, 1)


def test_a_day_a_file_and_nobody_else_reads_them(tmp_path: Path) -> None:
    directory = tmp_path / "records"
    records = fresh(directory)
    records.append(replace(ONE, time="2026-01-31T23:59:59.999999Z"))
    records.append(replace(ONE, time="2026-02-01T00:00:00.000000Z"))
    records.close()
    assert sorted(path.name for path in directory.iterdir()) == [
        "2026-01-31.jsonl",
        "2026-02-01.jsonl",
    ]
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_a_record_that_cannot_be_written_is_counted_as_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    records = fresh(tmp_path / "records")
    (tmp_path / "records" / f"{ONE.time[:10]}.jsonl").mkdir()
    records.append(ONE)
    assert (records.lost, records.summary()["requests"]) == (1, 1)
    assert "could not be written" in caplog.text


def test_units_are_hashed_under_the_gateways_own_key(tmp_path: Path) -> None:
    one, other = Records(tmp_path, os.urandom(32)), Records(tmp_path, os.urandom(32))
    unit = one.unit("jane.doe@example.org")
    assert unit is not None
    assert len(bytes.fromhex(unit)) == 8
    assert unit == one.unit("jane.doe@example.org") != other.unit("jane.doe@example.org")
    assert one.unit(None) is None
    assert one.unit("\ud800") is not None
