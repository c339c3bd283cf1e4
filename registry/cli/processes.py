"""Programs that run here instead of calling the registry: gateway, migrate, doctor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from registry.cli.output import emit, fields, json_option, state
from registry.cli.parameters import ENVIRONMENT, HOME
from registry.cli.session import address
from registry.errors import NotFound, Unverified

if TYPE_CHECKING:
    from registry.settings import Settings


def _cache() -> Path:
    return Path.home() / ".cache" / "countersign" / "gateway"


@click.command()
@click.option("--engine", required=True, metavar="URL", help="The engine that answers.")
@click.option(
    "--environment",
    default="production",
    show_default=True,
    type=ENVIRONMENT,
    help="The environment whose routes it follows.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port",
    required=True,
    type=click.IntRange(0, 65535),
    help="The port to listen on; 0 picks a free one.",
)
@click.option(
    "--cache",
    type=HOME,
    default=_cache,
    show_default="~/.cache/countersign/gateway",
    help="The folder for the files of the versions that it serves.",
)
def gateway(engine: str, environment: str, host: str, port: int, cache: Path) -> None:
    """Run a gateway between applications and an engine.

    \b
    Example:
      countersign gateway --port 8090 --engine http://127.0.0.1:8000 --environment production
    """
    from registry.gateway.main import GatewayConfig, run

    url, token = address()
    run(GatewayConfig(url, token, engine, environment, cache), host, port)


@click.command()
@click.option(
    "--home",
    type=HOME,
    help="The home of a registry with its own database; default ~/.countersign.",
)
@json_option
def migrate(home: Path | None, as_json: bool) -> None:
    """Migrate the database to the schema of this release.

    The database is that of COUNTERSIGN_DATABASE_URL, or else the home's own.

    \b
    Example:
      countersign migrate --home ./registry
    """
    from registry.cli import operations

    with _at_rest(home) as settings:
        revision = operations.migrate(settings)
    if as_json:
        emit({"revision": revision})
    else:
        click.echo(f"The database is at revision {revision}.")


@click.command()
@click.option("--home", type=HOME, help="The home of the registry; default ~/.countersign.")
@json_option
def doctor(home: Path | None, as_json: bool) -> None:
    """Check a stopped registry: rebuild its tables from the log and compare.

    Also checks the log itself, and that every byte is present. Exit with 8 unless all agree.

    \b
    Example:
      countersign doctor --home ./registry
    """
    from registry.cli import operations

    with _at_rest(home) as settings:
        if not settings.log_key_file.is_file():
            # Do not create one: under a new key, every tree head of this registry looks forged.
            raise NotFound("log-key-missing", f"There is no log key at {settings.log_key_file}.")
        report = operations.doctor(settings)
    if as_json:
        emit(report)
    else:
        rows = report["rows"]
        fields(
            f"Registry  {state('valid' if report['ok'] else 'broken')}",
            [
                ("Events", report["events"]),
                ("In the tree", report["tree_size"]),
                ("Rows rebuilt", f"{sum(rows.values()):,} in {len(rows)} tables"),
            ],
        )
    if not report["ok"]:
        raise Unverified(
            "registry-broken",
            f"The registry does not verify: {'; '.join(report['problems'])}.",
            problems=report["problems"],
        )


@contextmanager
def _at_rest(home: Path | None) -> Iterator[Settings]:
    """Yield settings with a running database: the configured one, or else the home's own.

    The home's own database runs only as long as this context.
    """
    from registry.settings import load

    settings = load(home=home)
    if settings.database_url is not None:
        yield settings
        return
    if not (settings.private / "postgres.json").is_file():
        raise NotFound(
            "no-database",
            f"{settings.home} has no database of its own, and COUNTERSIGN_DATABASE_URL is not set.",
        )
    from registry.postgres.cluster import Cluster

    with Cluster(settings.home) as cluster:
        yield load(
            home=home,
            database_url=cluster.url("app"),
            migrate_database_url=cluster.url("owner"),
            sequencer_database_url=cluster.url("sequencer"),
        )
