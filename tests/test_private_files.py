from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from registry.proof.private_files import write_private


def test_the_owner_alone_reads_it_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        path = write_private(tmp_path / "token", "secret\n")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text() == "secret\n"


def test_the_content_is_replaced_and_no_draft_is_left(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("old and readable")
    write_private(path, b"\0new")
    assert path.read_bytes() == b"\0new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_of_many_writers_one_makes_the_file(tmp_path: Path) -> None:
    path = tmp_path / "key"

    def write(number: int) -> bool:
        try:
            write_private(path, str(number), overwrite=False)
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(write, range(64)))
    assert made.count(True) == 1
    assert path.read_text() == str(made.index(True))
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_content_and_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    with pytest.raises(IsADirectoryError):
        write_private(path, "text")
    assert list(tmp_path.iterdir()) == [path]
