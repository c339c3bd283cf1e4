"""The data behind a version, as the people who registered it described it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from registry.errors import NotFound
from registry.queries import datasets
from registry.web.shelves import ref_path
from registry.web.visits import Visit

STATEMENTS = {
    "personal_data": "Personal data",
    "source": "Source",
    "legal_basis": "Legal basis",
    "licence": "Licence",
    "retention": "Retention",
    "redaction": "Redaction",
}
"""Member of a data set's meta -> its label, in the order of the page."""


@dataclass(frozen=True, slots=True)
class Ground:
    """One data set with what was stated about it; a statement that is missing is empty."""

    ref: str
    path: str
    state: str
    statements: dict[str, str]


def grounds(here: Visit, evidence: dict[str, Any]) -> list[Ground]:
    """Every data set that the evidence names. What the evidence froze is shown in any case."""
    return [_ground(here, each) for each in evidence.get("datasets") or []]


def _ground(here: Visit, frozen: dict[str, Any]) -> Ground:
    ref = frozen["ref"]
    try:
        data = datasets.dataset(here.store, here.actor, ref)
    except NotFound:  # deleted since, or of a team that this person does not see
        meta, state, path = dict[str, Any](), "", ""
    else:
        meta, state, path = data.meta, data.state, ref_path("datasets", ref)
    return Ground(ref, path, state, statements(meta | frozen))


def statements(meta: dict[str, Any]) -> dict[str, str]:
    """The statements about a data set by label; optional ones only where they were made."""
    return {
        label: str(meta.get(name) or "")
        for name, label in STATEMENTS.items()
        if meta.get(name) or name != "redaction"
    }
