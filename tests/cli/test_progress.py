"""The bar of bytes: what it shows, where it shows, and that it fits the line."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
from pathlib import Path

import pytest

from registry.cli.progress import Bar, human
from registry.cli.progress import bar as progress
from tests.client.wire import Answer, Wire


class Screen:
    """What was written, and a clock that is told what time it is."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.now = 0.0

    @property
    def line(self) -> str:
        return self.texts[-1].rpartition("\r\033[K")[2]


def drawn(size: int) -> tuple[Bar, Screen]:
    screen = Screen()
    return Bar("Sending ./files", size, screen.texts.append, lambda: screen.now), screen


def test_it_shows_how_far_how_fast_and_how_long_still() -> None:
    bar, screen = drawn(2_000_000_000)
    assert screen.line == "Sending ./files  [------------------------]   0%  0 B of 2.0 GB"
    bar.hashed(1)
    screen.now = 2.0
    bar.hashed(999_999_999)
    assert screen.line.endswith("50%  1.0 GB of 2.0 GB  500 MB/s  0:02 left  hashing")
    screen.now = 10.0
    bar(1)
    screen.now = 20.0
    bar(499_999_999)
    assert screen.line.endswith(
        "[######------------------]  25%  500 MB of 2.0 GB  50 MB/s  0:30 left"
    )
    screen.now = 21.0
    bar(-400_000_000)  # a cut takes back what did not arrive
    assert "5%  100 MB of 2.0 GB" in screen.line


def test_what_need_not_be_sent_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    bar, screen = drawn(1000)
    bar.known(400)
    bar.resumed(250)
    bar(350)
    bar.close()
    assert "100%  1.0 kB of 1.0 kB" in screen.texts[-2]
    assert capsys.readouterr().err == (
        "Resumed: the registry has 250 B from an earlier attempt.\n"
        "The registry already had 650 B of 1.0 kB.\n"
    )


def test_nothing_to_send_is_all_of_it() -> None:
    bar, screen = drawn(0)
    bar.close()
    assert "100%" in screen.texts[-2]


def test_who_stops_it_is_told_that_it_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with pytest.raises(KeyboardInterrupt), progress("Sending ./files", 1000, False) as step:
        step(500)
        raise KeyboardInterrupt
    assert capsys.readouterr().err.endswith("Stopped. Run the same command again to resume.\n")
    with progress("Sending ./files", 1000, True) as step:
        step(1000)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (9_990_000, "10 MB"),
        (12_345_678_901, "12 GB"),
        (5e15, "5000 TB"),
    ],
)
def test_bytes_as_people_say_them(size: float, said: str) -> None:
    assert human(size) == said


def test_a_terminal_sees_a_bar_that_fits_its_line_and_stdout_stays_clean(
    wire: Wire, tmp_path: Path
) -> None:
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    (folder / "weights.bin").write_bytes(os.urandom(1 << 20))
    wire.script = lambda seen: Answer(
        404 if seen.method == "HEAD" else 201,
        {"ref": "a/b@v1", "digest": "d", "root": "r", "status": "draft", "findings": []},
    )
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "registry", "adapter", "add", str(folder), "--name", "a/b"]
    child = subprocess.Popen(
        command, env=os.environ | {"COLUMNS": "100"}, stdout=subprocess.PIPE, stderr=theirs
    )
    os.close(theirs)
    seen = b""
    while select.select([ours], [], [], 120)[0]:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # the other end was closed
            break
        seen += piece
    out, _ = child.communicate(timeout=120)
    os.close(ours)
    assert child.returncode == 0, seen
    assert b"a/b@v1" in out
    assert b"\r" not in out
    pictures = re.split(r"\r\x1b\[K|\r?\n", seen.decode())
    assert any("100%  1.0 MB of 1.0 MB" in picture for picture in pictures), pictures
    assert max(map(len, pictures)) <= 100
