"""Each way to fail has its exit code, three lines for people and one object for machines; stdout
stays data.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import registry.errors
from registry.cli.errors import EXITS, exit_code
from registry.errors import FAMILIES, BundleRejected, RegistryError
from tests.cli.conftest import Run
from tests.client.wire import Answer, Wire, problem

CODES = {
    "fault": 1,
    "invalid": 2,
    "too-large": 2,
    "refused": 3,
    "rejected": 3,
    "unauthenticated": 4,
    "forbidden": 4,
    "not-found": 5,
    "conflict": 6,
    "unavailable": 7,
    "unverified": 8,
}


def test_every_family_has_an_exit_code() -> None:
    classes = [value for value in vars(registry.errors).values() if isinstance(value, type)]
    families = {cls.family for cls in classes if issubclass(cls, RegistryError)}
    assert families == set(EXITS)
    assert {family: code for family, (code, _) in EXITS.items()} == CODES
    assert exit_code(BundleRejected([])) == 3


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_refusal_ends_with_its_code_and_three_lines(
    wire: Wire, cli: Run, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry.client.transport.PATIENCE", 0)
    wire.script = lambda _: problem(418, family)
    result = cli("status")
    assert result.code == CODES[family]
    assert result.out == ""
    what, why, fix = result.err.splitlines()
    assert what == f"✗ {EXITS[family][1]} (some-kind)"
    assert (why, fix) == ("  Because of this.", "  Do that.")


def test_with_json_a_refusal_is_one_problem_object_on_stderr(wire: Wire, cli: Run) -> None:
    wire.script = lambda _: problem(409, "conflict")
    result = cli("status", "--json")
    assert (result.code, result.out) == (6, "")
    assert result.problem() == {
        "type": "/problems/some-kind",
        "title": "Some kind of problem",
        "detail": "Because of this.",
        "fix": "Do that.",
        "family": "conflict",
        "kind": "some-kind",
        "request_id": "r-1",
        "facts": {"n": 1},
        "exit_code": 6,
    }


def test_no_registry_and_no_token_say_what_to_do(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "countersign login" in cli("status").err
    monkeypatch.setenv("COUNTERSIGN_URL", "http://127.0.0.1:1")
    result = cli("status")
    assert result.code == 4
    assert "COUNTERSIGN_TOKEN" in result.err


def test_an_unreachable_registry_is_exit_7_and_says_it_waits(
    cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry.client.transport.PATIENCE", 0.5)
    monkeypatch.setenv("COUNTERSIGN_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("COUNTERSIGN_TOKEN", "a-token")
    result = cli("status", "--json")
    assert (result.code, result.out) == (7, "")
    assert result.err.startswith("Waiting for the registry")
    assert result.problem()["kind"] == "unreachable"


def test_a_path_that_cannot_be_written_is_named(wire: Wire, cli: Run, tmp_path: Path) -> None:
    wire.script = lambda _: Answer(200, b"PK")
    result = cli("audit", "export", "--out", tmp_path / "nowhere" / "pack.zip")
    assert result.code == 2
    assert "nowhere" in result.err
    assert "Traceback" not in result.err


def test_a_bug_of_ours_is_exit_1_without_a_traceback(
    wire: Wire, cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("registry.cli.rollouts.percent", broken)
    channel = {
        "adapter": "acme/claims",
        "channel": "dev",
        "environment": "dev",
        "use_case": "acme/claims",
        "generation": 1,
        "stable": None,
        "candidate": None,
        "weight_bp": 0,
        "since": "2026-01-02T03:04:05Z",
        "rollout": None,
        "rollout_state": None,
        "review": None,
        "acts": {
            act: {"versions": [], "default": None, "refusal": None}
            for act in ("canary", "promote", "rollback")
        },
    }
    wire.script = lambda _: Answer(200, [channel])
    result = cli("status")
    assert result.code == 1
    assert "ZeroDivisionError: by zero" in result.err
    assert "Traceback" not in result.err
    monkeypatch.setenv("COUNTERSIGN_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        cli("status")


def test_a_reader_that_leaves_early_is_no_crash() -> None:
    program = "from registry.cli import main; main(['--help'])"
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=writing, stderr=subprocess.PIPE, check=False
    )
    os.close(writing)
    assert done.stderr == b""
    assert done.returncode == 1
