"""Clients in other languages: their requests, word for word as the clients themselves sent them
when they were tried.

`@huggingface/hub` 2.17 (JavaScript) and `hf-hub` 0.4 and 1.0 (Rust) were run against the real
server; neither npm nor crates are part of this suite, so what they ask is asked again here.
"""

from __future__ import annotations

import json

import pytest

from registry.commands import recalls, rollouts, versions
from tests.api.conftest import Door
from tests.build import ADAPTER_META, World, adapter_files, put, register, train
from tests.hub.conftest import Run, get

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def world(door: Door, served: World) -> World:
    """The served team with a third version: the configuration of the second, other weights, and a
    card.
    """
    files = adapter_files(door.blobs, 91)
    card = put(door.blobs, "README.md", b"---\nlicense: apache-2.0\n---\n# Claims\n")
    draft = versions.Draft(
        "adapter", f"{served.team}/adapter", [*files, card], ADAPTER_META, served.base.ref, "legal"
    )
    register(door.store, door.blobs, served.engineer.actor, draft)
    rollouts.start(
        door.store,
        served.engineer.actor,
        rollouts.Canary(f"{served.team}/adapter@v2", "production", "blue", 500, "try"),
    )
    rollouts.promote(
        door.store,
        served.engineer.actor,
        rollouts.Place(f"{served.team}/adapter", "production", "blue"),
        "well",
    )
    return served


def test_what_javascript_asks(door: Door, world: World) -> None:
    name, token = (
        f"{world.team}/adapter",
        "hf_" + door.token(world.engineer),
    )  # it sends no other kind of token
    two = get(door, token, f"/api/models/{name}/revision/v2").json()["sha"]
    card = get(door, token, f"/{name}/resolve/v3/README.md").content
    # fileExists, and downloadFile with `raw`.
    assert get(door, token, f"/{name}/raw/v3/README.md", method="HEAD").status_code == 200
    assert get(door, token, f"/{name}/raw/v3/no", method="HEAD").status_code == 404
    assert get(door, token, f"/{name}/raw/v3/README.md").content == card
    digest = get(door, token, f"/{name}/resolve/v3/{WEIGHTS}").headers["etag"].strip('"')
    pointer = get(door, token, f"/{name}/raw/v3/{WEIGHTS}").text
    assert pointer.splitlines()[:2] == [
        "version https://git-lfs.github.com/spec/v1",
        f"oid sha256:{digest}",
    ]
    # fileDownloadInfo: the size comes from the range of one byte.
    asked = {"Range": "bytes=0-0", "Accept": "application/vnd.xet-fileinfo+json, */*"}
    first = get(door, token, f"/{name}/resolve/v3/README.md", headers=asked)
    assert (first.status_code, first.headers["content-range"]) == (206, f"bytes 0-0/{len(card)}")
    # modelInfo names HEAD when it is given no revision.
    info = get(
        door, token, f"/api/models/{name}/revision/HEAD?expand=sha&expand=likes&expand=pipeline_tag"
    ).json()
    assert (info["sha"], info["likes"], info["pipeline_tag"]) == (two, 0, "text-generation")
    # listFiles and pathsInfo leave slashes in a revision as they are; a channel has a name without.
    for revision in (
        "refs/heads/production/blue",
        "refs/heads/main",
        "refs/tags/v2",
        "production-blue",
    ):
        listed = get(
            door, token, f"/api/models/{name}/tree/{revision}?recursive=true&expand=false"
        ).json()
        assert {one["path"] for one in listed} == {"adapter_config.json", WEIGHTS}, revision
    under = get(door, token, f"/api/models/{name}/tree/refs/heads/production/blue/nowhere")
    assert (under.status_code, under.headers["x-error-code"]) == (404, "EntryNotFound")
    body = {"paths": [WEIGHTS, "no"], "expand": True}
    paths = get(
        door,
        token,
        f"/api/models/{name}/paths-info/refs/heads/production/blue",
        method="POST",
        json=body,
    )
    assert [(one["path"], one["lastCommit"]["id"]) for one in paths.json()] == [(WEIGHTS, two)]
    # A folder is never taken for part of a channel's name: who quotes means what he says.
    assert (
        get(door, token, f"/api/models/{name}/tree/production/blue").headers["x-error-code"]
        == "EntryNotFound"
    )
    assert (
        get(door, token, f"/{name}/resolve/production/blue/{WEIGHTS}").headers["x-error-code"]
        == "EntryNotFound"
    )
    # countCommits, listCommits by pages.
    page = get(door, token, f"/api/models/{name}/commits/v3?limit=1")
    assert (page.headers["x-total-count"], len(page.json())) == ("3", 1)
    assert 'rel="next"' in page.headers["link"]
    # Scripts ask by HEAD whether a repository is there.
    for path, status in (
        (f"/api/models/{name}", 200),
        (f"/api/models/{name}/revision/v9", 404),
        ("/api/whoami-v2", 200),
    ):
        head = get(door, token, path, method="HEAD")
        assert (head.status_code, head.content) == (status, b"")


