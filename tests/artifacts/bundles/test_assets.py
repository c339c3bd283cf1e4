"""Every named case of tests/assets: exactly the defects it is made to have, and what safetensors
says of its weights.
"""

from __future__ import annotations

import pytest
from safetensors import SafetensorError
from safetensors.numpy import load

from registry.artifacts.bundles.names import ADAPTER, FULL
from tests.artifacts.bundle_files import look
from tests.assets.cases import WEIGHTS
from tests.assets.make import CASES, DIGESTS, digests


@pytest.mark.parametrize("name", CASES)
def test_each_case_has_exactly_its_defects(name: str) -> None:
    case = CASES[name]
    found = look(case.kind, case.make())
    assert [(one.rule, one.file, one.where) for one in found.defects] == list(case.defects)
    assert all(one.detail and one.fix for one in found.defects)
    assert (found.tensor_root is None) == bool(case.defects)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.library])
def test_what_the_safetensors_library_says_of_it(name: str) -> None:
    """Beside our own: most of what it accepts here, it accepts without a word. If it ever refuses,
    it says so here.
    """
    content = CASES[name].make()[WEIGHTS]
    if CASES[name].library == "accepts":
        load(content)
    else:
        with pytest.raises((SafetensorError, KeyError, ValueError)):
            load(content)


def test_the_cases_are_made_alike_everywhere() -> None:
    assert digests() == DIGESTS.read_text("utf-8")


def test_no_two_names_that_are_allowed_differ_in_case_alone() -> None:
    """On a file system that does not tell them apart, one of them would be lost."""
    for names in (ADAPTER, FULL):
        assert len({name.casefold() for name in names}) == len(names)
