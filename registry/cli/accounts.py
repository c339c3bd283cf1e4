"""Accounts, tokens and signing keys: login, key, token, people."""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from registry.cli.output import emit, fields, json_option, note, table
from registry.cli.parameters import ENVIRONMENT, HOME
from registry.cli.session import (
    address,
    connect,
    in_environment,
    signing_key_path,
    store_login,
)
from registry.errors import Invalid, Unavailable
from registry.rules.actors import Role

if TYPE_CHECKING:
    from registry.client import Countersign
    from registry.views.accounts import GrantView


@click.command()
@click.argument("url")
@click.option("--token-stdin", is_flag=True, help="Read the token from standard input.")
@json_option
def login(url: str, token_stdin: bool, as_json: bool) -> None:
    """Sign in to a registry and store the token.

    \b
    Example:
      countersign login http://127.0.0.1:8080 --token-stdin < token.txt
    """
    if token_stdin:
        token = sys.stdin.readline().strip()
    elif sys.stdin.isatty():
        token = click.prompt("Token", hide_input=True, err=True).strip()
    else:
        raise click.UsageError(
            "There is no terminal to ask for the token. Pass --token-stdin, and the token on "
            "standard input."
        )
    with connect(url, token) as registry:
        me = registry.me()
    path = store_login(url, token)
    if as_json:
        emit({"url": url.rstrip("/"), "account": me.name, "file": str(path)})
    else:
        click.echo(
            f"Signed in to {url.rstrip('/')} as {me.name} ({_grants(me.grants)}); the token is "
            f"stored in {path}."
        )


@click.group()
def key() -> None:
    """Create, enrol and list signing keys.

    \b
    Example:
      countersign key enroll --label laptop
    """


@key.command("enroll")
@click.option(
    "--label",
    default=platform.node,
    show_default="this machine's name",
    help="A name for the key.",
)
@click.option(
    "--key-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Your private key; by default signing.key in the configuration folder.",
)
@json_option
def enroll(label: str, key_file: Path | None, as_json: bool) -> None:
    """Enrol your Ed25519 key; create it if there is none.

    \b
    Example:
      countersign key enroll --label laptop
    """
    from registry.proof.keys import SigningKey

    path = signing_key_path(key_file)
    if path.exists():
        own = SigningKey.load(path)
    else:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        own = SigningKey.generate()
        own.save(path)
        note(f"Created a signing key at {path}. Keep it secret.")
    with connect() as registry:
        enrolled = registry.enroll_key(
            own.public_text, label, lambda document: own.sign_document(document, "enrol")
        )
    if as_json:
        emit(enrolled)
    else:
        fields(
            f"Enrolled key {enrolled.id}",
            [("Account", enrolled.account), ("Label", enrolled.label), ("File", path)],
        )


@key.command("ls")
@json_option
def list_keys(as_json: bool) -> None:
    """List enrolled keys.

    \b
    Example:
      countersign key ls
    """
    with connect() as registry:
        keys = registry.keys()
    if as_json:
        emit(keys)
    else:
        rows = [(key.id, key.account, key.label, key.enrolled_at, key.revoked_at) for key in keys]
        table(["Key", "Account", "Label", "Enrolled", "Revoked"], rows)


@click.group()
def token() -> None:
    """Create, list and revoke tokens.

    \b
    Example:
      countersign token create --account ada --role engineer --team acme
    """


