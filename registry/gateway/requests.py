"""A caller's request, read within limits: its channel, its unit id, and the body for the engine."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from starlette.requests import ClientDisconnect, Request

from registry.documents.strict_json import loads
from registry.errors import Invalid, TooLarge, Unavailable
from registry.gateway.prompts import asked_as_approved
from registry.views.rollouts import ArmView

MAX_BODY_BYTES = 1 << 20
BODY_SECONDS = 30.0
"""How long a caller may take to send its body."""
MAX_UNIT_CHARACTERS = 256


@dataclass(frozen=True, slots=True)
class ChannelRequest:
    """One request to a channel. `unit` is the header X-Unit-Id, else the body's `user`."""

    model: str
    unit: str | None
    body: dict[str, Any]

    def as_version(self, path: str, version: ArmView) -> bytes:
        """The body under the version's immutable name and approved system prompt.

        It is ASCII, so that a lone surrogate reaches the engine as it arrived. Raises Invalid
        `system-prompt-approved`.
        """
        body = asked_as_approved(self.body, path, version)
        return json.dumps({**body, "model": version.ref}).encode()


async def read_request(request: Request) -> ChannelRequest:
    """Read and check a request. Raises Invalid, and TooLarge for a body above 1 MiB."""
    body = loads(await _read_body(request))
    model = body.get("model") if isinstance(body, dict) else None
    if not isinstance(body, dict) or not isinstance(model, str):
        raise Invalid("bad-request", "The body is not a JSON object with a text under 'model'.")
    unit = body.get("user") if (header := _unit_header(request)) is None else header
    if unit is not None and (not isinstance(unit, str) or len(unit) > MAX_UNIT_CHARACTERS):
        raise Invalid(
            "bad-unit", f"The unit id is not a text of at most {MAX_UNIT_CHARACTERS} characters."
        )
    return ChannelRequest(model, unit or None, body)


def _unit_header(request: Request) -> str | None:
    """X-Unit-Id as UTF-8, so that the same id in header and body falls into the same bucket."""
    raw = dict(request.scope["headers"]).get(b"x-unit-id")
    return None if raw is None else raw.decode("utf-8", "surrogateescape")


async def _read_body(request: Request) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    raise TooLarge(
                        "body-too-large",
                        f"The body has more than {MAX_BODY_BYTES} bytes.",
                        "Send a shorter prompt.",
                    )
    except TimeoutError as error:
        raise Unavailable(
            "body-too-slow",
            f"The body did not arrive within {BODY_SECONDS:.0f} seconds.",
            "Send it again.",
        ) from error
    except ClientDisconnect as error:
        raise Invalid("caller-left", "The caller left before its body had arrived.") from error
    return bytes(body)
