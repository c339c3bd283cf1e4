"""Hostile bundles and hostile senders at a registry with its ordinary limits: named refusals, and
memory that is bounded by our own accounts of it.

`make bench` (tests/benches/limits.py) prints what the same bundles cost a real server process in
seconds of CPU and in megabytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from registry.api import bytes as pieces
from registry.artifacts.bundles.memory import JUDGING, MAX_JUDGING_BYTES
from registry.client import Countersign, NewVersion, Progress
from registry.errors import BundleRejected
from registry.settings import Settings
from tests.api.conftest import Door, opened
from tests.assets.cases import Case, Files, sound
from tests.assets.make import CASES
from tests.assets.worst import WORST, like_gemma
from tests.build import World
from tests.gateway.served import until
from tests.sampling import sampled

MB = 1 << 20
BAD = [name for name, case in CASES.items() if case.defects]
AT_ONCE = 8
TELLING = "16 MiB of long numbers", "1,024 files", "every large file at once"


@dataclass
class Server:
    """The registry with its ordinary limits, and one engineer who sends it things."""

    client: httpx.Client
    token: str
    sent: dict[bytes, str] = field(default_factory=dict)

    def put(self, content: bytes) -> str:
        if content not in self.sent:
            digest = hashlib.sha256(content).hexdigest()
            answer = self.client.put(f"/blobs/{digest}", content=content)
            assert answer.status_code == 201, answer.text
            self.sent[content] = digest
        return self.sent[content]

    def body(self, world: World, files: Files, name: str = "hostile") -> dict[str, Any]:
        return {
            "name": f"{world.team}/{name}",
            "meta": {"licence": "x", "source": "x"},
            "files": [
                {"path": path, "sha256": self.put(content), "size": len(content)}
                for path, content in files.items()
            ],
        }

    def add(self, world: World, files: Files, name: str = "hostile") -> httpx.Response:
        return self.client.post("/bases", json=self.body(world, files, name))


@pytest.fixture(scope="module")
def server(door: Door, world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    ordinary = {
        name: Settings.model_fields[name].default for name in ("max_json_bytes", "max_blob_bytes")
    }
    url, token = str(door.settings.database_url), door.token(world.engineer)
    with (
        opened(url, tmp_path_factory.mktemp("limits"), **ordinary) as served,
        httpx.Client(
            base_url=f"{served.url}/api/v1",
            headers={"Authorization": f"Bearer {token}"},
            timeout=120,
        ) as client,
    ):
        yield Server(client, token)


def told(answer: httpx.Response) -> list[tuple[str, str, str]]:
    return [(one["rule"], one["file"], one["where"]) for one in answer.json()["defects"]]


def test_a_sound_bundle_is_taken(server: Server, world: World) -> None:
    """What the rest is held against: this very server takes what is in order."""
    answer = server.add(world, sound(), "sound")
    assert answer.status_code == 201, answer.text


@pytest.mark.parametrize("name", sampled(BAD, BAD[::12]))
def test_every_bad_case_is_refused_with_its_defects(
    server: Server, world: World, name: str
) -> None:
    case: Case = CASES[name]
    answer = server.add(world, case.make())
    assert answer.status_code == 422, answer.text[:500]
    assert answer.json()["kind"] == "bundle-rejected"
    assert told(answer) == list(case.defects)


@pytest.mark.parametrize("name", sampled(WORST, TELLING))
def test_the_worst_is_refused_in_a_short_answer(server: Server, world: World, name: str) -> None:
    """What judging it costs is counted in tests/artifacts/bundles/test_costs.py."""
    make, rule = WORST[name]
    answer = server.add(world, make())
    assert answer.status_code == 422, answer.text[:500]
    assert rule in {one for one, _, _ in told(answer)}
    assert len(answer.content) < 500_000


def test_the_largest_genuine_tokenizer_is_taken(server: Server, world: World) -> None:
    """Bounds that refuse what people have are no bounds: 262,144 pieces and 514,906 merges, 33
    MB.
    """
    answer = server.add(world, sound() | {"tokenizer.json": like_gemma()}, "gemma")
    assert answer.status_code == 201, answer.text


def test_names_are_refused_before_a_byte_is_sent(
    server: Server, world: World, tmp_path: Path
) -> None:
    """With them all that is wrong with the contents; the registry keeps the refusal, and nothing
    else.
    """
    files = sound() | {
        "model.bin": b"\x80\x02odd",
        "README.md": b"<script>odd</script>",
        "a" * 200: b"",
        "config.json": b"{",
    }
    for path, content in files.items():
        (tmp_path / path).write_bytes(content)
    with Countersign(
        str(server.client.base_url).removesuffix("/api/v1/"), server.token
    ) as registry:
        with pytest.raises(BundleRejected) as refused:
            registry.add("base", tmp_path, NewVersion(f"{world.team}/unsent"))
        for odd in ("model.bin", "README.md", "config.json"):
            assert not registry.has_blob(hashlib.sha256(files[odd]).hexdigest())
    assert [(one.rule, one.file) for one in refused.value.defects] == [
        ("file-not-allowed", "a" * 200),
        ("file-not-allowed", "model.bin"),
        ("code-as-text", "README.md"),
        ("bad-json", "config.json"),
    ]
    with world.store.engine.connect() as connection:
        found = connection.execute(
            text(
                "select outcome from event where action = 'version:register' and subject = :subject"
            ),
            {"subject": f"{world.team}/unsent"},
        ).all()
    assert [one.outcome for one in found] == ["refused"]


AT_A_TIME = (
    "16 MiB of long numbers",
    "4 MiB header of empty lists",
    "12 MiB of numbers of 4,000 digits",
    "index of 12 MiB",
)


def test_many_at_once_wait_for_the_room_of_one(server: Server, world: World) -> None:
    """They are judged as there is room for what each takes; whoever asks for other things is
    answered meanwhile, and a small bundle is judged in its turn.
    """
    bodies = [server.body(world, WORST[name][0]()) for name in AT_A_TIME]
    small = server.body(world, sound(), "sound")
    with ThreadPoolExecutor(AT_ONCE + 1) as crowd:
        with JUDGING.take(MAX_JUDGING_BYTES):
            asked = [
                crowd.submit(server.client.post, "/bases", json=bodies[n % len(bodies)])
                for n in range(AT_ONCE)
            ]
            until(lambda: JUDGING.waiting == AT_ONCE, "all wait for room")
            assert server.client.get("/lines").status_code == 200
            last = crowd.submit(server.client.post, "/bases", json=small)
            until(lambda: JUDGING.waiting == AT_ONCE + 1, "so does a small one")
            assert not any(one.done() for one in (*asked, last))
        answers = [one.result() for one in asked]
        assert last.result().status_code in (200, 201)
    told = {(answer.status_code, answer.json()["kind"]) for answer in answers}
    assert (422, "bundle-rejected") in told
    assert told <= {(422, "bundle-rejected"), (503, "judging-busy")}
    assert JUDGING.waiting == 0


def half_sent(server: Server, head: str, length: int, sent: int) -> socket.socket:
    """A request whose body is not through yet."""
    url = server.client.base_url
    line = socket.create_connection((url.host, url.port))
    line.sendall(
        f"{head} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.token}\r\nContent-Type: "
        "application/json\r\n"
        f"Content-Length: {length}\r\n\r\n".encode()
        + bytes(sent)
    )
    return line


def test_a_crowd_of_slow_senders_holds_little(server: Server) -> None:
    """As many as are taken at once, each cut where it holds most: of 192 MB that they sent, what is
    in memory is what their number allows.
    """
    pieces.RECEIVED.peak = 0
    allowed = sum(
        2 * pieces.BATCH_BYTES // max(1, count // pieces.FULL_BATCH_SENDERS)
        for count in range(1, pieces.MAX_BODIES + 1)
    )
    assert allowed < 64 * MB
    with ExitStack() as lines:
        for n in range(pieces.MAX_BODIES):
            line = half_sent(server, f"PUT /api/v1/blobs/{n:064x}", 4 * MB, 3 * MB - 1)
            lines.enter_context(closing(line))
        assert server.client.get("/lines").status_code == 200
        assert 0 < pieces.RECEIVED.now <= pieces.RECEIVED.peak <= allowed
    until(lambda: pieces.RECEIVED.now == 0, "those who went away hold nothing")


def test_a_large_file_passes_in_pieces_both_ways(server: Server, tmp_path: Path) -> None:
    """The registry never holds more of it than two batches, nor the client more than a chunk."""
    size = 24 * MB
    path, back = tmp_path / "weights.bin", tmp_path / "weights.back"
    path.write_bytes(os.urandom(MB) * (size // MB))
    steps: list[int] = []

    class Watch(Progress):
        def __call__(self, n: int) -> None:
            steps.append(n)

    pieces.RECEIVED.peak = pieces.GIVEN.peak = 0
    with Countersign(
        str(server.client.base_url).removesuffix("/api/v1/"), server.token
    ) as registry:
        sent = registry.put_file(path, Watch())
        registry.get_blob(sent.sha256, back)
    assert back.read_bytes() == path.read_bytes()
    assert (sum(steps), max(steps) <= MB) == (size, True)
    # What the network hands over at once may reach past the end of a batch.
    assert pieces.BATCH_BYTES <= pieces.RECEIVED.peak <= 2 * (pieces.BATCH_BYTES + MB // 4)
    assert pieces.PIECE_BYTES <= pieces.GIVEN.peak <= 2 * pieces.PIECE_BYTES
    until(lambda: (pieces.RECEIVED.now, pieces.GIVEN.now) == (0, 0), "nothing is held")


def test_large_requests_half_sent_are_bounded_together_and_hinder_no_small_one(
    server: Server, world: World
) -> None:
    large = {"name": f"{world.team}/hostile", "files": [], "meta": {"licence": "x" * 900_000}}
    with ExitStack() as lines:

        def full() -> bool:
            lines.enter_context(closing(half_sent(server, "POST /api/v1/bases", 1 << 20, 1000)))
            kind: str = server.client.post("/bases", json=large).json()["kind"]
            return kind == "bodies-busy"

        until(full, "no more large bodies are taken", 60)
        refused = server.client.post("/bases", json=large)
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "2")
        assert server.add(world, sound(), "sound").status_code in (200, 201)
    until(
        lambda: server.client.post("/bases", json=large).json()["kind"] == "invalid-request",
        "there is room again",
        60,
    )


MANY: list[tuple[str, dict[str, Any]]] = [
    (
        "2,001 files",
        {"files": [{"path": f"f{n}", "sha256": "0" * 64, "size": 1} for n in range(2001)]},
    ),
    (
        "a path of 1,001 characters",
        {"files": [{"path": "p" * 1001, "sha256": "0" * 64, "size": 1}]},
    ),
    ("a path with NUL", {"files": [{"path": "a\0b", "sha256": "0" * 64, "size": 1}]}),
    ("metadata of 100 kB", {"meta": {"licence": "x" * 100_000}}),
    ("metadata of many keys", {"meta": {f"k{n}": n for n in range(20_000)}}),
    ("metadata 20 deep", {"meta": {"a": json.loads("[" * 20 + "]" * 20)}}),
]


@pytest.mark.parametrize(("name", "change"), MANY, ids=[name for name, _ in MANY])
def test_a_request_that_says_too_much_is_wrong(
    server: Server, world: World, name: str, change: dict[str, Any]
) -> None:
    body = {"name": f"{world.team}/hostile", "files": [], "meta": {}} | change
    answer = server.client.post("/bases", json=body)
    assert (answer.status_code, answer.json()["kind"]) == (422, "invalid-request"), answer.text[
        :300
    ]
