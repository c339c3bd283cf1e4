"""Bytes through the real server against a bare Starlette copy that hashes and fsyncs, and a bare
FileResponse.

Each server is a process of its own under the same uvicorn; the sender is a bare socket with
sendfile, so that it costs next to nothing. Every upload is of other bytes: known ones are not sent
twice.
"""

from __future__ import annotations

import hashlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from registry.blobs.store import Blobs
from registry.client import Countersign
from registry.commands import tokens
from registry.db import migrate
from registry.db.store import Store, open_engine
from registry.rules.actors import SYSTEM
from tests.benches import timed
from tests.build import a_person, install_policies
from tests.checkout import repository
from tests.database import open_databases
from tests.gateway.served import until

MEGABYTES = int(os.environ.get("COUNTERSIGN_BENCH_MB", "1024"))
SMALL = 64
RUNS = 5
BOUND = 0.7


def bare(folder: Path, port: int) -> None:
    """The reference: what a person writes in Starlette who wants the bytes hashed and durable."""
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import FileResponse, PlainTextResponse, Response
    from starlette.routing import Route

    async def put(request: Request) -> Response:
        hasher = hashlib.sha256()
        with (folder / request.path_params["name"]).open("wb") as file:
            async for piece in request.stream():
                hasher.update(piece)
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        return PlainTextResponse(hasher.hexdigest())

    async def get(request: Request) -> Response:
        return FileResponse(folder / request.path_params["name"])

    routes = [Route("/{name}", put, methods=["PUT"]), Route("/{name}", get)]
    uvicorn.run(Starlette(routes=routes), port=port, log_config=None, access_log=False)


