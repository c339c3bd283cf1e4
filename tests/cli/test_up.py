"""`countersign up` as a user runs it: real children, a real PostgreSQL, real signals."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from registry.cli import supervisor as supervising
from registry.cli.supervisor import MARK, Child, Supervisor, last_line, log_of, strays, sweep
from registry.postgres.cluster import Cluster
from registry.postgres.home import claim
from tests.gateway.served import until
from tests.ports import free_port
from tests.sampling import sampled

REPOSITORY = Path(__file__).parents[2]
ENVIRON = {
    name: value for name, value in os.environ.items() if not name.startswith("COUNTERSIGN_")
} | {"PYTHONPATH": str(REPOSITORY)}
STARTED: list[subprocess.Popen[str]] = []


def start(home: Path, *more: str, port: int = 0, **environ: str) -> subprocess.Popen[str]:
    argv = [
        sys.executable,
        "-m",
        "registry",
        "up",
        "--home",
        str(home),
        "--port",
        str(port or free_port()),
        *more,
    ]
    process = subprocess.Popen(
        argv,
        cwd=REPOSITORY,
        env=ENVIRON | environ,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    STARTED.append(process)
    return process


@pytest.fixture(scope="module", autouse=True)
def _none_outlives_a_failed_test() -> Iterator[None]:
    yield
    for process in STARTED:
        if process.poll() is None:
            process.kill()
            process.communicate()


def refused(home: Path, *more: str, port: int = 0) -> tuple[int, dict[str, Any]]:
    """Run an `up` that must end by itself: its exit code, and the problem it tells on its last
    line.
    """
    process = start(home, "--json", *more, port=port)
    said, told = process.communicate(timeout=180)
    assert said == ""
    return process.returncode, json.loads(told.splitlines()[-1])


def answer(url: str, token: str = "") -> tuple[int, bytes]:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()
    except OSError as error:
        return 0, str(error).encode()


def of_home(home: Path) -> dict[int, str]:
    """Every process that has to do with this home, by its command line, environment or working
    directory.
    """
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            argv = (entry / "cmdline").read_bytes()
            marked = f"{MARK}={home}".encode() in (entry / "environ").read_bytes()
            inside = (entry / "cwd").resolve().is_relative_to(home)
            if argv and (marked or inside or str(home).encode() in argv):
                found[int(entry.name)] = argv.replace(b"\0", b" ").decode(errors="replace")
    return found


def child(home: Path, words: str) -> int:
    """The process id of the one child whose command line ends in these words, or in these and the
    number of a socket.

    Asked until there is exactly one: between fork and exec a new child still bears its parent's
    command line.
    """
    found: list[int] = []

    def one() -> bool:
        found[:] = [
            pid
            for pid, argv in of_home(home).items()
            if re.search(rf"{words}( \d+)?$", argv.strip())
        ]
        return len(found) == 1

    until(one, f"one '{words}' is there")
    return found[0]


class Up:
    """A running `up --json`, and what its first line told."""

    def __init__(self, home: Path, *more: str, **environ: str) -> None:
        self.home = home
        self.process = start(home, "--json", *more, port=free_port(), **environ)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(self.process.communicate(timeout=10)[1])
        self.told: dict[str, str] = json.loads(line)
        self.url, self.token = self.told["url"], self.told["admin_token"]

    def end(self, number: int = signal.SIGTERM) -> int:
        """Signal it; its exit code once all output is read."""
        self.process.send_signal(number)
        self.process.communicate(timeout=180)
        return self.process.returncode


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    running = Up(tmp_path_factory.mktemp("up") / "home")
    yield running
    assert running.end() == 0
    assert of_home(running.home) == {}
    assert not (running.home / "private" / "url").exists()


def test_the_first_line_comes_when_it_is_ready_and_the_token_is_an_administrators(up: Up) -> None:
    assert set(up.told) == {"url", "admin_token"}
    assert answer(f"{up.url}/readyz")[0] == 200
    status, body = answer(f"{up.url}/api/v1/me", up.token)
    assert status == 200, body
    assert "admin" in body.decode()
    assert (up.home / "private" / "admin.token").read_text().strip() == up.token


def test_the_home_is_enough_to_make_a_token(up: Up) -> None:
    assert (up.home / "private" / "url").read_text().strip() == up.url
    argv = [
        sys.executable,
        "-m",
        "registry",
        "token",
        "create",
        "--account",
        "eve",
        "--role",
        "engineer",
    ]
    made = subprocess.run(
        [*argv, "--home", str(up.home), "--json"],
        cwd=REPOSITORY,
        env=ENVIRON,
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    assert answer(f"{up.url}/api/v1/me", json.loads(made.stdout)["token"])[0] == 200


def test_no_secret_is_in_an_argv_and_no_child_has_more_than_it_needs(up: Up) -> None:
    words = json.loads((up.home / "private" / "postgres.json").read_text())
    commands = of_home(up.home)
    assert len(commands) > 3
    for argv in commands.values():
        assert not any(secret in argv for secret in (up.token, *words.values()))
    api = (Path("/proc") / str(child(up.home, "registry api")) / "environ").read_text()
    clock = (Path("/proc") / str(child(up.home, "registry clock")) / "environ").read_text()
    assert words["app"] in api
    assert words["sequencer"] in clock
    for login in ("owner", "superuser", "mlflow", "sequencer"):
        assert words[login] not in api
        assert words[login] not in clock or login == "sequencer"
    for log in (up.home / "private" / "logs").iterdir():
        assert not any(secret in log.read_text() for secret in (up.token, *words.values()))


def test_a_second_up_of_the_home_is_refused(up: Up) -> None:
    code, problem = refused(up.home)
    assert (code, problem["kind"]) == (6, "home-in-use")
    assert answer(f"{up.url}/readyz")[0] == 200


def test_a_taken_port_is_refused(up: Up, tmp_path: Path) -> None:
    code, problem = refused(tmp_path / "home", port=int(up.url.rsplit(":", 1)[1]))
    assert (code, problem["kind"]) == (6, "port-taken")
    assert not (tmp_path / "home" / "postgres").exists()


def test_two_that_start_on_one_port_never_both_announce_ready(tmp_path: Path) -> None:
    """The one that lost must not print the other's address with a token of its own."""
    port = free_port()
    both = [start(tmp_path / name, "--json", port=port) for name in ("first", "second")]
    until(lambda: any(process.poll() is not None for process in both), "one of them ends", 90)
    [lost] = [process for process in both if process.poll() is not None]
    [won] = [process for process in both if process is not lost]
    out, err = lost.communicate(timeout=30)
    assert (lost.returncode, out) == (6, "")
    assert json.loads(err.splitlines()[-1])["kind"] == "port-taken"
    assert won.stdout is not None
    announced = json.loads(won.stdout.readline())
    assert answer(f"{announced['url']}/api/v1/me", announced["admin_token"])[0] == 200
    won.send_signal(signal.SIGTERM)
    assert won.wait(30) == 0


