"""Policies: policy ls, show."""

from __future__ import annotations

import click

from registry.cli.output import emit, fields, json_option, state, table
from registry.cli.session import connect
from registry.errors import NotFound


@click.group()
def policy() -> None:
    """Policies: list, show.

    \b
    Example:
      countersign policy show production
    """


@policy.command("ls")
@json_option
def list_policies(as_json: bool) -> None:
    """List published policy versions.

    \b
    Example:
      countersign policy ls
    """
    with connect() as registry:
        policies = registry.policies()
    if as_json:
        emit(policies)
    else:
        rows = [
            (
                one.ref,
                one.environment,
                state("current" if one.current else "superseded"),
                one.digest,
                one.published_at,
            )
            for one in policies
        ]
        table(["Policy", "Environment", "State", "Digest", "Published"], rows)


@policy.command("show")
@click.argument("ref", metavar="REF|ENVIRONMENT")
@json_option
def show(ref: str, as_json: bool) -> None:
    """Show one policy version, or the current one of an environment.

    \b
    Example:
      countersign policy show production
    """
    with connect() as registry:
        found = [
            one
            for one in registry.policies()
            if ref == one.ref or (one.current and ref == one.environment)
        ]
    if not found:
        raise NotFound(
            "policy-unknown", f"There is no policy '{ref}'.", "List them: countersign policy ls."
        )
    one = found[0]
    if as_json:
        emit(one)
        return
    fields(
        f"{one.ref}  {state('current' if one.current else 'superseded')}",
        [
            ("Environment", one.environment),
            ("Digest", one.digest),
            ("Published by", one.published_by),
            ("Published", one.published_at),
        ],
    )
    click.echo(one.text, nl=not one.text.endswith("\n"))
