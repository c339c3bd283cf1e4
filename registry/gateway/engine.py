"""A client of the engine, in the subset of vLLM's API that every known engine has."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from registry.errors import Refused, Unavailable

CONNECTIONS = 64
ANSWER_SECONDS = 120.0
"""How long an engine may be silent while it works on one answer."""
QUEUE_SECONDS = 10.0
"""How long a request waits for a free connection."""
LOAD_SECONDS = 120.0
"""How long a load may take: an engine with one thread first gives the answers that wait."""


@dataclass(frozen=True, slots=True)
class Model:
    """One entry of the engine's model list.

    `root` is the directory it was loaded from; `parent` is an adapter's base.
    """

    id: str
    root: str | None
    parent: str | None


class Engine:
    """One engine. Raises Unavailable when it does not answer, Refused when it refuses."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._http = httpx.AsyncClient(
            base_url=self.url,
            trust_env=False,
            headers={"Accept-Encoding": "identity"},
            timeout=httpx.Timeout(ANSWER_SECONDS, connect=3.0, write=10.0, pool=QUEUE_SECONDS),
            limits=httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS),
        )
        # A pool of its own: when requests fill the first, the gateway must still be able to list
        # what is loaded and to load what it rolls back to.
        self._admin = httpx.AsyncClient(
            base_url=self.url,
            trust_env=False,
            timeout=httpx.Timeout(10.0, connect=3.0),
            limits=httpx.Limits(max_connections=4),
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()
        await self._admin.aclose()

    async def models(self) -> dict[str, Model]:
        """What the engine serves now, by name."""
        try:
            answer = await self._admin.get("/v1/models")
            rows = answer.json()["data"] if answer.is_success else None
            if rows is None:
                raise Unavailable(
                    "engine-failed", f"The engine answered {answer.status_code} to GET /v1/models."
                )
            return {row["id"]: Model(row["id"], row.get("root"), row.get("parent")) for row in rows}
        except httpx.RequestError as error:
            raise self._away(error) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Unavailable(
                "engine-failed",
                "The engine's answer to GET /v1/models is not a model list.",
                "Check the address given as --engine.",
            ) from error

    async def load(self, name: str, directory: Path) -> None:
        """Load an adapter under its immutable name. One that is loaded already is no failure."""
        await self._ask(
            "/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(directory)}, name
        )

    async def unload(self, name: str) -> None:
        """Unload an adapter; the engine frees its memory when it needs it."""
        await self._ask("/v1/unload_lora_adapter", {"lora_name": name}, name)

    async def _ask(self, path: str, body: dict[str, str], name: str) -> None:
        try:
            answer = await self._admin.post(path, json=body, timeout=LOAD_SECONDS)
        except httpx.RequestError as error:
            raise self._away(error) from error
        if not answer.is_success and "already" not in answer.text:
            raise Refused(
                "engine-refused",
                f"The engine refused {name} ({answer.status_code}): {answer.text[:300]}",
                ref=name,
                status=answer.status_code,
            )

    @asynccontextmanager
    async def send(self, path: str, body: bytes) -> AsyncIterator[httpx.Response]:
        """Send a caller's request; the answer's body is not read yet.

        Raises Unavailable, also when the engine breaks off in mid-answer.
        """
        try:
            async with self._http.stream(
                "POST", path, content=body, headers={"Content-Type": "application/json"}
            ) as answer:
                yield answer
        except httpx.PoolTimeout as error:
            raise Unavailable(
                "engine-busy",
                f"All {CONNECTIONS} connections to the engine are in use.",
                retry_after=2,
            ) from error
        except httpx.RequestError as error:
            raise self._away(error) from error

    def _away(self, error: httpx.RequestError) -> Unavailable:
        gone = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
        facts: dict[str, Any] = {"retry_after": 2, "gone": gone}
        what = "cannot be reached" if gone else "did not answer"
        return Unavailable(
            "engine-unreachable", f"The engine {what}: {type(error).__name__}.", **facts
        )