def send(
    port: int, method: str, target: str, headers: dict[str, str], path: Path, start: int = 0
) -> bytes:
    """One request with the rest of a file as its body; the answer."""
    length = path.stat().st_size - start
    head = [
        f"{method} {target} HTTP/1.1",
        "Host: bench",
        "Connection: close",
        f"Content-Length: {length}",
    ]
    text = (
        "\r\n".join([*head, *(f"{name}: {value}" for name, value in headers.items())]) + "\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port)) as line, path.open("rb") as file:
        line.sendall(text.encode())
        line.sendfile(file, start)
        answer = b""
        while piece := line.recv(65536):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 20"), answer
    return answer


def fetch(port: int, target: str, headers: dict[str, str], size: int) -> None:
    """One GET, its bytes thrown away."""
    text = (
        "\r\n".join(
            [
                f"GET {target} HTTP/1.1",
                "Host: bench",
                "Connection: close",
                *(f"{name}: {value}" for name, value in headers.items()),
            ]
        )
        + "\r\n\r\n"
    )
    room, came = bytearray(1 << 20), 0
    with socket.create_connection(("127.0.0.1", port)) as line:
        line.sendall(text.encode())
        while count := line.recv_into(room):
            came += count
    assert size <= came < size + 4096, (came, size)


def fill(path: Path, megabytes: int) -> str:
    """Other bytes each time; their digest."""
    hasher, piece = hashlib.sha256(os.urandom(16)), b""
    with path.open("wb") as file:
        for _ in range(megabytes):
            piece = hasher.digest() * (1 << 15)
            hasher.update(piece[:64])
            file.write(piece)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def peak(server: subprocess.Popen[bytes]) -> float:
    """The most memory the server ever held, in MB."""
    text = Path(f"/proc/{server.pid}/status").read_text()
    return (
        next(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmHWM")) / 1024
    )


@contextmanager
def running(
    argv: list[str], port: int, environ: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    server = subprocess.Popen([sys.executable, *argv], cwd=repository(), env=os.environ | environ)
    try:
        until(lambda: _listens(port), f"port {port} answers")
        yield server
    finally:
        server.terminate()
        server.wait(30)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def _free() -> int:
    with socket.create_server(("127.0.0.1", 0)) as door:
        port: int = door.getsockname()[1]
        return port


def told(name: str, ours: list[float], other: list[float], said: str) -> None:
    """Medians, and our speed as a part of the reference's; all runs are printed, for machines are
    noisy.
    """
    mine, theirs = statistics.median(ours), statistics.median(other)
    runs = " ".join(f"{one:.2f}/{two:.2f}" for one, two in zip(ours, other, strict=True))
    print(
        f"{name:<44}{MEGABYTES / mine:>9.0f} MB/s   {said} {MEGABYTES / theirs:.0f} MB/s   ratio "
        f"{theirs / mine:.2f}   bound {BOUND}   runs {runs}"
    )


def run() -> None:
    """Print upload, download and resumption with their bounds, and the server's peak memory for 64
    MB and for all.
    """
    with (
        tempfile.TemporaryDirectory(prefix="cs") as home,
        open_databases(Path(home) / "pg") as databases,
    ):
        url = databases.create("bytes")
        migrate.upgrade(url)
        store = Store(open_engine(url, "countersign_app"))
        install_policies(store)
        person = a_person(store, "engineer", team="bench")
        token = str(
            tokens.create(
                store, SYSTEM, tokens.TokenRequest(person.actor.name, ["engineer"], "bench", 1)
            ).token
        )
        store.engine.dispose()
        folder, port, other = Path(home, "registry"), _free(), _free()
        environ = {
            "COUNTERSIGN_HOME": str(folder),
            "COUNTERSIGN_DATABASE_URL": url,
            "COUNTERSIGN_PORT": str(port),
        }
        there = Path(home, "bare")
        there.mkdir()
        reference = [
            "-c",
            f"from tests.benches.blobs import *; bare(Path({str(there)!r}), {other})",
        ]
        with (
            running(["-m", "registry", "api"], port, environ) as server,
            running(reference, other, {}),
        ):
            _measure(
                Path(home),
                folder / "private" / "blobs",
                port,
                other,
                {"Authorization": f"Bearer {token}"},
                server,
            )
            _through_the_client(Path(home), port, token)


def _measure(
    home: Path,
    blobs: Path,
    port: int,
    other: int,
    who: dict[str, str],
    server: subprocess.Popen[bytes],
) -> None:
    body, api = home / "body", "/api/v1"
    start = {**who, "Upload-Offset": "0"}
    send(port, "PATCH", f"{api}/uploads/{fill(body, SMALL)}", start, body)
    send(other, "PUT", "/bytes", {}, body)
    little = peak(server)
    whole: list[float] = []
    resumable: list[float] = []
    theirs: list[float] = []
    ways: list[tuple[list[float], Callable[[str], bytes]]] = [
        (whole, lambda digest: send(port, "PUT", f"{api}/blobs/{digest}", who, body)),
        (theirs, lambda _: send(other, "PUT", "/bytes", {}, body)),
        (resumable, lambda digest: send(port, "PATCH", f"{api}/uploads/{digest}", start, body)),
    ]
    digest = ""
    for _ in range(RUNS):
        for times, way in ways:
            if digest:
                (blobs / "sha256" / digest[:2] / digest[2:4] / digest).unlink(missing_ok=True)
            digest = fill(body, MEGABYTES)
            os.sync()
            times.append(timed(lambda way=way, digest=digest: way(digest)))
    told(f"upload {MEGABYTES} MB, PUT", whole, theirs, "bare, hashes and fsyncs,")
    told(f"upload {MEGABYTES} MB, resumable", resumable, theirs, "bare, hashes and fsyncs,")
    size = body.stat().st_size
    Blobs(blobs).put(_read(body), expect=digest)
    ours, files = [], []
    for _ in range(RUNS):
        ours.append(timed(lambda: fetch(port, f"{api}/blobs/{digest}", who, size)))
        files.append(timed(lambda: fetch(other, "/bytes", {}, size)))
    told(f"download {MEGABYTES} MB", ours, files, "bare FileResponse")
    print(
        f"{'peak memory of the server':<44}{peak(server):>9.0f} MB     after {SMALL} MB "
        f"{little:.0f} MB   "
        f"grew {peak(server) - little:.0f} MB   bound 32 MB"
    )
    (blobs / "sha256" / digest[:2] / digest[2:4] / digest).unlink()
    _resumed(port, who, body, digest)


def _resumed(port: int, who: dict[str, str], body: Path, digest: str) -> None:
    """Half of it, a pause, and the rest: what a cut costs beside one whole upload."""
    half, size = body.with_name("half"), body.stat().st_size
    with body.open("rb") as file, half.open("wb") as out:
        for _ in range(size // 2 >> 20):
            out.write(file.read(1 << 20))
    target = f"/api/v1/uploads/{digest}"
    send(port, "PATCH", target, {**who, "Upload-Offset": "0", "Upload-Complete": "?0"}, half)
    offset = half.stat().st_size
    seconds = timed(
        lambda: send(port, "PATCH", target, {**who, "Upload-Offset": str(offset)}, body, offset)
    )
    print(f"{'the second half of it, resumed':<44}{seconds:>9.2f} s")


def _through_the_client(home: Path, port: int, token: str) -> None:
    body = home / "body"
    fill(body, MEGABYTES)
    with Countersign(f"http://127.0.0.1:{port}", token) as registry:
        seconds = timed(lambda: registry.put_file(body))
    print(
        f"{'the same by the Python client, hashing first':<44}{seconds:>9.2f} s    "
        f"{MEGABYTES / seconds:.0f} MB/s"
    )
    program = (
        "import resource, sys\nfrom registry.client import Countersign\n"
        "registry = Countersign(sys.argv[1], sys.argv[2])\nregistry.has_blob('0' * 64)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "sent = registry.put_file(sys.argv[3])\n"
        "registry.get_blob(sent.sha256, sys.argv[3] + '.back')\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, f"http://127.0.0.1:{port}", token, str(body)],
        cwd=repository(),
        capture_output=True,
        check=True,
        text=True,
    )
    print(f"{'memory of that client, up and down':<44}{int(done.stdout):>9} MB more    bound 24 MB")


def _read(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            yield piece


if __name__ == "__main__":
    began = time.monotonic()
    run()
    print(f"{time.monotonic() - began:.0f} s in all")
