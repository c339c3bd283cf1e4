"""`countersign up`: a whole registry on one machine, in the foreground, until a signal ends it.

The heavy imports (SQLAlchemy, FastAPI, alembic) run in a thread while initdb runs, so that the two
take only as long as the longer one.
"""

from __future__ import annotations

import errno
import http.client
import importlib.util
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import click

from registry import log
from registry.cli.supervisor import Child, Supervisor, last_line, log_of, sweep
from registry.errors import Conflict, Invalid, Unavailable
from registry.postgres.cluster import Cluster
from registry.postgres.directories import undisturbed
from registry.postgres.home import Lock, claim
from registry.proof.private_files import write_private
from registry.settings import PREFIX, Settings, load

READY_SECONDS = 120.0
BACKLOG = 2048
"""Connections that wait while the API starts; uvicorn's own default."""
EXTRAS = {"mlflow": 1, "gateway": 2, "engine": 3, "trainer": 0}
"""Programs beside the registry -> distance of their port from ours; 0 for one without a port."""


class Stopped(BaseException):
    """A signal asked us to end. Not an Exception, so that no `except Exception` catches it."""


@dataclass(frozen=True, slots=True)
class Extra:
    """A program beside the registry: how to start it and where it listens."""

    name: str
    argv: list[str]
    environ: Callable[[], dict[str, str]]
    url: str | None


def _names(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in value.split(",") if name.strip())
    for name in names:
        if name not in EXTRAS:
            raise click.BadParameter(f"'{name}' is not one of {', '.join(EXTRAS)}.")
    return names


@click.command()
@click.option(
    "--home",
    type=click.Path(path_type=Path),
    help="The folder for data and keys; default ~/.countersign.",
)
@click.option("--host", help="The address to listen on; default 127.0.0.1.")
@click.option("--port", type=click.IntRange(1, 65535), help="The port to listen on; default 8080.")
@click.option(
    "--with",
    "extras",
    default="",
    callback=_names,
    metavar="NAMES",
    help="Also run these, separated by commas: trainer, mlflow, engine, gateway.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON when it is ready.")
def up(
    home: Path | None, host: str | None, port: int | None, extras: tuple[str, ...], as_json: bool
) -> None:
    """Run a registry on this machine: database, API, console and clock.

    \b
    Example:
      countersign up --home ./registry --port 8080

    Runs in the foreground. SIGTERM or Ctrl-C ends it and everything that it started. The database
    is an embedded PostgreSQL under --home, unless COUNTERSIGN_DATABASE_URL is set.
    """
    settings = load(home=home, host=host, port=port)
    log.configure(settings.log_level)
    _require(extras)
    claim(settings.home)
    with Lock(settings.private / "up.lock", wait=False), suppress(Stopped), _signals() as stopping:
        run(settings, extras, as_json, stopping)


def run(
    settings: Settings, extras: tuple[str, ...], as_json: bool, stopping: threading.Event
) -> None:
    """Start everything, announce it once, watch until `stopping` is set, and always stop it all."""
    started = time.monotonic()
    cluster = None if settings.database_url else Cluster(settings.home)
    supervisor = Supervisor(settings.home, cluster)
    resources = ExitStack()
    try:
        sweep(settings.home, 10.0)
        listener = resources.enter_context(_listen(settings))
        imports = threading.Thread(target=_import, name="imports", daemon=True)
        with undisturbed():  # a thread inherits the signal mask: the main thread handles signals
            imports.start()
        if cluster is not None:
            cluster.start()
            settings = settings.model_copy(
                update={
                    "database_url": cluster.url("app"),
                    "migrate_database_url": cluster.url("owner"),
                    "sequencer_database_url": cluster.url("sequencer"),
                }
            )
        imports.join()
        from registry.cli.operations import prepare

        first = not (settings.private / "admin.token").exists()
        ports = _ports(settings, extras)
        if "mlflow" in ports and settings.mlflow_url is None:
            settings = settings.model_copy(
                update={"mlflow_url": f"http://127.0.0.1:{ports['mlflow']}"}
            )
        token = prepare(settings).admin_token
        python = [sys.executable, "-P", "-m", "registry"]
        api = supervisor.add(
            Child(
                "api",
                [*python, "api", str(listener.fileno())],
                lambda: _environ(settings),
                listener,
            )
        )
        supervisor.add(
            Child("clock", [*python, "clock"], lambda: _environ(settings, sequencer=True))
        )
        _await_ready(supervisor, api, settings, stopping)
        # `token create --home` reads this file.
        write_private(settings.private / "url", f"{_url(settings)}\n")
        beside = [_extra(name, settings, ports, cluster) for name in extras]
        shown_token = token if first or as_json else None
        _announce(settings, shown_token, beside, as_json, time.monotonic() - started)
        for extra in beside:
            supervisor.add(Child(extra.name, extra.argv, extra.environ))
        supervisor.watch(stopping.is_set)
    finally:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # nothing may interrupt the stopping
        (settings.private / "url").unlink(missing_ok=True)
        supervisor.stop()
        resources.close()


