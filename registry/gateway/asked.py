"""A caller's request, read within limits: the channel it names, its unit id, and the body as the
engine gets it.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from starlette.requests import ClientDisconnect, Request

from registry.documents.strict_json import loads
from registry.errors import Invalid, TooLarge, Unavailable

MAX_BODY = 1 << 20
BODY_TIME = 30.0
"""Seconds a caller may take to send its body."""
MAX_UNIT = 256


@dataclass(frozen=True, slots=True)
class Asked:
    """One request. `unit` is the header X-Unit-Id, else the body's `user`."""

    model: str
    unit: str | None
    body: dict[str, Any]

    def as_version(self, ref: str) -> bytes:
        """The body with the model's immutable name; ASCII, so that a lone surrogate passes as it
        came.
        """
        return json.dumps({**self.body, "model": ref}).encode()


async def read(request: Request) -> Asked:
    """Read and check a request; Invalid, or TooLarge above 1 MiB."""
    body = loads(await _body(request))
    model = body.get("model") if isinstance(body, dict) else None
    if not isinstance(body, dict) or not isinstance(model, str):
        raise Invalid(
            "bad-request",
            "The body is no JSON object with a text 'model'.",
        )
    unit = body.get("user") if (header := _header(request)) is None else header
    if unit is not None and (not isinstance(unit, str) or len(unit) > MAX_UNIT):
        raise Invalid(
            "bad-unit",
            f"The unit id is no text of at most {MAX_UNIT} characters.",
        )
    return Asked(model, unit or None, body)


def _header(request: Request) -> str | None:
    """X-Unit-Id as UTF-8, so that the same id in header and body falls into the same bucket."""
    raw = dict(request.scope["headers"]).get(b"x-unit-id")
    return None if raw is None else raw.decode("utf-8", "surrogateescape")


async def _body(request: Request) -> bytes:
    found = bytearray()
    try:
        async with asyncio.timeout(BODY_TIME):
            async for chunk in request.stream():
                found += chunk
                if len(found) > MAX_BODY:
                    raise TooLarge(
                        "body-too-large",
                        f"The body has more than {MAX_BODY} bytes.",
                        "Send a shorter prompt.",
                    )
    except TimeoutError as error:
        raise Unavailable(
            "body-too-slow",
            f"The body did not arrive within {BODY_TIME:.0f} seconds.",
            "Send it again.",
        ) from error
    except ClientDisconnect as error:
        raise Invalid("caller-left", "The caller left before its body had arrived.") from error
    return bytes(found)
