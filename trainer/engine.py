"""A small server speaking the serving subset of vLLM's API, for machines where vLLM itself does not
run.

The same gateway drives both: adapters come and go at run time, and a request names one by its
immutable reference. One thread holds the model and answers one request after the other. It listens
on the loopback only, for as in vLLM, who reaches the load endpoint decides what is served.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar
from uuid import uuid4

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel, ConfigDict, Field

from registry.client import Countersign
from registry.errors import Invalid, NotFound, RegistryError, Unavailable
from trainer import device, job
from trainer.cache import Cache
from trainer.resident import Answer, Resident

T = TypeVar("T")
LOG = logging.getLogger("trainer.engine")
WAITING = 64  # requests in line before another is turned away
POLL = 1.0  # seconds between looks for a route to serve
STATUS = {Invalid: 400, NotFound: 404, Unavailable: 503}
TYPES = {400: "BadRequestError", 404: "NotFoundError", 503: "ServiceUnavailableError"}


class Asked(BaseModel):
    """What both completion endpoints take; fields of vLLM's that change nothing here are let
    pass.
    """

    model_config = ConfigDict(extra="allow")

    model: str
    stream: bool = False
    n: Literal[1] = 1
    temperature: float | None = None
    stop: str | list[str] | None = None
    logprobs: bool | int | None = None


class Completion(Asked):
    """POST /v1/completions."""

    prompt: str
    max_tokens: int | None = Field(default=16, ge=1, le=4096)


class Message(BaseModel):
    """One message of a chat."""

    model_config = ConfigDict(extra="allow")

    role: Literal["system", "user", "assistant"]
    content: str


class Chat(Asked):
    """POST /v1/chat/completions."""

    messages: list[Message] = Field(min_length=1)
    max_tokens: int | None = Field(default=None, ge=1, le=4096)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=4096)


class Load(BaseModel):
    """POST /v1/load_lora_adapter."""

    lora_name: str = Field(min_length=1)
    lora_path: str = Field(min_length=1)
    load_inplace: bool = False


class Unload(BaseModel):
    """POST /v1/unload_lora_adapter."""

    model_config = ConfigDict(extra="allow")

    lora_name: str = Field(min_length=1)


class Desk:
    """The one thread that holds the model, and the line before it."""

    def __init__(self) -> None:
        self.resident: Resident | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._waiting = 0

    def there(self) -> Resident:
        if self.resident is None:
            raise Unavailable("no-base-yet", "The engine waits for its base model.")
        return self.resident

    async def ask(self, work: Callable[[Resident], T]) -> T:
        """Do something with the model when it is its turn."""
        resident = self.there()
        if self._waiting >= WAITING:
            raise Unavailable(
                "engine-busy", f"{WAITING} requests wait already.", "Try again in a moment."
            )
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work, resident)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)


def create_app(desk: Desk) -> FastAPI:
    """The engine's doors over one desk."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        desk.close()

    app = FastAPI(
        title="Countersign engine",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )

    @app.exception_handler(RegistryError)
    async def refuse(_: Request, error: RegistryError) -> JSONResponse:
        return problem(STATUS.get(type(error), 500), str(error))

    @app.exception_handler(RequestValidationError)
    async def misread(_: Request, error: RequestValidationError) -> JSONResponse:
        where = "; ".join(
            f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors()[:5]
        )
        return problem(400, f"{where}.")

    @app.get("/health")
    async def health() -> PlainTextResponse:
        desk.there()
        return PlainTextResponse("")

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        resident = desk.there()
        base = card(resident.ref, resident.since, str(resident.folder), None) | {
            "max_model_len": resident.window
        }
        return {
            "object": "list",
            "data": [
                base,
                *(
                    card(name, one.since, str(one.path), resident.ref)
                    for name, one in resident.adapters.items()
                ),
            ],
        }

    @app.post("/v1/completions")
    async def complete(asked: Completion) -> dict[str, Any]:
        check(asked)
        done = await desk.ask(
            lambda resident: resident.answer(asked.model, asked.prompt, asked.max_tokens or 16)
        )
        return answer("cmpl", "text_completion", asked.model, {"text": done.text}, done)

    @app.post("/v1/chat/completions")
    async def chat(asked: Chat) -> dict[str, Any]:
        check(asked)
        messages = [{"role": one.role, "content": one.content} for one in asked.messages]
        most = asked.max_completion_tokens or asked.max_tokens or 256
        done = await desk.ask(lambda resident: resident.answer(asked.model, messages, most))
        said = {"message": {"role": "assistant", "content": done.text}}
        return answer("chatcmpl", "chat.completion", asked.model, said, done)

    @app.post("/v1/load_lora_adapter")
    async def load(asked: Load) -> PlainTextResponse:
        await desk.ask(
            lambda resident: resident.load(
                asked.lora_name, asked.lora_path, in_place=asked.load_inplace
            )
        )
        return PlainTextResponse(f"Success: LoRA adapter '{asked.lora_name}' added successfully.")

    @app.post("/v1/unload_lora_adapter")
    async def unload(asked: Unload) -> PlainTextResponse:
        await desk.ask(lambda resident: resident.unload(asked.lora_name))
        return PlainTextResponse(f"Success: LoRA adapter '{asked.lora_name}' removed successfully.")

    return app


