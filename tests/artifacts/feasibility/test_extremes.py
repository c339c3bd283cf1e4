"""What stands out in a data set: its beginning is read once, and kept, and nothing is missed."""

from __future__ import annotations

import json
import random
from hashlib import sha256
from typing import Any

import pytest

from registry.artifacts.datasets.rows import Row, rows
from registry.artifacts.feasibility import extremes as judged
from registry.artifacts.feasibility.extremes import extremes
from registry.artifacts.tokenizers.prompts import MAX_SHOWN_CHARACTERS
from registry.artifacts.weights.tensors import File, Read
from registry.errors import Unverified


def stored(*lines: dict[str, Any] | str) -> tuple[File, Read, list[int]]:
    """A data set of these lines, how it is read, and the sizes that were read."""
    texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
    data = "\n".join(texts).encode()
    sizes: list[int] = []

    def read(_: str, start: int, length: int) -> bytes:
        sizes.append(length)
        return data[start : start + length]

    return File("rows.jsonl", sha256(data).hexdigest(), len(data)), read, sizes


def row(number: int, **members: Any) -> dict[str, Any]:
    return {"prompt": f"question {number}", "completion": "answer", **members}


def test_a_file_is_read_once_for_all_that_is_asked() -> None:
    lines = [row(n) for n in range(5)] + [row(5, system="a"), row(6, system="b")]
    file, read, sizes = stored(*lines)
    seen = extremes(file, read, "train")
    count = len(sizes)
    assert [seen.other_system(system) for system in ("a", "b", "c")] == [7, 6, 6]
    assert extremes(file, read, "train") is seen
    assert len(sizes) == count
    assert extremes(file, read, "dev").first is None
    assert len(sizes) > count


def test_bytes_that_are_missing_are_looked_for_again() -> None:
    file, read, _ = stored(row(1), row(2, system="lost"))

    def empty(_: str, start: int, length: int) -> bytes:
        raise KeyError

    with pytest.raises(Unverified):
        extremes(file, empty, "train")
    assert extremes(file, read, "train").first is not None


@pytest.mark.parametrize("seed", range(40))
def test_the_other_system_prompt_is_the_one_that_a_full_read_finds(seed: int) -> None:
    chance = random.Random(seed)
    systems = ["a", "b", "", " ", None, 'say "system": "c"', "\\", "ä\n"][: 2 + seed % 7]

    def line(number: int) -> str:
        members = row(number, split=chance.choice(["train", "train", "dev"]))
        for key in chance.sample(["system", "meta", "other"], chance.randint(0, 3)):
            system = chance.choice(systems)
            members[key] = system if key == "system" else {"system": system}
        return json.dumps(
            members,
            ensure_ascii=chance.random() < 0.5,
            separators=(",", ":") if chance.random() < 0.5 else None,
        )

    file, read, _ = stored(*(line(number) for number in range(chance.randint(1, 12))))
    seen = extremes(file, read, "train")
    full = [each for each in rows(file, read) if isinstance(each, Row) and each.split == "train"]
    for system in ("a", "b", "another"):
        others = [each.line for each in full if each.own_system not in (None, system)]
        assert seen.other_system(system) == (others[0] if others else None)


def test_few_lines_are_parsed_where_all_have_one_system_prompt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parsed: list[int] = []
    real = judged.read_row

    def counted(path: str, number: int, line: bytes) -> Any:
        parsed.append(number)
        return real(path, number, line)

    monkeypatch.setattr(judged, "read_row", counted)
    file, read, _ = stored(*(row(n, system="Be brief.") for n in range(500)), row(1, system="No."))
    assert extremes(file, read, "train").other_system("Be brief.") == 501
    assert len(parsed) <= judged.MAX_LONGEST + 3


@pytest.mark.parametrize(("spare", "longest"), [(0, 3), (1, 2)])
def test_a_line_that_the_limit_cuts_is_left_out(
    spare: int, longest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, read, _ = stored(row(1), row(2), row(3, system="x", meta=spare))
    monkeypatch.setattr(judged, "MAX_SCANNED_BYTES", file.size - spare)
    seen = extremes(file, read, "train")
    assert len(seen.longest) == longest
    assert (seen.other_system("y") is None) == bool(spare)


def test_what_is_kept_of_a_large_row_is_small() -> None:
    file, read, _ = stored(row(1, system="s" * 300_000, completion="word " * 100_000))
    seen = extremes(file, read, "train")
    assert seen.first is not None
    assert len(str(seen)) < 3 * MAX_SHOWN_CHARACTERS
    assert seen.longest[0].words == 100_002
    assert seen.other_system("s" * 300_000) is None
    assert seen.other_system("s") == 1
