"""docker-compose.yml and Dockerfile: no engine is at hand, so all that can be checked without one
is checked.
"""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from registry.db import migrate
from registry.postgres.cluster import Cluster
from registry.settings import PREFIX, Settings

REPOSITORY = Path(__file__).parents[1]
TEXT = (REPOSITORY / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, Any] = COMPOSE["services"]
DOCKERFILE = (REPOSITORY / "Dockerfile").read_text()
CLIENT = {
    "COUNTERSIGN_URL",
    "COUNTERSIGN_TOKEN",
    "COUNTERSIGN_ENGINE_URL",
}  # of programs that read no Settings


@pytest.fixture(scope="module")
def schema() -> Draft202012Validator:
    """The official Compose schema, as the package check-jsonschema vendors it, against the digest
    it notes.
    """
    spec = importlib.util.find_spec("check_jsonschema")
    assert spec is not None, "check-jsonschema carries the Compose schema; install the dev group"
    assert spec.submodule_search_locations is not None
    vendor = Path(spec.submodule_search_locations[0]) / "builtin_schemas" / "vendor"
    content = (vendor / "compose-spec.json").read_bytes()
    assert (
        hashlib.sha256(content).hexdigest()
        == (vendor / "sha256" / "compose-spec.sha256").read_text().strip()
    )
    loaded = json.loads(content)
    assert loaded["$id"] == "compose_spec.json"
    return Draft202012Validator(loaded)


def test_it_is_sound_by_the_official_schema(schema: Draft202012Validator) -> None:
    schema.check_schema(schema.schema)
    error = best_match(schema.iter_errors(COMPOSE))
    assert error is None, f"{error.json_path}: {error.message}"


@pytest.mark.parametrize(
    ("place", "wrong"),
    [
        (("services", "registry", "heathcheck"), {}),
        (("services", "registry", "ports"), "8080:8080"),
        (("services", "registry", "healthcheck", "interval"), ["5s"]),
        (
            ("services", "trainer", "deploy", "resources", "reservations", "devices"),
            [{"driver": "nvidia"}],
        ),
        (("secrets", "postgres_password", "content_of_file"), "x"),
        (("volume",), {}),
    ],
)
def test_the_schema_sees_a_mistake(
    schema: Draft202012Validator, place: tuple[str, ...], wrong: object
) -> None:
    spoilt = copy.deepcopy(COMPOSE)
    spot = spoilt
    for step in place[:-1]:
        spot = spot[step]
    spot[place[-1]] = wrong
    assert list(schema.iter_errors(spoilt))


def test_what_runs() -> None:
    assert set(SERVICES) == {"postgres", "mlflow", "registry", "gateway", "engine", "trainer"}
    assert SERVICES["postgres"]["image"] == "postgres:18"
    on_gpu = {name for name, service in SERVICES.items() if "gpu" in service.get("profiles", [])}
    assert on_gpu == {"engine", "trainer"}
    for name in on_gpu:
        (device,) = SERVICES[name]["deploy"]["resources"]["reservations"]["devices"]
        assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert all("healthcheck" in service for service in SERVICES.values())


def test_every_name_used_is_declared() -> None:
    for name, service in SERVICES.items():
        assert set(service.get("secrets", [])) <= set(COMPOSE["secrets"])
        assert set(service.get("networks", [])) <= set(COMPOSE["networks"])
        assert {volume.partition(":")[0] for volume in service.get("volumes", [])} <= set(
            COMPOSE["volumes"]
        )
        assert {config["source"] for config in service.get("configs", [])} <= set(
            COMPOSE["configs"]
        )
        assert set(service.get("depends_on", {})) <= set(SERVICES) - {name}
        used = set(re.findall(r"/run/secrets/(\w+)", json.dumps(service)))
        assert used <= set(service.get("secrets", []))
    every = [set(service.get("secrets", [])) for service in SERVICES.values()]
    assert set().union(*every) == set(COMPOSE["secrets"])


def test_every_setting_named_exists_and_every_secret_of_the_registry_is_one() -> None:
    settings = {PREFIX + name.upper() for name in Settings.model_fields}
    for service in SERVICES.values():
        given = {name for name in service.get("environment", {}) if name.startswith(PREFIX)}
        assert given <= settings | CLIENT
    assert {name.upper() for name in SERVICES["registry"]["secrets"]} <= settings


