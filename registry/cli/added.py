"""What `add` and `import` answer: the version that was added, or the refusal of its bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from registry.cli.output import emit, fields, state, table
from registry.errors import BundleRejected

if TYPE_CHECKING:
    from registry.views.imports import ImportedView
    from registry.views.versions import AddedView

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


class refusal_as_document:  # noqa: N801 - reads as the `with` it is for
    """Around an `add`: a refused bundle is also the answer of this command, so with --json it goes
    to stdout.
    """

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json

    def __enter__(self) -> None: ...

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if self.as_json and isinstance(error, BundleRejected):
            emit(
                {
                    "ref": None,
                    "digest": None,
                    "root": None,
                    "status": "refused",
                    "findings": [],
                    "defects": error.defects,
                }
            )


def show_added(added: AddedView | ImportedView, as_json: bool) -> None:
    """What an `add` did; a draft lists what a person must still supply."""
    if as_json:
        emit(added)
        return
    fields(f"{added.ref}  {state(added.status)}", [("Digest", added.digest), ("Root", added.root)])
    if added.findings:
        click.echo("Still missing:")
        table(
            ["Field", "Why", "What to do"],
            [(one.field, one.detail, one.fix) for one in added.findings],
        )