def test_a_killed_postgresql_is_back(up: Up) -> None:
    """`make bench` prints in how many seconds."""
    cluster = Cluster(up.home)
    pid = cluster.pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: cluster.pid() not in (None, pid))
    until(lambda: answer(f"{up.url}/readyz")[0] == 200)
    assert answer(f"{up.url}/api/v1/me", up.token)[0] == 200


@pytest.mark.parametrize("name", sampled(["api", "clock"], ["clock"]))
def test_a_killed_child_is_back(up: Up, name: str) -> None:
    pid = child(up.home, f"registry {name}")
    os.kill(pid, signal.SIGKILL)
    until(lambda: child(up.home, f"registry {name}") != pid)
    until(lambda: answer(f"{up.url}/readyz")[0] == 200)


@pytest.mark.slow
def test_a_killed_supervisor_leaves_no_strays_and_the_next_one_goes_on(tmp_path: Path) -> None:
    home = tmp_path / "home"
    first = Up(home)
    first.end(signal.SIGKILL)
    until(lambda: of_home(home) == {})
    assert (home / "postgres" / "data" / "PG_VERSION").exists()
    second = Up(home)
    assert second.token == first.token
    assert answer(f"{second.url}/api/v1/me", first.token)[0] == 200
    assert second.end(signal.SIGINT) == 0
    assert of_home(home) == {}

    # Once more for a person: a friendly line, and no token, for it was shown.
    third = start(home)
    assert third.stdout is not None
    assert third.stdout.readline().startswith("Countersign is ready at http://127.0.0.1:")
    third.terminate()
    said, _ = third.communicate(timeout=180)
    assert first.token not in said
    assert third.returncode == 0

    # A database that a newer version migrated.
    with Cluster(home) as cluster:
        url = cluster.url("owner").replace("postgresql+psycopg", "postgresql")
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("UPDATE alembic_version SET version_num = '2999_01_01_later'")
    code, problem = refused(home)
    assert (code, problem["kind"]) == (6, "database-newer")
    assert of_home(home) == {}

    # A database that is broken.
    with (home / "postgres" / "data" / "global" / "pg_control").open("r+b") as control:
        control.truncate(10)
    code, problem = refused(home)
    assert (code, problem["kind"]) == (7, "postgres-cannot-start")
    assert "pg_control" in problem["detail"]
    assert of_home(home) == {}


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("draft")
    code, problem = refused(tmp_path)
    assert (code, problem["kind"]) == (6, "home-not-ours")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


PLACES = ["postgres/data.new", "postgres/data", "private/logs/api.log"]


