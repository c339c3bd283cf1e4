"""What foreign clients never send: answered by name, and never by a 5xx."""

from __future__ import annotations

import gzip
import json
import secrets
import socket
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from registry.commands import recalls
from registry.errors import Invalid
from registry.rules.refs import RESERVED_TEAMS
from tests.api.conftest import Door
from tests.build import World, a_base, a_person, train
from tests.gateway.served import until
from tests.hub.conftest import get, raw

PATHS = [
    "/{r}/resolve/v1/..%2f..%2fetc/passwd",
    "/{r}/resolve/%00/x",
    "/{r}/resolve/v1/%00",
    "/{r}/resolve/v1/%ff",
    "/{r}/resolve/v1/" + "a" * 5000,
    "/{r}/resolve/" + "a" * 3000 + "/x",
    "/{r}/resolve/abc1234/config.json",
    "/{r}/resolve/v999999999/x",
    "/{r}/resolve/v1",
    "/api/models/{r}/tree/v1/nowhere",
    "/api/models/{r}/xet-read-token/v1",
    "/api/models/{r}/revision/%2e%2e",
    "/api/models/x",
    "/api/models/a%00/b",
    "/api/models?search=%00",
    "/api/models?cursor=%00",
    "/api/models?limit=x",
    "/api/agent-harnesses",
    "/a%2Fb/c/resolve/v1/x",
]


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
    assert (
        door.client.get(place, headers={**headers, "Range": f"bytes={'9' * 18}-"}).status_code
        == 416
    )
    assert (
        door.client.get(place, headers={**headers, "Range": f"bytes={'9' * 50}-"}).status_code
        == 200
    )
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
    answer = door.client.head(
        place + "no", headers={"Authorization": f"Bearer {door.token(served.engineer)}"}
    )
    assert (answer.status_code, answer.headers["x-error-code"]) == (404, "EntryNotFound")
    assert len(answer.headers["x-repo-commit"]) == 40


def test_the_console_keeps_its_pages(door: Door) -> None:
    for page in ("/login", "/adapters/acme/resolve/v/3"):
        assert "x-error-code" not in door.client.get(page).headers


ODD = st.sampled_from(
    [
        "{team}",
        "adapter",
        "adapter.v1",
        "adapter.v999999999999",
        "resolve",
        "api",
        "models",
        "resolve-cache",
        "tree",
        "revision",
        "paths-info",
        "refs",
        "commits",
        "auth-check",
        "write",
        "v1",
        "v2",
        "V1",
        "v0",
        "v99999999999",
        "main",
        "production",
        "production%2Fbeta",
        "refs%2Fheads%2Fmain",
        "refs/tags/v1",
        "draft-00000000",
        "sha256-" + "0" * 64,
        "deadbeef",
        "0" * 40,
        "adapter_config.json",
        "..",
        "%2e%2e",
        "%2E%2e%2f%2e%2e",
        ".",
        "",
        "%00",
        "%",
        "%zz",
        "%ff",
        "%ed%a0%80",
        "%0d%0aX-Evil:1",
        "a" * 200,
        "a" * 5000,
        "%F0%9F%92%A9",
        "*",
        "\\",
        "%3f",
        ";",
        "{}",
        "'",
        "--",
        "@",
        ":",
        "~",
        "$(id)",
        "static",
        "healthz",
    ]
)
QUERIES = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "limit",
                "cursor",
                "search",
                "author",
                "filter",
                "sort",
                "expand",
                "expand[]",
                "recursive",
                "blobs",
                "full",
                "include_prs",
                "gated",
                "pipeline_tag",
                "x",
            ]
        ),
        st.sampled_from(
            [
                "",
                "0",
                "-1",
                "1",
                "true",
                "%00",
                "%ff",
                "9" * 40,
                "1e9",
                "lastModified",
                "createdAt",
                "siblings",
                "tags",
                "%27",
                "%25",
                "_",
                "2026-01-01T00:00:00|x",
                "9999-12-31T23:59:59-23:59|x",
                "0001-01-01T00:00:00%2B23:59|x",
                "a" * 2000,
                "%F0%9F%92%A9",
                "[]",
            ]
        ),
    ),
    max_size=4,
)
RANGES = st.sampled_from(
    [
        "",
        "bytes=0-0",
        "bytes=-1",
        "bytes=-0",
        "bytes=5-2",
        "bytes=0-0,2-3",
        "bytes=" + ",".join(["0-1"] * 900),
        "bytes=a-b",
        "bytes=" + "9" * 400 + "-",
        "items=0-1",
        "bytes=0-" + "9" * 19,
        "bytes=\u0663-",
        "bytes=--1",
        "bytes= 0-1",
        "none",
    ]
)
BODIES = st.sampled_from(
    [
        b"",
        b"paths=x",
        b"paths=%00&paths=..",
        b"&" * 3000,
        b"paths=a&" * 900,
        b"\xff\xfe",
        b"[" * 5000,
        b"null",
        b'{"paths": 1}',
        b'{"paths": [1]}',
        b'{"paths": "README.md", "expand": {"a": 1}}',
        b'{"paths": ["\\ud800"]}',
        b'{"paths": ["\\u0000"]}',
        json.dumps({"paths": ["a" * 50] * 1001}).encode(),
    ]
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    method=st.sampled_from(["GET", "HEAD", "POST"]),
    start=st.sampled_from(
        [
            "",
            "/{team}/adapter/resolve",
            "/api/models",
            "/api/models/{team}/adapter",
            "/api/models/{team}/adapter/tree/v1",
            "/api/models/{team}/adapter/paths-info",
            "/{team}/adapter/resolve/v1",
        ]
    ),
    parts=st.lists(ODD, max_size=4),
    query=QUERIES,
    ranges=RANGES,
    body=BODIES,
    kind=st.sampled_from(
        ["", "application/json", "application/x-www-form-urlencoded", "text/html"]
    ),
)
def test_whatever_is_asked_is_answered(
    door: Door,
    served: World,
    method: str,
    start: str,
    parts: list[str],
    query: list[tuple[str, str]],
    ranges: str,
    body: bytes,
    kind: str,
) -> None:
    target = "/".join([start, *parts]).replace("{team}", served.team) or "/"
    target = (
        (target if target.startswith("/") else "/" + target)
        + "?"
        + "&".join(f"{key}={value}" for key, value in query)
    )
    headers = {name: value for name, value in (("Range", ranges), ("Content-Type", kind)) if value}
    status, head, answer = raw(door, door.token(served.engineer), method, target, headers, body)
    assert status < 500, (method, target, head, answer[:300])
    assert b"X-Evil" not in head
    assert status < 400 or len(head) + len(answer) < 16384
    assert b"root:" not in answer
    assert b"Traceback" not in answer


