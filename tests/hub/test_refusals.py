"""What each client does on each of our refusals, with what it wants in its cache and without: the
table of docs/hub.md.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from registry.app import create_app
from registry.commands import recalls
from registry.settings import load
from tests.api.conftest import Door
from tests.build import World, a_person
from tests.gateway.served import Served
from tests.hub.conftest import PEERS, Run, get

ASK = """
import logging, time
time.sleep = lambda seconds: None  # they wait between attempts
logging.disable(logging.ERROR)
def tried(call):
    try:
        call()
        return "served"
    except Exception as error:
        said = type(error).__name__ + ": " + str(error)
        while (error := error.__cause__) is not None:
            said += " / " + type(error).__name__ + ": " + str(error)
        return said
out = {{}}
for cache in ("warm", "cold"):
    more = {{"revision": {revision!r}, "cache_dir": {name!r}.replace("/", "-") + cache,
            "token": {token!r}, "endpoint": {endpoint!r}}}
    out[cache] = [tried(lambda: snapshot_download({name!r}, **more)),
                  tried(lambda: hf_hub_download({name!r}, "adapter_config.json", **more))]
"""


# Warm snapshot_download, warm hf_hub_download, and both cold: what is raised, or served.
LOST = "RepositoryNotFoundError"
TABLE = {
    "a bad token": ("served", "served", "HfHubHTTPError", "HfHubHTTPError"),
    "no token": ("served", "served", LOST, LOST),
    "another team's token": ("served", "served", LOST, LOST),
    "the database away": ("served", "served", "LocalEntryNotFoundError", "LocalEntryNotFoundError"),
    "recalled": ("RevisionNotFoundError",) * 4,
    "recalled, by a pinned commit": (
        "RevisionNotFoundError",
        "served",
        *["RevisionNotFoundError"] * 2,
    ),
}
SAID = {
    "a bad token": "Invalid credentials in Authorization header",
    "the database away": "503",
    "recalled": "this version was recalled: poisoned",
    "recalled, by a pinned commit": "this version was recalled: poisoned",
}


def test_what_clients_do(door: Door, served: World, client: Run, tmp_path: Path) -> None:
    name, token = f"{served.team}/adapter", door.token(served.engineer)
    sha = get(door, token, f"/api/models/{name}/revision/v2").json()["sha"]
    asked: dict[str, dict[str, object]] = {
        "a bad token": {"token": f"cs_{'0' * 12}_{'x' * 43}"},
        "no token": {"token": False},
        "another team's token": {
            "token": door.token(a_person(door.store, "engineer", team=f"t{secrets.token_hex(4)}"))
        },
        "recalled": {},
        "recalled, by a pinned commit": {"revision": sha},
    }
    usual: dict[str, object] = {
        "revision": "v2",
        "name": name,
        "token": token,
        "endpoint": door.url,
    }

    def tried(version: str, **other: object) -> list[str]:
        found = client(version, token, ASK.format(**{**usual, **other}))
        return [*found["warm"], *found["cold"]]

    def right(what: str, version: str, said: list[str]) -> None:
        expected = list(TABLE[what])
        if version == "2.4" and "pinned" in what:
            expected[0] = "served"  # it takes 40 hex digits for proof enough; the older two ask
        assert [one.partition(":")[0] for one in said] == expected, (what, version, said)
        assert all(SAID.get(what, "") in one for one in said if one != "served"), (
            what,
            version,
            said,
        )

    for version in PEERS:
        for revision in ("v2", sha):
            script = ASK.format(**{**usual, "revision": revision}).replace(
                '("warm", "cold")', '("warm",)'
            )
            assert client(version, token, script)["warm"] == ["served", "served"]
    away = create_app(
        load(home=tmp_path, database_url="postgresql+psycopg://nobody@127.0.0.1:1/none")
    )
    other = Served(away)
    try:
        for version in PEERS:
            right("the database away", version, tried(version, endpoint=other.url))
    finally:
        other.stop()
        away.state.store.engine.dispose()
    for what, how in asked.items():
        if what == "recalled":
            recalls.recall(door.store, served.engineer.actor, f"{name}@v2", "poisoned for use")
        for version in PEERS:
            right(what, version, tried(version, **how))