@token.command("create")
@click.option(
    "--account",
    required=True,
    help="The person or service that the token is for; created if missing.",
)
@click.option(
    "--role",
    "roles",
    required=True,
    multiple=True,
    type=click.Choice([role.value for role in Role]),
    help="A role of the token; repeatable.",
)
@click.option("--team", help="The only team that the roles apply to; all teams if omitted.")
@click.option(
    "--days",
    default=30,
    show_default=True,
    type=click.IntRange(min=1),
    help="Days until the token expires.",
)
@click.option(
    "--environment",
    type=ENVIRONMENT,
    help="For a gateway: the only environment that it may pull for.",
)
@click.option(
    "--home",
    type=HOME,
    help="Act as the administrator of the `countersign up` that runs on this home.",
)
@json_option
def create(
    account: str,
    roles: tuple[str, ...],
    team: str | None,
    days: int,
    environment: str | None,
    home: Path | None,
    as_json: bool,
) -> None:
    """Create a token, and its account if it is missing.

    The token is shown only once.

    \b
    Example:
      countersign token create --account ada --role engineer --team acme --home ./registry
    """
    url, secret = address()
    if not (url and secret) or (home is not None and not in_environment()):
        url, secret = _administrator(home)
    with connect(url, secret) as registry:
        if not _has_roles(registry, account, roles, team):
            registry.create_account(account, roles, team)
        created = registry.create_token(account, roles, team, days, environment)
    if as_json:
        emit(created)
    else:
        note(f"A token for {account} ({_grants(created.grants)}), shown only once:")
        click.echo(created.token)


@token.command("ls")
@json_option
def list_tokens(as_json: bool) -> None:
    """List tokens, without their secrets.

    \b
    Example:
      countersign token ls
    """
    with connect() as registry:
        tokens = registry.tokens()
    if as_json:
        emit(tokens)
    else:
        rows = [
            (token.id, token.account, _grants(token.grants), token.expires_at, token.revoked_at)
            for token in tokens
        ]
        table(["Token", "Account", "Roles", "Expires", "Revoked"], rows)


@token.command("revoke")
@click.argument("token_id", metavar="ID")
@json_option
def revoke(token_id: str, as_json: bool) -> None:
    """Revoke a token at once.

    \b
    Example:
      countersign token revoke 3f9ac1e07b52
    """
    with connect() as registry:
        registry.revoke_token(token_id)
    if as_json:
        emit({"id": token_id, "revoked": True})
    else:
        click.echo(f"Token {token_id} is revoked.")


@click.group()
def people() -> None:
    """List people and services.

    \b
    Example:
      countersign people ls
    """


@people.command("ls")
@json_option
def list_people(as_json: bool) -> None:
    """List people and services with their roles and keys.

    \b
    Example:
      countersign people ls
    """
    with connect() as registry:
        accounts = registry.accounts()
    if as_json:
        emit(accounts)
    else:
        rows = [
            (
                account.name,
                account.kind,
                _grants(account.grants),
                [key.id for key in account.keys],
                account.created_at,
            )
            for account in accounts
        ]
        table(["Name", "Kind", "Roles", "Keys", "Created"], rows)


def _grants(grants: list[GrantView]) -> str:
    texts = (
        grant.role
        + (f" of {grant.team}" if grant.team else "")
        + (f" in {grant.environment}" if grant.environment else "")
        for grant in grants
    )
    return ", ".join(texts) or "no role"


def _has_roles(registry: Countersign, name: str, roles: tuple[str, ...], team: str | None) -> bool:
    """Whether the account exists and has all these roles for the team."""
    granted = {
        (grant.role, grant.team)
        for account in registry.accounts()
        if account.name == name
        for grant in account.grants
    }
    return {(role, team) for role in roles} <= granted


def _administrator(home: Path | None) -> tuple[str, str]:
    """The URL of the registry that runs on a home, and its administrator's token.

    Only who may read the private files of the home gets them.
    """
    if home is None:
        from registry.settings import load

        home = load().home
    files = {name: home / "private" / name for name in ("url", "admin.token")}
    for name, path in files.items():
        if path.exists():
            continue
        if name == "url" and files["admin.token"].exists():
            raise Unavailable(
                "not-running",
                f"No registry is running on {home}.",
                f"Start it: countersign up --home {home}.",
            )
        raise Invalid("not-a-home", f"{home} is not the home of a registry.")
    return files["url"].read_text().strip(), files["admin.token"].read_text().strip()