@pytest.mark.parametrize("place", sampled(PLACES, ["postgres/data"]))
def test_a_signal_during_the_start_leaves_nothing(tmp_path: Path, place: str) -> None:
    home = tmp_path / "home"
    process = start(home)
    until((home / place).exists)
    process.terminate()
    assert process.communicate(timeout=180)[0] == ""
    assert process.returncode == 0
    assert of_home(home) == {}


def test_a_given_database_is_used_and_none_is_embedded(tmp_path: Path) -> None:
    with Cluster(tmp_path / "elsewhere") as cluster:
        running = Up(tmp_path / "home", COUNTERSIGN_DATABASE_URL=cluster.url("owner"))
        assert answer(f"{running.url}/api/v1/me", running.token)[0] == 200
        assert not (tmp_path / "home" / "postgres").exists()
        assert running.end() == 0
        assert cluster.alive()


def test_wrong_settings_and_extras_are_named(tmp_path: Path) -> None:
    process = start(tmp_path / "home", COUNTERSIGN_LEASE_SECONDS="soon")
    _, told = process.communicate(timeout=180)
    assert process.returncode == 2
    assert "COUNTERSIGN_LEASE_SECONDS" in told
    process = start(tmp_path / "home", "--with", "trainer,espresso")
    _, told = process.communicate(timeout=180)
    assert process.returncode == 2
    assert "espresso" in told
    assert not (tmp_path / "home").exists()


@pytest.mark.trainer
@pytest.mark.slow
def test_all_extras_run_beside_it_and_end_with_it(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    home = tmp_path / "home"
    running = Up(home, "--with", "trainer,mlflow,engine,gateway")
    assert set(running.told) == {"url", "admin_token", "mlflow", "engine", "gateway"}
    until(lambda: answer(f"{running.told['mlflow']}/health")[0] == 200, "MLflow answers", 300)
    until(lambda: answer(f"{running.told['gateway']}/healthz")[0] == 200)
    until(lambda: answer(f"{running.told['engine']}/health")[0] in (200, 503))
    words = json.loads((home / "private" / "postgres.json").read_text())
    for ending in ("trainer worker", "trainer engine", "registry gateway"):
        (pid,) = [pid for pid, argv in of_home(home).items() if ending in argv]
        environ = (Path("/proc") / str(pid) / "environ").read_text()
        assert "COUNTERSIGN_TOKEN=cs_" in environ
        assert not any(word in environ for word in words.values()), (
            "no database password outlives the registry"
        )
    with Cluster(home) as cluster:
        assert cluster.adopted
        url = cluster.url("mlflow").replace("postgresql+psycopg", "postgresql")
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT count(*) FROM experiments").fetchone() == (1,)
    assert running.end() == 0
    assert of_home(home) == {}


# The supervisor alone, with children of a line each


def shell(name: str, script: str) -> Child:
    return Child(name, ["sh", "-c", script], lambda: dict(os.environ))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    claim(tmp_path / "home")
    return tmp_path / "home"


@pytest.fixture
def alone(home: Path) -> Iterator[Supervisor]:
    made = Supervisor(home, None)
    yield made
    made.stop()
    assert strays(home) == []


def test_a_child_that_keeps_dying_starts_again_later_and_later(alone: Supervisor) -> None:
    dying = alone.add(shell("dying", "echo started >&2; echo cannot; exit 3"))
    begun = time.monotonic()
    alone.watch(lambda: dying.deaths == 3)
    assert time.monotonic() - begun > sum(supervising.DELAYS[:2])
    said = log_of(alone.home, "dying")
    assert said.read_text().count("started") == 3
    assert last_line(said) == "cannot"


def test_a_child_that_cannot_even_start_is_tried_again(alone: Supervisor) -> None:
    absent = alone.add(
        Child("absent", [str(alone.home / "no-such-program")], lambda: dict(os.environ))
    )
    alone.watch(lambda: absent.deaths >= 2)
    assert absent.process is None


def test_one_that_ignores_the_signal_is_killed_with_all_it_started(
    alone: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervising, "GRACE_SECONDS", 0.5)
    script = "trap '' TERM; setsid sleep 300 & sleep 300 & while :; do sleep 1; done"
    stubborn = alone.add(shell("stubborn", script))
    until(lambda: len(strays(alone.home)) >= 3)
    assert stubborn.process is not None
    alone.stop()
    assert strays(alone.home) == []


def test_what_an_earlier_supervisor_left_is_swept(home: Path) -> None:
    marked = dict(os.environ) | {MARK: str(home)}
    other = dict(os.environ) | {MARK: str(home) + "-other"}
    with (
        subprocess.Popen(["sleep", "300"], env=marked, start_new_session=True) as left,
        subprocess.Popen(["sleep", "300"], env=other) as kept,
    ):
        until(lambda: strays(home) == [left.pid])
        assert sweep(home, 60.0) == 1
        assert left.wait(60) == -signal.SIGTERM
        assert kept.poll() is None
        kept.kill()
