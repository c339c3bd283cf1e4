"""What foreign clients never send: answered by name, and never by a 5xx."""

from __future__ import annotations

import pytest

from tests.api.conftest import Door
from tests.build import World

PATHS = [
    "/{r}/resolve/v1/..%2f..%2fetc/passwd", "/{r}/resolve/%00/x", "/{r}/resolve/v1/%00", "/{r}/resolve/v1/%ff",
    "/{r}/resolve/v1/" + "a" * 5000, "/{r}/resolve/" + "a" * 3000 + "/x", "/{r}/resolve/abc1234/config.json",
    "/{r}/resolve/v999999999/x", "/{r}/resolve/v1", "/api/models/{r}/tree/v1/nowhere", "/api/models/{r}/xet-read-token/v1",
    "/api/models/{r}/revision/%2e%2e", "/api/models/x", "/api/models/a%00/b", "/api/models?search=%00",
    "/api/models?cursor=%00", "/api/models?limit=x", "/api/agent-harnesses", "/a%2Fb/c/resolve/v1/x",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_hostile_paths(path: str, door: Door, served: World) -> None:
    headers = {"Authorization": f"Bearer {door.token(served.engineer)}"}
    answer = door.client.get(path.replace("{r}", f"{served.team}/adapter"), headers=headers)
    assert 400 <= answer.status_code < 500, answer.text


def test_ranges(door: Door, served: World) -> None:
    headers = {"Authorization": f"Bearer {door.token(served.engineer)}"}
    place = f"/{served.team}/adapter/resolve/v1/adapter_model.safetensors"
    whole = door.client.get(place, headers=headers)
    assert whole.headers["content-length"] == str(len(whole.content))
    part = door.client.get(place, headers={**headers, "Range": "bytes=8-15"})
    assert (part.status_code, part.content) == (206, whole.content[8:16])
    assert door.client.get(place, headers={**headers, "Range": f"bytes={'9' * 18}-"}).status_code == 416
    assert door.client.get(place, headers={**headers, "Range": f"bytes={'9' * 50}-"}).status_code == 200
    head = door.client.head(place, headers=headers)
    assert head.headers["etag"] == whole.headers["etag"] and head.headers["x-repo-commit"]


def test_nobody_and_missing_files(door: Door, served: World) -> None:
    place = f"/{served.team}/adapter/resolve/v1/"
    nobody = door.client.get(place + "config.json")
    assert (nobody.status_code, nobody.headers["x-error-code"]) == (401, "RepoNotFound")
    answer = door.client.get(place + "config.json", headers={"Authorization": "Bearer nonsense"})
    assert (answer.status_code, answer.headers.get("x-error-code")) == (401, None)
    assert answer.headers["x-error-message"] == "Invalid credentials in Authorization header"
    assert "not a Countersign token" in answer.json()["error"]
    answer = door.client.head(place + "no", headers={"Authorization": f"Bearer {door.token(served.engineer)}"})
    assert (answer.status_code, answer.headers["x-error-code"]) == (404, "EntryNotFound")
    assert len(answer.headers["x-repo-commit"]) == 40


def test_the_console_keeps_its_pages(door: Door) -> None:
    for page in ("/login", "/adapters/acme/resolve/v/3"):
        assert "x-error-code" not in door.client.get(page).headers
