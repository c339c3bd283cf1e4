"""`delete` and `discard`, the same verbs for base models, adapters, checkpoints and data sets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from registry.cli.output import emit, fields, json_option, state
from registry.cli.parameters import REASON
from registry.cli.session import connect

if TYPE_CHECKING:
    from registry.views.retention import TombstoneView


def attach(group: click.Group, kind: str, example: str, prefix: str = "") -> None:
    """Add `delete` and `discard` to the group of a kind."""

    @group.command(
        "delete",
        help="Delete a version for good; its tombstone stays.\n\n"
        "Refused while a legal hold, a retention class or another version keeps it. Its number is "
        "never used again.\n\n"
        f"\b\nExample:\n  countersign {kind} delete {example}@v1 --reason 'Superseded'",
    )
    @click.argument("ref", metavar="REF")
    @REASON
    @json_option
    def delete(ref: str, reason: str, as_json: bool) -> None:
        with connect() as registry:
            tombstone = registry.delete(prefix + ref.removeprefix(prefix), reason)
        _show(tombstone, as_json)

    @group.command(
        "discard",
        help="Discard a draft for good.\n\n"
        f"\b\nExample:\n  countersign {kind} discard {example}@draft-0a1b2c3d --reason 'A mistake'",
    )
    @click.argument("ref", metavar="REF")
    @REASON
    @json_option
    def discard(ref: str, reason: str, as_json: bool) -> None:
        with connect() as registry:
            tombstone = registry.discard(prefix + ref.removeprefix(prefix), reason)
        _show(tombstone, as_json)


def _show(tombstone: TombstoneView, as_json: bool) -> None:
    if as_json:
        emit(tombstone)
        return
    fields(
        f"{tombstone.ref}  {state(tombstone.how)}",
        [
            ("Was", tombstone.was),
            ("At", tombstone.at),
            ("By", tombstone.by),
            ("Reason", tombstone.reason),
        ],
    )
