from __future__ import annotations

from pathlib import Path

import pytest

from registry.artifacts.weights.local_files import read_files


def test_it_reads_as_the_contract_of_read_says(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"0123456789")
    read = read_files({"a" * 64: tmp_path / "one", "b" * 64: tmp_path / "gone"}.__getitem__)
    assert read("a" * 64, 2, 3) == b"234"
    assert read("a" * 64, 8, 100) == b"89"
    assert read("a" * 64, 10, 1) == b""
    with pytest.raises(KeyError):
        read("c" * 64, 0, 1)
    with pytest.raises(FileNotFoundError):
        read("b" * 64, 0, 1)