def test_such_a_token_opens_no_other_door(door: Door, world: World) -> None:
    token = "hf_" + door.token(world.engineer)
    assert get(door, token, "/api/models").status_code == 200
    assert (
        get(door, token, f"/api/v1/versions/{world.team}/adapter@v1").json()["kind"]
        == "token-malformed"
    )
    assert get(door, "hf_" + token, "/api/models").status_code == 401


def test_what_rust_asks(door: Door, world: World) -> None:
    """`hf-hub` up to 0.5 asks by the first byte; 1.0 by HEAD, with what it holds in
    If-None-Match.
    """
    name, token = f"{world.team}/adapter", door.token(world.engineer)
    place = f"/{name}/resolve/production%2Fblue"
    first = get(door, token, f"{place}/{WEIGHTS}", headers={"Range": "bytes=0-0"})
    held = get(door, token, f"{place}/adapter_config.json", method="HEAD")
    assert first.headers["content-range"].startswith("bytes 0-0/")
    assert (first.headers["x-repo-commit"], "location" in first.headers) == (
        held.headers["x-repo-commit"],
        False,
    )
    # Two versions have this very file. A 304 would leave the client at the commit it knew.
    third = get(
        door,
        token,
        f"/{name}/resolve/v3/adapter_config.json",
        method="HEAD",
        headers={"If-None-Match": held.headers["etag"]},
    )
    assert (third.status_code, third.headers["etag"]) == (200, held.headers["etag"])
    assert third.headers["x-repo-commit"] != held.headers["x-repo-commit"]
    assert int(third.headers["content-length"]) > 0
    known = get(
        door,
        token,
        f"/{name}/resolve/v3/adapter_config.json",
        headers={"If-None-Match": held.headers["etag"]},
    )
    assert (known.status_code, known.content) == (304, b"")


ABSENT = [
    ("GET", "/api/datasets/acme/x", 404, "RepoNotFound"),
    ("GET", "/api/spaces/acme/x/revision/HEAD", 404, "RepoNotFound"),
    ("HEAD", "/datasets/acme/x/resolve/main/y", 404, "RepoNotFound"),
    ("GET", "/api/datasets?limit=1", 404, None),
    ("GET", "/api/daily_papers", 404, None),
    ("GET", "/api/collections?owner=acme", 404, None),
    ("GET", "/api/users/ada/overview", 404, None),
    ("GET", "/api/models-tags-by-type", 404, None),
    ("GET", "/api/models/{name}/likers", 404, None),
    ("GET", "/api/models/{name}/discussions?p=0", 404, None),
    ("GET", "/api/models/{name}/xet-read-token/v1", 404, None),
    ("GET", "/api/models?apps=vllm", 400, None),
    ("GET", "/api/models?num_parameters=min:6B", 400, None),
    ("GET", "/api/models?limit=1.5", 400, None),
    ("POST", "/api/repos/create", 403, None),
    ("DELETE", "/api/repos/delete", 403, None),
    ("POST", "/api/models/{name}/preupload/main", 403, None),
    ("POST", "/api/models/{name}/commit/main", 403, None),
    ("PUT", "/api/models/{name}/settings", 403, None),
    ("POST", "/api/validate-yaml", 403, None),
]


@pytest.mark.parametrize(("method", "path", "status", "code"), ABSENT)
def test_what_the_hub_has_and_we_have_not(
    method: str, path: str, status: int, code: str | None, door: Door, served: World
) -> None:
    """Its clients get JSON with a reason they show, not a page; the same for a repository that is
    not there.
    """
    more = {"json": {}} if method in ("POST", "PUT") else {}
    for name in (
        (f"{served.team}/adapter",)
        if status == 404
        else (f"{served.team}/adapter", "nobody/nothing")
    ):
        answer = get(
            door, door.token(served.engineer), path.replace("{name}", name), method=method, **more
        )
        assert (answer.status_code, answer.headers.get("x-error-code")) == (status, code)
        assert answer.headers["x-error-message"]
        assert answer.headers["content-type"] == "application/json"
        assert method == "HEAD" or answer.json()["error"] == answer.headers["x-error-message"]