def test_no_secret_is_in_the_files_and_the_trainer_cannot_reach_the_database() -> None:
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            assert not re.search("PASSWORD|TOKEN|SECRET|KEY|DATABASE", name) or name.endswith(
                "_FILE"
            ), name
            assert "://" not in str(value) or "@" not in str(value)
    assert all(set(secret) == {"file"} for secret in COMPOSE["secrets"].values())
    assert not re.search(r"^(ARG|ENV)\b.*(PASSWORD|TOKEN|SECRET)", DOCKERFILE, re.MULTILINE)
    for name in ("trainer", "engine", "gateway"):
        assert not any("database" in secret for secret in SERVICES[name]["secrets"])
    assert SERVICES["trainer"]["networks"] == ["outside"]
    assert SERVICES["postgres"]["networks"] == ["inside"]
    assert COMPOSE["networks"]["inside"] == {"internal": True}
    for service in SERVICES.values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert (
        "secrets" not in (REPOSITORY / ".dockerignore").read_text()
    )  # it lists what goes in; they do not


def test_the_dockerfile_builds_what_is_named() -> None:
    stages = re.findall(r"^FROM (\S+) AS (\w+)$", DOCKERFILE, re.MULTILINE)
    targets = [name for _, name in stages]
    for source, _ in stages:
        assert source in targets or re.fullmatch(r"[\w/.-]+:\d[\w.-]*", source), (
            f"{source} is not pinned"
        )
    assert {service["build"]["target"] for service in SERVICES.values() if "build" in service} == {
        *targets
    } - {"base"}
    allowed = {
        line[1:]
        for line in (REPOSITORY / ".dockerignore").read_text().split()
        if line.startswith("!")
    }
    for line in re.findall(r"^COPY (.*) \S+$", DOCKERFILE, re.MULTILINE):
        for source in line.split():
            assert source in allowed
            assert (REPOSITORY / source).exists(), f"{source} is copied but is not there"
    for name, body in re.findall(
        r"^FROM \S+ AS (\w+)$(.*?)(?=^FROM|\Z)", DOCKERFILE, re.MULTILINE | re.DOTALL
    ):
        if name != "base":
            assert re.findall(r"^USER (\w+)$", body, re.MULTILINE)[-1] == "countersign"


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """What the lines in the head of docker-compose.yml make, run as they stand there."""
    found = re.search(r"^#   \(secrets\)\n(.*?)^#   \(end\)", TEXT, re.MULTILINE | re.DOTALL)
    assert found is not None
    script = re.sub(r"^#   ", "", found[1], flags=re.MULTILINE)
    subprocess.run(["sh", "-eu", "-c", script], cwd=tmp_path, check=True)
    return tmp_path / "secrets"


def test_the_lines_in_its_head_make_every_secret(secrets: Path) -> None:
    assert secrets.stat().st_mode & 0o777 == 0o700
    assert {f"./secrets/{path.name}" for path in secrets.iterdir()} == {
        secret["file"] for secret in COMPOSE["secrets"].values()
    }
    assert len((secrets / "postgres_password").read_text()) == 48
    passwords = [urlsplit(path.read_text().strip()).password for path in secrets.glob("*_url")]
    assert len({*passwords, None}) == 5


def test_its_roles_suffice_for_the_migrations(secrets: Path, tmp_path: Path) -> None:
    with Cluster(tmp_path / "home") as cluster:
        place = cluster.url("superuser", "postgres").replace("postgresql+psycopg", "postgresql")
        with psycopg.connect(place, autocommit=True) as connection:
            for name in ("countersign", "mlflow"):
                connection.execute(f"DROP DATABASE {name}")
            for (role,) in connection.execute(
                "SELECT rolname FROM pg_roles WHERE rolname ~ '^(countersign|mlflow)_'"
            ):
                connection.execute(f"DROP OWNED BY {role}")
                connection.execute(f"DROP ROLE {role}")
        script = (
            COMPOSE["configs"]["roles"]["content"]
            .replace("$$", "$")
            .replace("/run/secrets", str(secrets))
        )
        environ = {
            "PATH": f"{cluster.quarters.programs()}:{os.environ['PATH']}",
            "PGHOST": str(cluster.quarters.sockets()),
            "PGPASSWORD": urlsplit(place).password or "",
        }
        done = subprocess.run(["sh", "-c", script], env=environ, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")

        def url(name: str) -> str:
            given = (secrets / name).read_text().strip()
            return (
                given.replace("@postgres:5432", "@")
                + f"?host={cluster.quarters.sockets()}&port=5432"
            )

        migrate.upgrade(url("countersign_migrate_database_url"))
        for name, member in (
            ("countersign_database_url", "countersign_app"),
            ("countersign_sequencer_database_url", "countersign_sequencer"),
        ):
            with psycopg.connect(
                url(name).replace("postgresql+psycopg", "postgresql")
            ) as connection:
                connection.execute(f"SET ROLE {member}")
                assert connection.execute("SELECT count(*) FROM event").fetchone() == (0,)
        with psycopg.connect(
            url("mlflow_database_url").replace("postgresql+psycopg", "postgresql")
        ) as connection:
            connection.execute("CREATE TABLE mine (n int)")
