"""`template`, the same verb for base models, adapters and checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from registry.cli.output import emit, fields, json_option
from registry.cli.parameters import Kind
from registry.cli.session import connect

if TYPE_CHECKING:
    from registry.views.chat_templates import ChatTemplateView, RenderedView


def attach(group: click.Group, kind: Kind, example: str) -> None:
    """Add `template` to the group of a kind."""

    @group.command(
        "template",
        help="Compare a version's chat template with its base's.\n\n"
        "Shows their differences, and sample conversations under both.\n\n"
        f"\b\nExample:\n  countersign {kind} template {example}@v1",
    )
    @click.argument("ref", metavar="REF")
    @json_option
    def template(ref: str, as_json: bool) -> None:
        with connect() as registry:
            compared = registry.chat_template(ref)
        if as_json:
            emit(compared)
        else:
            _show(compared)


def _show(compared: ChatTemplateView) -> None:
    fields(
        compared.ref,
        [
            ("Chat template", _whose(compared)),
            ("File", compared.source),
            ("Digest", compared.digest),
            ("Base", compared.base),
            ("Base's digest", compared.base_digest),
            ("Own templates allowed in", compared.allowed_in or None),
        ],
    )
    for concern in compared.concerns:
        click.echo(f"! {concern}")
    for template in compared.templates:
        for line in template.diff:
            colour = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1])
            click.secho(line, fg=colour)
    for conversation in compared.conversations:
        click.echo()
        click.secho(conversation.title, bold=True)
        for message in conversation.messages:
            click.echo(f"  {message['role']}: {message['content']!r}")
        own, base = conversation.own, conversation.base
        if own == base or base is None or own is None:
            click.echo(f"  renders as {_rendered(own or base)}")
        else:
            click.echo(f"  base:    {_rendered(base)}")
            click.echo(f"  version: {_rendered(own)}")


def _whose(compared: ChatTemplateView) -> str:
    if compared.own:
        return "its own, not its base's"
    if compared.source is None:
        return "its base's" if compared.base_digest else "none"
    return "the same as its base's" if compared.base else "its own"


def _rendered(view: RenderedView | None) -> str:
    if view is None:
        return "nothing"
    if view.failed is not None:
        return f"nothing: {view.failed}"
    return f"a refusal: {view.raised}" if view.raised is not None else repr(view.text)
