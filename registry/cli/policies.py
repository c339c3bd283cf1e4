"""Policies: policy ls, show, check, publish."""

from __future__ import annotations

from pathlib import Path

import click

from registry.cli.output import cell, emit, fields, json_option, note, state, table
from registry.cli.parameters import FILE
from registry.cli.session import connect, document
from registry.errors import Invalid, NotFound


@click.group()
def policy() -> None:
    """List, show, check and publish policies.

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
                policy.ref,
                policy.environment,
                state("current" if policy.current else "superseded"),
                policy.digest,
                policy.published_at,
            )
            for policy in policies
        ]
        table(["Policy", "Environment", "State", "Digest", "Published"], rows)


@policy.command("show")
@click.argument("ref", metavar="REF|ENVIRONMENT")
@json_option
def show(ref: str, as_json: bool) -> None:
    """Show one policy version, or the current one of an environment.

    The YAML is printed on stdout as it was published, its properties on stderr.

    \b
    Example:
      countersign policy show production > production.yaml
    """
    with connect() as registry:
        policies = registry.policies()
    matches = (
        policy
        for policy in policies
        if ref == policy.ref or (policy.current and ref == policy.environment)
    )
    shown = next(matches, None)
    if shown is None:
        raise NotFound(
            "policy-unknown", f"There is no policy '{ref}'.", "List them: countersign policy ls."
        )
    if as_json:
        emit(shown)
        return
    note(f"{shown.ref}  {state('current' if shown.current else 'superseded')}")
    note(f"  {shown.digest}")
    note(f"  published by {shown.published_by} on {cell(shown.published_at)}")
    click.echo(shown.text, nl=not shown.text.endswith("\n"))


@policy.command("check")
@click.argument("file", type=FILE)
@json_option
def check(file: Path, as_json: bool) -> None:
    """Check a policy file without publishing it.

    Needs no registry.

    \b
    Example:
      countersign policy check production.yaml
    """
    from registry.documents import canonical
    from registry.rules import policies

    rules = policies.as_rules(policies.parse(document(file)))
    digest = canonical.digest(rules)
    if as_json:
        emit({"environment": rules["environment"], "digest": digest, "rules": rules})
    else:
        fields(
            f"{file} is a policy for {rules['environment']}",
            [("Digest", digest), ("Rules of the gate", list(rules["evidence"]))],
        )


@policy.command("publish")
@click.argument("file", type=FILE)
@json_option
def publish(file: Path, as_json: bool) -> None:
    """Publish a policy file for the environment that it names.

    It becomes the next policy version. Open reviews keep the version they were opened under.

    \b
    Example:
      countersign policy publish production.yaml
    """
    try:
        text = file.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise Invalid("bad-yaml", f"{file} is not UTF-8 text.", "Save it as UTF-8.") from error
    with connect() as registry:
        published = registry.publish_policy(text)
    if as_json:
        emit(published)
    else:
        fields(f"{published.ref}  {state('current')}", [("Digest", published.digest)])
