"""Bytes in an object store come from it: a redirect with all that clients need on it, and no token
leaves with them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, urlsplit

import pytest

from registry.app import create_app
from registry.settings import load
from tests.api.conftest import Door
from tests.build import World
from tests.gateway.served import Served
from tests.hub.conftest import PEERS, Run, get

BUCKET = "bucket"


@contextmanager
def storage(folder: Path) -> Iterator[tuple[str, list[tuple[str, str, dict[str, str]]]]]:
    """Another origin with the bytes of a folder as objects; what it was asked: method, address,
    headers.
    """
    asked: list[tuple[str, str, dict[str, str]]] = []

    class Object(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked.append(
                (
                    self.command,
                    self.path,
                    {name.lower(): value for name, value in self.headers.items()},
                )
            )
            data = (folder / urlsplit(self.path).path.removeprefix(f"/{BUCKET}/")).read_bytes()
            first, _, last = (
                self.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")
            )
            part = data[int(first) : int(last) + 1 if last else None]
            self.send_response(206 if "range" in self.headers else 200)
            self.send_header("Content-Length", str(len(part)))
            self.send_header(
                "Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}"
            )
            self.send_header("ETag", '"made-up"')
            self.send_header("Last-Modified", formatdate(0, usegmt=True))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(part)

        do_HEAD = do_GET  # noqa: N815 - the name http.server looks for

        def log_message(self, *_: object) -> None:
            """Nothing on stderr."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Object)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_clients_fetch_from_the_store_itself(
    door: Door, served: World, client: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name, token = f"{served.team}/adapter", door.token(served.engineer)
    with storage(door.settings.private / "blobs") as (origin, asked):
        for key, value in {
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "the secret",
            "AWS_REGION": "eu-central-1",
            "AWS_ENDPOINT": origin,
            "AWS_ALLOW_HTTP": "true",
        }.items():
            monkeypatch.setenv(key, value)
        app = create_app(
            load(home=tmp_path, database_url=door.settings.database_url, blob_url=f"s3://{BUCKET}")
        )
        other = Served(app)
        try:
            where, headers = (
                f"{other.url}/{name}/resolve/v2/adapter_config.json",
                {"Authorization": f"Bearer {token}"},
            )
            plain = get(door, token, f"/{name}/resolve/v2/adapter_config.json")
            sent = door.client.get(where, headers=headers)
            assert (sent.status_code, sent.headers["x-linked-etag"]) == (302, plain.headers["etag"])
            assert sent.headers["x-linked-size"] == plain.headers["content-length"]
            assert sent.headers["x-repo-commit"] == plain.headers["x-repo-commit"]
            head = door.client.head(
                where, headers=headers
            )  # asked here, answered here: what is signed for GET refuses it
            told = ("etag", "x-repo-commit", "content-length")
            assert (head.status_code, [head.headers[one] for one in told]) == (
                200,
                [plain.headers[one] for one in told],
            )
            assert "location" not in head.headers
            first = door.client.get(
                where, headers={**headers, "Range": "bytes=0-0"}
            )  # as Rust and JavaScript ask for it
            assert (first.status_code, first.content, "location" in first.headers) == (
                206,
                plain.content[:1],
                False,
            )
            place = urlsplit(sent.headers["location"])
            assert f"{place.scheme}://{place.netloc}" == origin
            assert {"X-Amz-Signature", "X-Amz-Expires"} <= set(parse_qs(place.query))
            script = f"""
some = hf_hub_download({name!r}, "adapter_model.safetensors", revision="v2")
snap = snapshot_download({name!r}, revision="production")
assert open(some, "rb").read() == open(snap + "/adapter_model.safetensors", "rb").read()
api.parse_safetensors_file_metadata({name!r}, "adapter_model.safetensors", revision="v2")
out = open(some, "rb").read().hex()
"""
            weights = get(door, token, f"/{name}/resolve/v2/adapter_model.safetensors").content
            for version in PEERS:
                assert client(version, token, script, endpoint=other.url) == weights.hex()
        finally:
            other.stop()
            app.state.store.engine.dispose()
    signed = [one for one in asked if "X-Amz-Signature" in one[1]]
    assert len(signed) >= 3 * len(PEERS)
    assert not [one for one in signed if "authorization" in one[2]]
    assert not [one for one in asked if token in str(one)]