@pytest.mark.parametrize(
    "headers",
    [
        {"Range": "bytes=-4"},
        {"Range": "bytes=-0"},
        {"Range": "bytes=0-1,4-5"},
        {"Range": "bytes=2-1"},
        {"If-None-Match": "etag"},
        {"Range": "bytes=0-3", "If-Range": '"other"'},
        {"Range": "bytes=0-3", "If-Range": "etag"},
    ],
)
def test_conditions_and_odd_ranges(headers: dict[str, str], door: Door, served: World) -> None:
    token, place = (
        door.token(served.engineer),
        f"/{served.team}/adapter/resolve/v1/adapter_model.safetensors",
    )
    whole = get(door, token, place)
    size, etag = len(whole.content), whole.headers["etag"]
    answer = get(
        door,
        token,
        place,
        headers={key: etag if value == "etag" else value for key, value in headers.items()},
    )
    expected = {
        "bytes=-4": (206, whole.content[-4:], f"bytes {size - 4}-{size - 1}/{size}"),
        "bytes=-0": (416, b"", f"bytes */{size}"),
        "bytes=0-1,4-5": (200, whole.content, None),
        "bytes=2-1": (416, b"", f"bytes */{size}"),
        None: (304, b"", None),
        "bytes=0-3": (200, whole.content, None),
    }[headers.get("Range")]
    if headers.get("If-Range") == "etag":
        expected = (206, whole.content[:4], f"bytes 0-3/{size}")
    assert (answer.status_code, answer.content, answer.headers.get("content-range")) == expected
    head = get(door, token, place, method="HEAD", headers={"Range": "bytes=0-3"})
    assert (head.status_code, head.headers["content-length"]) == (200, str(size))


