"""`template`, the same verb for base models, adapters and checkpoints: what a chat template says,
and what it changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import click

from registry.cli.output import emit, fields, json_option
from registry.cli.session import connect

if TYPE_CHECKING:
    from registry.views.chat_templates import ChatTemplateView, RenderedView


def attach(
    group: click.Group, kind: Literal["base", "adapter", "checkpoint"], example: str
) -> None:
    """Give a kind's group its `template`."""

    @group.command(
        "template",
        help="Show a version's chat template: how it differs from its base's, and conversations "
        "under both."
        f"\n\n\b\nExample:\n  countersign {kind} template {example}@v1",
    )
    @click.argument("ref", metavar="REF")
    @json_option
    def template(ref: str, as_json: bool) -> None:
        with connect() as registry:
            found = registry.chat_template(ref)
        if as_json:
            emit(found)
        else:
            _show(found)


def _show(found: ChatTemplateView) -> None:
    fields(
        found.ref,
        [
            ("Chat template", _standing(found)),
            ("Stands in", found.source),
            ("Digest", found.digest),
            ("Base", found.base),
            ("Base's digest", found.base_digest),
            ("Own ones allowed in", found.allowed_in or None),
        ],
    )
    for concern in found.concerns:
        click.echo(f"! {concern}")
    for one in found.templates:
        for line in one.diff:
            colour = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1])
            click.secho(line, fg=colour)
    for golden in found.conversations:
        click.echo()
        click.secho(golden.title, bold=True)
        for message in golden.messages:
            click.echo(f"  {message['role']}: {message['content']!r}")
        if golden.own == golden.base or golden.base is None or golden.own is None:
            click.echo(f"  renders as {_said(golden.own or golden.base)}")
        else:
            click.echo(f"  base:    {_said(golden.base)}")
            click.echo(f"  version: {_said(golden.own)}")


def _standing(found: ChatTemplateView) -> str:
    if found.own:
        return "its own, not its base's"
    if found.source is None:
        return "its base's" if found.base_digest else "none"
    return "the same as its base's" if found.base else "its own"


def _said(rendered: RenderedView | None) -> str:
    if rendered is None:
        return "nothing"
    if rendered.failed is not None:
        return f"nothing: {rendered.failed}"
    return f"a refusal: {rendered.raised}" if rendered.raised is not None else repr(rendered.text)
