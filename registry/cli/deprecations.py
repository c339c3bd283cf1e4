"""`deprecate`, the same verb for base models, adapters, checkpoints and data sets."""

from __future__ import annotations

import click

from registry.cli.output import emit, fields, json_option, state
from registry.cli.parameters import REASON
from registry.cli.session import connect


def attach(group: click.Group, kind: str, example: str, prefix: str = "") -> None:
    """Add `deprecate` to the group of a kind."""

    @group.command(
        "deprecate",
        help="Deprecate a version for good: no new rollout of it starts.\n\n"
        "What it serves now stays, and a rollback may return to it.\n\n"
        f"\b\nExample:\n  countersign {kind} deprecate {example}@v1 --reason 'Use v2'",
    )
    @click.argument("ref", metavar="REF")
    @REASON
    @json_option
    def deprecate(ref: str, reason: str, as_json: bool) -> None:
        with connect() as registry:
            deprecation = registry.deprecate(prefix + ref.removeprefix(prefix), reason)
        if as_json:
            emit(deprecation)
            return
        fields(
            f"{deprecation.ref}  {state('deprecated')}",
            [("At", deprecation.at), ("By", deprecation.by), ("Reason", deprecation.reason)],
        )
