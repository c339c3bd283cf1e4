"""Who is calling and who may: login, key, token, people."""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from registry.cli.output import emit, fields, json_option, note, table
from registry.cli.session import address, connect, remember, signing_key_path, told_by_environment
from registry.errors import Invalid, Unavailable
from registry.rules.actors import Role
from registry.rules.refs import ENVIRONMENTS

if TYPE_CHECKING:
    from registry.client import Countersign
    from registry.views.accounts import GrantView


@click.command()
@click.argument("url")
@click.option("--token-stdin", is_flag=True, help="Read the token from standard input.")
@json_option
def login(url: str, token_stdin: bool, as_json: bool) -> None:
    """Sign in to a registry and remember it.

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
            "There is no terminal to ask on: give --token-stdin and the token on standard input."
        )
    with connect(url, token) as registry:
        me = registry.me()
    path = remember(url, token)
    if as_json:
        emit({"url": url.rstrip("/"), "account": me.name, "file": str(path)})
    else:
        click.echo(
            f"Signed in to {url.rstrip('/')} as {me.name} ({_grants(me.grants)}); kept in {path}."
        )


@click.group()
def key() -> None:
    """Make, enrol and list signing keys.

    \b
    Example:
      countersign key enroll --label laptop
    """


@key.command("enroll")
@click.option(
    "--label",
    default=platform.node,
    show_default="this machine's name",
    help="What to call the key.",
)
@click.option(
    "--key-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where the private key lies.",
)
@json_option
def enroll(label: str, key_file: Path | None, as_json: bool) -> None:
    """Enrol your Ed25519 key, making it first where there is none.

    \b
    Example:
      countersign key enroll --label laptop
    """
    from registry.proof.keys import SigningKey

    path = signing_key_path(key_file)
    if path.exists():
        mine = SigningKey.load(path)
    else:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        mine = SigningKey.generate()
        mine.save(path)
        note(f"Made a signing key at {path}; keep it to yourself.")
    with connect() as registry:
        enrolled = registry.enroll_key(
            mine.public_text, label, lambda document: mine.sign_document(document, "enrol")
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
        rows = [(one.id, one.account, one.label, one.enrolled_at, one.revoked_at) for one in keys]
        table(["Key", "Account", "Label", "Enrolled", "Revoked"], rows)


@click.group()
def token() -> None:
    """Tokens: create, list, revoke.

    \b
    Example:
      countersign token create --account ada --role engineer --team acme
    """


@token.command("create")
@click.option(
    "--account", required=True, help="The person or service the token speaks for; made if missing."
)
@click.option(
    "--role",
    "roles",
    required=True,
    multiple=True,
    type=click.Choice([role.value for role in Role]),
)
@click.option("--team", help="The one team the roles hold in; all teams without it.")
@click.option(
    "--days",
    default=30,
    show_default=True,
    type=click.IntRange(min=1),
    help="How long the token lives.",
)
@click.option(
    "--environment",
    type=click.Choice(ENVIRONMENTS),
    help="For a gateway: the one environment it may pull for.",
)
@click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    help="The home of a running `countersign up`.",
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
    """Mint a token, shown this once, and make its account if it is missing.

    \b
    Example:
      countersign token create --account ada --role engineer --team acme --home ./registry
    """
    url, secret = address()
    if not (url and secret) or (home is not None and not told_by_environment()):
        url, secret = _admin_of(home)
    with connect(url, secret) as registry:
        if not _holds(registry, account, roles, team):
            registry.create_account(account, roles, team)
        minted = registry.create_token(account, roles, team, days, environment)
    if as_json:
        emit(minted)
    else:
        note(f"A token for {account} ({_grants(minted.grants)}), shown this once:")
        click.echo(minted.token)


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
            (one.id, one.account, _grants(one.grants), one.expires_at, one.revoked_at)
            for one in tokens
        ]
        table(["Token", "Account", "Roles", "Expires", "Revoked"], rows)


@token.command("revoke")
@click.argument("token_id", metavar="ID")
@json_option
def revoke(token_id: str, as_json: bool) -> None:
    """End a token at once.

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
    """People and services.

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
            (one.name, one.kind, _grants(one.grants), [k.id for k in one.keys], one.created_at)
            for one in accounts
        ]
        table(["Name", "Kind", "Roles", "Keys", "Since"], rows)


def _grants(grants: list[GrantView]) -> str:
    said = (
        grant.role
        + (f" of {grant.team}" if grant.team else "")
        + (f" in {grant.environment}" if grant.environment else "")
        for grant in grants
    )
    return ", ".join(said) or "no role"


def _holds(registry: Countersign, account: str, roles: tuple[str, ...], team: str | None) -> bool:
    """Whether the account is there and holds all of this already."""
    held = {
        (grant.role, grant.team)
        for one in registry.accounts()
        if one.name == account
        for grant in one.grants
    }
    return {(role, team) for role in roles} <= held


def _admin_of(home: Path | None) -> tuple[str, str]:
    """The running registry of a home and its administrator's token: for whoever may read its
    private files.
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
        raise Invalid(
            "not-a-home",
            f"{home} is not the home of a registry.",
        )
    return files["url"].read_text().strip(), files["admin.token"].read_text().strip()
