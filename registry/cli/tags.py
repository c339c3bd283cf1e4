"""`tag`, the same verb for base models, adapters and checkpoints."""

from __future__ import annotations

import click

from registry.cli.output import emit, fields, json_option
from registry.cli.parameters import Kind
from registry.cli.session import connect
from registry.errors import Invalid


def attach(group: click.Group, kind: Kind, example: str) -> None:
    """Add `tag` to the group of a kind."""

    @group.command(
        "tag",
        help="Set or remove tags of a version.\n\n"
        "A tag helps to find a version and decides nothing.\n\n"
        f"\b\nExample:\n  countersign {kind} tag {example}@v1 topic=claims --remove old",
    )
    @click.argument("ref", metavar="REF")
    @click.argument("pairs", metavar="[KEY=VALUE]...", nargs=-1)
    @click.option("--remove", multiple=True, metavar="KEY", help="A tag to remove; repeatable.")
    @json_option
    def tag(ref: str, pairs: tuple[str, ...], remove: tuple[str, ...], as_json: bool) -> None:
        tags = [pair.partition("=") for pair in pairs]
        if not (tags or remove) or not all(equals for _, equals, _ in tags):
            raise Invalid(
                "usage",
                "A tag is set by KEY=VALUE and removed by --remove KEY.",
                "Name at least one tag.",
            )
        with connect() as registry:
            answers = [registry.tag(ref, key, value) for key, _, value in tags]
            answers += [registry.untag(ref, key) for key in remove]
        if as_json:
            emit(answers[-1])
        else:
            fields(answers[-1].ref, list(answers[-1].tags.items()))