def test_a_question_that_breaks_off_is_no_fault(
    door: Door, served: World, caplog: pytest.LogCaptureFixture
) -> None:
    head = (
        f"POST /api/models/{served.team}/adapter/paths-info/v1 HTTP/1.1\r\nHost: "
        "x\r\nContent-Length: 100\r\n"
        f"Authorization: Bearer {door.token(served.engineer)}\r\n\r\npaths=README.md"
    )
    told = lambda: [  # noqa: E731
        line
        for line in door.client.get("/metrics").text.splitlines()
        if '"POST",status="503"' in line
    ]
    before = told()
    with socket.create_connection(("127.0.0.1", int(door.url.rpartition(":")[2])), 20) as line:
        line.sendall(head.encode())
    until(lambda: told() != before, "the question was heard")
    assert "unexpected" not in caplog.text


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", b"null"),
        ("application/json", b"[]"),
        ("application/json", b'{"paths": {"a": 1}}'),
        ("application/json", b'{"paths": [[["x"]]]}'),
        ("application/json", b"[" * 30000),
        ("application/json", b"\xff"),
        ("application/x-www-form-urlencoded", "paths=x".encode("utf-16")),
        ("multipart/form-data; boundary=x", b"--x--"),
        ("application/json", gzip.compress(b'{"paths": []}' + b" " * (1 << 24))),
    ],
)
def test_paths_that_are_none(kind: str, body: bytes, door: Door, served: World) -> None:
    place, headers = (
        f"/api/models/{served.team}/adapter/paths-info/v1",
        {"Content-Type": kind, "Content-Encoding": "gzip"},
    )
    answer = get(
        door, door.token(served.engineer), place, method="POST", content=body, headers=headers
    )
    assert (answer.status_code, answer.json()["kind"]) == (400, "bad-paths")


def test_methods_that_are_none(door: Door, served: World) -> None:
    token, place = (
        door.token(served.engineer),
        f"/{served.team}/adapter/resolve/v1/adapter_config.json",
    )
    for method in ("PUT", "DELETE", "OPTIONS", "TRACE", "get", "PROPFIND"):
        status, head, _ = raw(door, token, method, place, {"X-HTTP-Method-Override": "GET"}, b"")
        assert (status, b"allow: " in head) == (405, True)


def test_many_paths_are_refused_before_they_are_read(door: Door, served: World) -> None:
    token, place = door.token(served.engineer), f"/api/models/{served.team}/adapter/paths-info/v1"
    # One expression, said where it is used.
    ask = lambda **body: get(door, token, place, method="POST", **body)  # noqa: E731
    assert len(ask(data={"paths": ["adapter_config.json"] * 1000}).json()) == 1
    assert ask(data={"paths": ["x"] * 1200}).status_code == 400
    assert ask(json={"paths": ["x"] * 1001}).json()["kind"] == "bad-paths"
    assert ask(content=b"paths=" + b"x" * (1 << 17)).status_code == 413
    assert ask(content=iter([b"paths=x"])).status_code == 413  # no length said


def test_a_hostile_reason_is_only_words(door: Door, served: World) -> None:
    train(served, seed=50)
    ref, token = served.versions[-1], door.token(served.engineer)
    reason = (
        "leaks\r\nX-Evil: yes\r\n\r\n<script>alert(1)</script> \u202e \u00e5\u6f22 \x7f "
        + "x" * 900
    )
    recalls.recall(door.store, served.engineer.actor, ref, reason)
    answer = get(door, token, f"/{ref.replace('@', '/resolve/')}/adapter_config.json")
    assert (answer.status_code, answer.headers["x-error-code"]) == (404, "RevisionNotFound")
    said = answer.headers["x-error-message"]
    assert "x-evil" not in answer.headers
    assert said.isascii()
    assert said.isprintable()
    assert 0 < len(said) <= 500
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["error"].endswith("x.")


def test_teams_named_like_pages(door: Door) -> None:
    """Such a team has no line; and any other first segment is a team's."""
    for team in RESERVED_TEAMS:
        engineer = a_person(door.store, "engineer", team=team, signs=False)
        with pytest.raises(Invalid) as refusal:
            a_base(door.store, door.blobs, engineer, team)
        assert refusal.value.kind == "bad-team"
    for team in ("adapter", "docs", "resolve"):
        engineer = a_person(door.store, "engineer", team=team, signs=False)
        a_base(door.store, door.blobs, engineer, team, name=f"n{secrets.token_hex(4)}")
        token = door.token(engineer)
        [name] = [model["id"] for model in get(door, token, f"/api/models?author={team}").json()]
        assert get(door, token, f"/api/models/{quote(name)}").status_code == 200
        assert get(door, token, f"/{name}/resolve/v1/config.json").status_code == 200
    info = get(door, token, "/api/models/adapters/anything")
    assert (info.status_code, info.headers["x-error-code"]) == (404, "RepoNotFound")
