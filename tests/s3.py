"""A real S3 over HTTP: moto's server in a process of its own, its buckets in its memory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import uuid4

import httpx

from tests.gateway.served import until
from tests.ports import free_port

KEYS = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "a-secret",
    "AWS_REGION": "eu-central-1",
    "AWS_ALLOW_HTTP": "true",
}


@dataclass
class ObjectStorage:
    """One server; `environ` is what a registry needs to reach it."""

    port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environ(self) -> dict[str, str]:
        return {**KEYS, "AWS_ENDPOINT": self.url}

    def bucket(self) -> str:
        """The URL of a blob store of one's own."""
        name = f"b{uuid4().hex[:12]}"
        httpx.put(f"{self.url}/{name}", trust_env=False).raise_for_status()
        return f"s3://{name}/blobs"

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def serving() -> Iterator[ObjectStorage]:
    """Run it until the end of the block, on a free port of loopback."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | KEYS,
    )
    try:
        until(lambda: _answers(port), "the object storage answers")
        yield ObjectStorage(port, process)
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    try:
        httpx.get(f"http://127.0.0.1:{port}/moto-api/", trust_env=False)
    except httpx.TransportError:
        return False
    return True
