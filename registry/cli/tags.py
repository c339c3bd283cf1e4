"""`tag`, the same verb for base models, adapters and checkpoints."""

from __future__ import annotations

from typing import Literal

import click

from registry.cli.output import emit, fields, json_option
from registry.cli.session import connect
from registry.errors import Invalid


def attach(
    group: click.Group, kind: Literal["base", "adapter", "checkpoint"], example: str
) -> None:
    """Give a kind's group its `tag`."""

    @group.command(
        "tag",
        help="Put tags on a version, or take them off; a tag helps to find it and decides nothing."
        f"\n\n\b\nExample:\n  countersign {kind} tag {example}@v1 topic=claims --remove old",
    )
    @click.argument("ref", metavar="REF")
    @click.argument("pairs", metavar="[KEY=VALUE]...", nargs=-1)
    @click.option("--remove", multiple=True, metavar="KEY", help="A tag to take off.")
    @json_option
    def tag(ref: str, pairs: tuple[str, ...], remove: tuple[str, ...], as_json: bool) -> None:
        said = [pair.partition("=") for pair in pairs]
        if not (said or remove) or not all(equals for _, equals, _ in said):
            raise Invalid(
                "usage",
                "Tags are given as KEY=VALUE, or taken off with --remove KEY.",
                "Name at least one.",
            )
        with connect() as registry:
            answers = [registry.tag(ref, key, value) for key, _, value in said]
            answers += [registry.untag(ref, key) for key in remove]
        if as_json:
            emit(answers[-1])
        else:
            fields(answers[-1].ref, list(answers[-1].tags.items()))
