"""What an import took and what it left out, as an answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from registry.errors import Defect
from registry.views.versions import AddedView, FindingView


@dataclass(frozen=True, slots=True)
class LeftOut:
    """One thing of the source that did not become part of the bundle, why, and its size in bytes.

    `asked` says that a person named it in --leave-out, and accepts to go without it.
    """

    path: str
    why: str
    size: int = 0
    asked: bool = False


@dataclass(frozen=True, slots=True)
class ImportedView:
    """An `AddedView` with the source of the files and what was left out.

    Everything that was left out is listed, so that nothing is dropped silently.
    """

    ref: str
    digest: str
    root: str | None
    status: str
    source: str
    left_out: list[LeftOut]
    meta: dict[str, Any]
    findings: list[FindingView] = field(default_factory=list)
    defects: list[Defect] = field(default_factory=list)

    @classmethod
    def of(
        cls, added: AddedView, source: str, left_out: list[LeftOut], meta: dict[str, Any]
    ) -> ImportedView:
        """The answer of `add` with the facts of the import."""
        return cls(
            added.ref,
            added.digest,
            added.root,
            added.status,
            source,
            left_out,
            meta,
            added.findings,
            added.defects,
        )