@contextmanager
def _signals() -> Iterator[threading.Event]:
    """Turn the signals that end us into Stopped and into an event.

    Python drops what is raised inside a finaliser or a fork hook; then the event ends the watching.
    """
    stopping = threading.Event()

    def stop(number: int, frame: object) -> None:
        stopping.set()
        raise Stopped

    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _import() -> None:
    """Import early. A failure occurs again at the later import, where it is reported."""
    with suppress(Exception):
        import_module("registry.app")


def _require(extras: tuple[str, ...]) -> None:
    """Refuse extras that are not installed, before anything starts."""
    needs = {
        "mlflow": ("mlflow",),
        "trainer": ("trainer", "torch"),
        "engine": ("trainer", "torch"),
        "gateway": (),
    }
    for name in extras:
        missing = [module for module in needs[name] if importlib.util.find_spec(module) is None]
        if missing:
            raise Invalid("missing-extra", f"--with {name} needs the Python package {missing[0]}.")


def _listen(settings: Settings) -> socket.socket:
    """Listen on the address, and keep listening while the API is started, once or again.

    Two registries that start on one port at the same time cannot both listen, so the one that lost
    ends here; it never announces the other's address with a token of its own.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM
        )[0]
    except socket.gaierror as error:
        raise Invalid(
            "bad-host", f"'{settings.host}' is not an address: {error.strerror}."
        ) from error
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if isinstance(error, PermissionError):
            raise Conflict(
                "port-taken",
                f"Port {settings.port} is reserved for the system.",
                "Choose a --port above 1023.",
            ) from error
        if error.errno != errno.EADDRINUSE:
            raise Invalid(
                "bad-host", f"'{settings.host}' is not an address here: {error.strerror}."
            ) from error
        raise Conflict(
            "port-taken", f"Another program uses port {settings.port} on {settings.host}."
        ) from error
    return listener


def _is_free(port: int) -> bool:
    """Whether nothing listens on a port of this machine."""
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def _ports(settings: Settings, extras: tuple[str, ...]) -> dict[str, int]:
    """A port for each extra that listens: one next to ours, or any free one if that is taken."""
    ports = {}
    for name in extras:
        if EXTRAS[name]:
            port = settings.port + EXTRAS[name]
            if port > 65535 or not _is_free(port):
                with socket.create_server(("127.0.0.1", 0)) as free:
                    port = free.getsockname()[1]
            ports[name] = port
    return ports


def _environ(settings: Settings, sequencer: bool = False) -> dict[str, str]:
    """The environment of our own children: every setting, but only the database roles they need."""
    values = settings.model_dump(mode="json", exclude_none=True, exclude={"migrate_database_url"})
    if not sequencer:
        values.pop("sequencer_database_url", None)
    return _bare() | {PREFIX + name.upper(): str(value) for name, value in values.items()}


def _bare() -> dict[str, str]:
    """Our environment without our own variables: neither database nor token leaks into extras."""
    return {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}


def _extra(name: str, settings: Settings, ports: dict[str, int], cluster: Cluster | None) -> Extra:
    """How to start a program beside the registry. One that calls it gets a token of its role."""
    from registry.cli.operations import service_token

    url = f"http://127.0.0.1:{ports[name]}" if name in ports else None
    local = _bare() | {
        PREFIX + "HOME": str(settings.home),
        PREFIX + "LOG_LEVEL": settings.log_level,
    }
    # The address may hold a password, and of these only the trainer reports to MLflow.
    if settings.mlflow_url and name == "trainer":
        local[PREFIX + "MLFLOW_URL"] = settings.mlflow_url

    def caller() -> dict[str, str]:
        token = service_token(
            settings, f"local-{name}", "trainer" if name == "trainer" else "gateway"
        )
        return local | {PREFIX + "URL": _url(settings), PREFIX + "TOKEN": token}

    folder, python = str(settings.private / name), [sys.executable, "-P", "-m"]
    if name == "trainer":
        return Extra(name, [*python, "trainer", "worker", "--work-dir", folder], caller, None)
    if name == "engine":
        argv = [*python, "trainer", "engine", "--port", str(ports[name]), "--cache", folder]
        return Extra(name, [*argv, "--allow", str(settings.home)], caller, url)
    if name == "gateway":
        engine = f"http://127.0.0.1:{ports.get('engine', settings.port + EXTRAS['engine'])}"
        argv = [*python, "registry", "gateway", "--port", str(ports[name]), "--cache", folder]
        return Extra(name, [*argv, "--engine", engine], caller, url)
    artifacts = settings.private / "mlflow"
    artifacts.mkdir(mode=0o700, exist_ok=True)
    store = cluster.url("mlflow") if cluster is not None else f"sqlite:///{artifacts / 'mlflow.db'}"
    argv = [*python, "mlflow", "server", "--host", "127.0.0.1", "--port", str(ports[name])]
    argv += ["--workers", "1", "--artifacts-destination", str(artifacts / "artifacts")]
    # The job runners serve features that we do not use: seven processes that each import MLflow.
    quiet = {"MLFLOW_BACKEND_STORE_URI": store, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    return Extra(name, argv, lambda: _bare() | quiet, url)


def _url(settings: Settings) -> str:
    """The address for programs on this machine; they cannot call one that means all interfaces."""
    # Compared, not bound.
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::", "") else settings.host  # noqa: S104
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


def _ready(settings: Settings) -> bool:
    connection = http.client.HTTPConnection(_url(settings).removeprefix("http://"), timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _await_ready(
    supervisor: Supervisor, api: Child, settings: Settings, stopping: threading.Event
) -> None:
    """Wait for /readyz. Gives up after READY_SECONDS, or when the API has died three times."""
    deadline = time.monotonic() + READY_SECONDS
    supervisor.watch(
        lambda: (
            stopping.is_set() or _ready(settings) or api.deaths >= 3 or time.monotonic() > deadline
        )
    )
    if stopping.is_set():
        raise Stopped
    if not _ready(settings):
        path = log_of(settings.home, "api")
        raise Unavailable(
            "api-not-ready", f"The API did not become ready: {last_line(path)}", f"See {path}."
        )


def _announce(
    settings: Settings, token: str | None, beside: list[Extra], as_json: bool, seconds: float
) -> None:
    """Print the one line that programs wait for, or a few lines for a person.

    A person sees the token only the first time, and only on a terminal: it must not get into a log.
    """
    address = settings.public_url or _url(settings)
    if as_json:
        urls = {extra.name: extra.url for extra in beside if extra.url}
        click.echo(json.dumps({"url": address, "admin_token": token, **urls}))
    else:
        click.echo(f"Countersign is ready at {address}/ after {seconds:.1f} s. Ctrl-C stops it.")
        for extra in beside:
            if extra.url:
                click.echo(f"  {extra.name} {extra.url}")
        if token:
            click.echo(f"The administrator's token is in {settings.private / 'admin.token'}.")
            if sys.stdout.isatty():
                click.echo(f"It is shown only once: {token}")
    sys.stdout.flush()
