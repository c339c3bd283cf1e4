"""What `add` and `import` answer: the version that was added, or the refusal of its bundle."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from registry.cli.output import emit, fields, state, table
from registry.errors import BundleRejected

if TYPE_CHECKING:
    from registry.views.imports import ImportedView
    from registry.views.versions import AddedView


@contextmanager
def refusal_as_document(as_json: bool) -> Iterator[None]:
    """With --json, also print a refused bundle on stdout: it is an answer of this command."""
    try:
        yield
    except BundleRejected as error:
        if as_json:
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
        raise


def show_added(added: AddedView | ImportedView, as_json: bool) -> None:
    """Show the version that was added, and what a person must still supply for a draft."""
    if as_json:
        emit(added)
        return
    fields(f"{added.ref}  {state(added.status)}", [("Digest", added.digest), ("Root", added.root)])
    for blocks, heading in ((True, "Still missing:"), (False, "To know:")):
        findings = [finding for finding in added.findings if finding.blocks is blocks]
        if findings:
            click.echo(heading)
            table(
                ["Field", "Why", "What to do"],
                [(finding.field, finding.detail, finding.fix) for finding in findings],
            )
