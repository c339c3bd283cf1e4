"""The catalogue of problems: what it lists is complete, each door has a status for each family, and
what it does not list cannot be raised.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry import errors
from registry.api import problems
from registry.api.hub.door import HUB_STATUSES
from registry.cli.errors import EXITS
from registry.errors import Conflict, Fault, NotFound, RegistryError, Unavailable, catalogue
from registry.gateway.problems import STATUSES as GATEWAY_STATUSES

ROOT = Path(__file__).parents[1]
FAMILIES = {cls.__name__: cls.family for cls in RegistryError.__subclasses__()}


def trees() -> Iterator[tuple[Path, ast.Module]]:
    for room in ("registry", "trainer"):
        for path in sorted((ROOT / room).rglob("*.py")):
            yield path, ast.parse(path.read_text(encoding="utf-8"))


def test_every_kind_is_named_in_the_sources() -> None:
    literals = {
        node.value
        for _, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert catalogue().keys() - literals == set(), "nothing raises these any more"


def test_what_the_sources_raise_by_name_is_listed_under_that_family() -> None:
    unlisted = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.func.id} {node.args[0].value}"
        for path, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in FAMILIES
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and (
            node.args[0].value not in catalogue()
            or catalogue()[node.args[0].value].family != FAMILIES[node.func.id]
        )
    ]
    assert unlisted == [], "add these to registry/problems.toml"


def test_every_entry_is_written_out() -> None:
    for entry in catalogue().values():
        assert entry.family in FAMILIES.values(), entry.kind
        assert entry.kind == entry.kind.lower().strip("-"), entry.kind
        assert not entry.title.endswith("."), entry.kind
        assert 5 < len(entry.title) <= 60, entry.kind
        assert entry.title[0].isupper() or entry.title.startswith(("pip", "max_")), entry.kind
        assert len(entry.meaning.split()) > 3, entry.kind
        assert entry.meaning.endswith("."), entry.kind
        assert entry.fix.endswith("."), entry.kind


def test_every_door_has_a_status_for_every_family() -> None:
    for table in (problems.STATUSES, HUB_STATUSES, GATEWAY_STATUSES, EXITS):
        assert set(table) == set(FAMILIES.values())


def test_the_catalogue_supplies_what_a_raise_leaves_out() -> None:
    entry = catalogue()["database-busy"]
    error = Unavailable("database-busy")
    assert (error.title, error.detail, error.fix) == (entry.title, entry.meaning, entry.fix)
    error = Unavailable("database-busy", "All 20 are in use.", "Wait.", retry_after=3)
    assert (error.title, error.detail, error.fix) == (entry.title, "All 20 are in use.", "Wait.")
    assert error.document()["facts"] == {"retry_after": 3}


@pytest.mark.parametrize(
    ("cls", "kind"), [(NotFound, "never-heard-of"), (Conflict, "database-busy")]
)
def test_what_is_not_listed_cannot_be_raised(cls: type[RegistryError], kind: str) -> None:
    with pytest.raises(Fault) as caught:
        raise cls(kind, "a secret", password="x")
    assert caught.value.kind == "problem-unlisted"
    assert "secret" not in str(caught.value.document())
    assert kind in caught.value.__notes__[0]  # the log has it


def test_a_received_error_may_be_of_a_newer_catalogue() -> None:
    error = Conflict.received("invented-later", "A title", "Why.", "Do this.", {"n": 1})
    assert isinstance(error, Conflict)
    assert error.document()["title"] == "A title"
    assert str(error) == "Why. Do this."
    with pytest.raises(KeyError):
        errors.problem("invented-later")