def test_git_is_told(door: Door, served: World) -> None:
    """git shows text and git-lfs shows `message`; both are told the same of every name, and need no
    password for it.
    """
    said = set()
    for name in (f"{served.team}/adapter", f"{served.team}/adapter.git", "nobody/nothing"):
        told = door.client.get(f"/{name}/info/refs?service=git-upload-pack")
        batch = door.client.post(
            f"/{name}/info/lfs/objects/batch", json={"operation": "download", "objects": []}
        )
        assert told.headers["content-type"].startswith("text/plain")
        said |= {
            (told.status_code, told.text.strip()),
            (batch.status_code, batch.json()["message"]),
        }
    assert len(said) == 1
    assert "does not speak git" in said.pop()[1]


SYSTEM = """
from huggingface_hub import HfFileSystem
from huggingface_hub.utils import RevisionNotFoundError
WHERE, WEIGHTS = {where!r}, "adapter_model.safetensors"
fs = HfFileSystem()
def tried(call):
    try:
        return repr(call())
    except Exception as error:
        return type(error).__name__
calls = {{
    "ls": lambda: len(fs.ls(WHERE)), "exists": lambda: fs.exists(f"{{WHERE}}/{{WEIGHTS}}"),
    "info": lambda: fs.info(f"{{WHERE}}/{{WEIGHTS}}")["size"] > 0,
    "read": lambda: len(fs.cat(f"{{WHERE}}/{{WEIGHTS}}")) > 0,
    "range": lambda: len(fs.cat_file(f"{{WHERE}}/{{WEIGHTS}}", 8, 20)),
    "get": lambda: fs.get_file(f"{{WHERE}}/{{WEIGHTS}}", "got"),
}}
out = {{name: tried(call) for name, call in calls.items()}}
held = fs.open(f"{{WHERE}}/{{WEIGHTS}}", "rb", block_size=16)
held.read(8)
"""
AGAIN = """
def on():
    held.seek(200)
    return held.read(8)
out = {name: tried(call) for name, call in {**calls, "an open file": on}.items()}
fs.invalidate_cache()
fs = HfFileSystem(skip_instance_cache=True, use_listings_cache=False)
out = [out, {name: tried(call) for name, call in calls.items()}]
"""


def test_files_by_address_stop_at_a_recall(door: Door, world: World, client: Run) -> None:
    """What HfFileSystem has listed it keeps, until it is told to forget; bytes it asks for, and
    gets no more.
    """
    train(world, seed=93)
    ref, token = world.versions[-1], door.token(world.engineer)
    warm = client("2.4", token, SYSTEM.format(where=ref))
    assert warm == {
        "ls": "2",
        "exists": "True",
        "info": "True",
        "read": "True",
        "range": "12",
        "get": "None",
    }
    recalls.recall(door.store, world.engineer.actor, ref, "poisoned for use")
    stops = "RevisionNotFoundError"
    kept = {**warm, "read": stops, "range": stops, "get": stops, "an open file": stops}
    gone = "FileNotFoundError"
    anew = {"ls": gone, "exists": "False", "info": gone, "read": gone, "range": gone, "get": gone}
    assert client("2.4", token, AGAIN) == [kept, anew]


COMMANDS = """
import contextlib, io, sys
from huggingface_hub.cli.hf import main
def hf(*said):
    sys.argv, told = ["hf", *said], io.StringIO()
    with contextlib.redirect_stdout(told):
        try:
            main()
        except SystemExit as ended:
            return [ended.code or 0, told.getvalue()]
    return [0, told.getvalue()]
NAME = {name!r}
out = {{
    "download": hf("download", NAME, "--revision", "v3", "--local-dir", "v3",
                   "--include", "*.json", "--exclude", "*.md"),
    "dry run": hf("download", NAME, "--revision", "v3", "--dry-run"),
    "card": hf("download", NAME, "README.md", "--revision", "v3", "--quiet"),
    "verify": hf("cache", "verify", NAME, "--revision", "v3", "--local-dir", "v3"),
    "info": hf("models", "info", NAME, "--revision", "v3"),
    "list": hf("models", "ls", "--author", NAME.split("/")[0]),
    "files": hf("models", "ls", NAME, "--revision", "v3"), "tags": hf("repos", "tag", "ls", NAME),
    "who": hf("auth", "whoami"), "no": hf("download", NAME, "--revision", "v99"),
}}
"""


def test_the_command_line(door: Door, world: World, client: Run) -> None:
    name, token = f"{world.team}/adapter", door.token(world.engineer)
    said = client("2.4", token, COMMANDS.format(name=name))
    assert {verb: code for verb, (code, _) in said.items()} == {
        **dict.fromkeys(said, 0),
        "no": 1,
        "verify": 0,
    }, said
    assert json.loads(said["info"][1][said["info"][1].index("{") :])["id"] == name
    for verb, words in {
        "dry run": WEIGHTS,
        "card": "README.md",
        "files": WEIGHTS,
        "tags": "refs/tags/v3",
        "who": world.team,
    }.items():
        assert words in said[verb][1], said[verb]
