"""Who hears what: a token counts in one place, no header bends an address, no cache keeps an
answer, no name leaks.
"""

from __future__ import annotations

import base64
import secrets
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from registry.app import create_app
from registry.settings import load
from tests.api.conftest import Door
from tests.build import World, a_person
from tests.hub.conftest import get, raw

BEARERS = {
    "nothing": {},
    "Basic": {"Authorization": "Basic {basic}"},
    "a cookie": {"Cookie": "session={token}; token={token}"},
    "other headers": {"X-API-Key": "{token}", "Proxy-Authorization": "Bearer {token}"},
    "a tab": {"Authorization": "Bearer\t{token}"},
    "quoted": {"Authorization": 'Bearer "{token}"'},
    "hf_ twice": {"Authorization": "Bearer hf_hf_{token}"},
    "two": {"Authorization": "Bearer x\r\nAuthorization: Bearer {token}"},
    "not ASCII": {"Authorization": "Bearer \u00e9\u4e2d"},
    "long": {"Authorization": "Bearer " + "a" * 50000},
}


@pytest.mark.parametrize("where", BEARERS)
def test_a_token_counts_in_its_one_place(where: str, door: Door, served: World) -> None:
    token = door.token(served.engineer)
    told = {"token": token, "basic": base64.b64encode(f"user:{token}".encode()).decode()}
    headers = {
        "Authorization": "",
        **{name: text.format(**told) for name, text in BEARERS[where].items()},
    }
    target = (
        f"/{served.team}/adapter/resolve/v1/adapter_config.json?token={token}&access_token={token}"
    )
    status, head, _ = raw(door, "", "GET", target, headers, b"")
    assert (status, b"www-authenticate: Bearer" in head, token.encode() in head) == (
        401,
        True,
        False,
    )


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {
            "X-Forwarded-Host": "evil.example",
            "Forwarded": "host=evil.example",
            "X-Original-URL": "/api/v1/x",
        },
        {"Host": 'x>; rel="evil'},
        {"Host": "x/..//?a=<b>"},
        {"X-Forwarded-Prefix": "//evil.example"},
    ],
)
def test_no_address_leads_elsewhere(headers: dict[str, str], door: Door, served: World) -> None:
    """The next page's address is the public one; where none is set, the one that was asked, never
    what a header adds.
    """
    token, path = door.token(served.engineer), f"/api/models/{served.team}/adapter/tree/v1?limit=1"
    _, head, _ = raw(door, token, "GET", path, headers, b"")
    assert (b"evil" in head) is (headers.get("Host") == "evil.example")


def test_the_public_address_is_what_is_set(door: Door, served: World, tmp_path: Path) -> None:
    token, path = door.token(served.engineer), f"/api/models/{served.team}/adapter/tree/v1?limit=1"
    other = create_app(
        load(
            home=tmp_path,
            database_url=door.settings.database_url,
            blob_url=str(door.settings.private / "blobs"),
            public_url="https://registry.example",
        )
    )
    with TestClient(other, base_url="http://evil.example") as client:
        link = client.get(path, headers={"Authorization": f"Bearer {token}"}).headers["link"]
    other.state.store.engine.dispose()
    assert link.startswith(f"<https://registry.example{path}&cursor=1>")


def test_no_cache_between_keeps_anything(door: Door, served: World) -> None:
    """Bytes, lists and refusals: each says that it is for one caller, and for now."""
    name, token = f"{served.team}/adapter", door.token(served.engineer)
    asked = [
        f"/{name}/resolve/v1/adapter_config.json",
        f"/{name}/raw/v1/adapter_config.json",
        f"/{name}/resolve/v99/x",
        f"/{name}/resolve/v1/no",
        f"/api/models/{name}",
        "/api/models",
        "/api/models/no/no",
        "/api/no",
        f"/{name}/info/refs",
    ]
    for path in asked:
        for method in (
            ("GET", "HEAD") if "/api/models" not in path and "/info/" not in path else ("GET",)
        ):
            answer = get(door, token, path, method=method)
            assert (answer.headers["cache-control"], answer.headers["vary"]) == (
                "private, no-cache",
                "Authorization",
            ), path
    digest = get(door, token, asked[0]).headers["etag"].strip('"')
    for more in ({}, {"Range": "bytes=0-1"}, {"If-None-Match": f'"{digest}"'}):
        blob = get(door, token, f"/api/v1/blobs/{digest}", headers=more)
        assert (blob.headers["cache-control"], blob.headers["vary"]) == (
            "private, no-cache",
            "Authorization",
        )


STRANGE = [
    "{r}/resolve/v1/adapter_config.json",
    "{r}/raw/v1/x",
    "{r}/resolve/v99/x",
    "api/models/{r}",
    "api/models/{r}/tree/v1",
    "api/models/{r}/refs",
    "api/models/{r}/commits/main",
    "api/models/{r}/likers",
    "api/models/{r}/auth-check/write",
    "api/models/{r}.v1",
]


@pytest.mark.parametrize("path", STRANGE)
def test_a_stranger_learns_no_name(path: str, door: Door, served: World) -> None:
    """What is another team's and what is nobody's look alike, to the byte."""
    stranger = door.token(
        a_person(door.store, "engineer", team=f"t{secrets.token_hex(4)}", signs=False)
    )
    said = []
    for name in ("adapter", "nothing"):
        answer = get(door, stranger, "/" + path.replace("{r}", f"{served.team}/{name}"))
        headers = {
            key: value
            for key, value in answer.headers.items()
            if key not in ("date", "x-request-id")
        }
        said.append(
            (
                answer.status_code,
                answer.text.replace(name, "?"),
                {**headers, "content-length": ""},
                len(name),
            )
        )
    assert str(said[0][:3]).replace("adapter", "?") == str(said[1][:3]).replace("nothing", "?")
