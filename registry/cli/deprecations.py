"""`deprecate`, the same verb for base models, adapters, checkpoints and data sets."""

from __future__ import annotations

import click

from registry.cli.output import emit, fields, json_option, state
from registry.cli.retention import REASON
from registry.cli.session import connect


def attach(group: click.Group, kind: str, example: str, prefix: str = "") -> None:
    """Give a kind's group its `deprecate`."""

    @group.command(
        "deprecate",
        help="Mark a version as not to be newly used, for good: no new rollout of it starts. What "
        "serves stays, and a rollback may return to it."
        f"\n\n\b\nExample:\n  countersign {kind} deprecate {example}@v1 --reason 'Use v2'",
    )
    @click.argument("ref", metavar="REF")
    @REASON
    @json_option
    def deprecate(ref: str, reason: str, as_json: bool) -> None:
        with connect() as registry:
            done = registry.deprecate(prefix + ref.removeprefix(prefix), reason)
        if as_json:
            emit(done)
            return
        fields(
            f"{done.ref}  {state('deprecated')}",
            [("At", done.at), ("By", done.by), ("Because", done.reason)],
        )