def check(asked: Asked) -> None:
    """Refuse what would be answered otherwise than asked: this engine decodes greedily, whole, and
    once.
    """
    wants = {
        "stream": asked.stream,
        "temperature above 0": asked.temperature,
        "stop": asked.stop,
        "logprobs": asked.logprobs,
        "tools": (asked.model_extra or {}).get("tools"),
    }
    for what, wanted in wants.items():
        if wanted:
            raise Invalid("unsupported", f"This engine has no {what}.")


def card(name: str, since: int, root: str, parent: str | None) -> dict[str, Any]:
    """One line of the model list, as vLLM writes it."""
    return {
        "id": name,
        "object": "model",
        "created": since,
        "owned_by": "countersign",
        "root": root,
        "parent": parent,
    }


def answer(prefix: str, kind: str, name: str, said: dict[str, Any], done: Answer) -> dict[str, Any]:
    """A completion in OpenAI's shape."""
    return {
        "id": f"{prefix}-{uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": name,
        "choices": [{"index": 0, **said, "logprobs": None, "finish_reason": done.reason}],
        "usage": {
            "prompt_tokens": done.prompt_tokens,
            "completion_tokens": done.completion_tokens,
            "total_tokens": done.prompt_tokens + done.completion_tokens,
        },
    }


def problem(status: int, message: str) -> JSONResponse:
    """An error in vLLM's shape."""
    error = {
        "message": message,
        "type": TYPES.get(status, "InternalServerError"),
        "param": None,
        "code": status,
    }
    return JSONResponse({"error": error}, status)


def find_base(
    registry: Countersign, base: str | None, stopping: threading.Event
) -> tuple[str, Any] | None:
    """(reference, files) of the base to serve: the one named, or that of the first route production
    gets.
    """
    if base is not None:
        version = registry.version(base)
        return version.ref, version.files
    while not stopping.is_set():
        try:
            routing = registry.routing("production")
        except Unavailable as error:
            LOG.warning("the registry is away: %s", error)
        else:
            if routing is not None and routing.entries:
                return routing.entries[0].base.ref, routing.entries[0].base.files
        stopping.wait(POLL)
    return None


def main(base: str | None, port: int, cache: Path, allowed: Path) -> None:
    """Serve until SIGTERM or Ctrl-C; /health says 503 until the base is found, fetched, verified
    and loaded.
    """
    desk, stopping = Desk(), threading.Event()
    server = uvicorn.Server(
        uvicorn.Config(create_app(desk), "127.0.0.1", port, log_level="warning", access_log=False)
    )
    job.quieten()

    def settle(registry: Countersign) -> None:
        try:
            found = find_base(registry, base, stopping)
            if found is None:
                return
            ref, files = found
            folder = Cache(registry, cache).folder(files)
            desk.resident = Resident(ref, folder, device.choose(None), allowed)
            LOG.info("serving %s on port %d", ref, port)
        except Exception as error:
            # Without a base there is nothing to serve: end, and let whoever supervises us start
            # anew.
            LOG.error("no base to serve: %s", error)
            server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn shuts down in good order, then raises the signal again: by then it has done its
        # work.
        signal.signal(number, lambda *_: stopping.set())
    with Countersign() as registry:
        settling = threading.Thread(target=settle, args=(registry,), name="settle", daemon=True)
        settling.start()
        server.run()
        stopping.set()
    if desk.resident is None:
        raise Unavailable(
            "no-base",
            "The engine ended before it had a base to serve.",
        )
