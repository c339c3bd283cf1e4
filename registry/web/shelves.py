"""The kinds of line, each with its own part of the console, and the addresses of their pages."""

from __future__ import annotations

from dataclasses import dataclass

from registry.queries import versions
from registry.rules.refs import parse_ref
from registry.web import words
from registry.web.visits import Visit


@dataclass(frozen=True, slots=True)
class Shelf:
    """One kind of line and its part of the console.

    `add_command` is the command that registers the first version of this kind.
    """

    path: str
    kind: str
    title: str
    noun: str
    add_command: str


SHELVES = (
    Shelf(
        "adapters",
        "adapter",
        "Adapters",
        "adapter",
        "countersign adapter add DIR --name team/name --base REF",
    ),
    Shelf(
        "checkpoints",
        "checkpoint",
        "Checkpoints",
        "checkpoint",
        "countersign checkpoint add DIR --name team/name",
    ),
    Shelf(
        "bases", "base", "Base models", "base model", "countersign base add DIR --name team/name"
    ),
)
BY_KIND = {shelf.kind: shelf for shelf in SHELVES}


@dataclass(frozen=True, slots=True)
class VersionAddress:
    """The address of one version's page, as its path names it."""

    shelf: Shelf
    team: str
    name: str
    number: int

    @property
    def ref(self) -> str:
        return f"{self.team}/{self.name}@v{self.number}"

    @property
    def path(self) -> str:
        return f"/{self.shelf.path}/{self.team}/{self.name}/v/{self.number}"


def version_path(kind: str, ref: str) -> str:
    """The page of a version, by its canonical reference.

    adapter, team/name@v3 -> /adapters/team/name/v/3. A draft has no page of its own, so its path is
    that of its line.
    """
    parsed = parse_ref(ref)
    line = f"/{BY_KIND[kind].path}/{parsed.line}"
    return f"{line}/v/{parsed.number}" if parsed.number else line


def ref_path(shelf: str, ref: str) -> str:
    """The page of a version of a data set or a suite: team/name@v3 -> /datasets/team/name/v/3."""
    return f"/{shelf}/{words.address(ref)}"


def path_of(here: Visit, ref: str) -> str:
    """The page of the version that a reference names; NotFound when it names none."""
    version = versions.version(here.store, here.actor, ref, gone=True)
    return version_path(version.kind, version.ref)
