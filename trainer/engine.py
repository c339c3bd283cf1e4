"""A small server with the serving subset of vLLM's API, for machines where vLLM does not run.

The same gateway drives both: adapters are loaded and unloaded at run time, and a request names one
by its immutable reference. One thread holds the model and answers one request after the other. The
server listens only on the loopback address, because (as in vLLM) whoever reaches the load endpoint
decides what is served.
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
MAX_WAITING = 64
"""Requests that may wait for the model; a further one is refused."""
POLL_SECONDS = 1.0
"""The time between two looks for a route to serve."""
STATUS = {Invalid: 400, NotFound: 404, Unavailable: 503}
"""The HTTP status of each family of refusals."""
TYPES = {400: "BadRequestError", 404: "NotFoundError", 503: "ServiceUnavailableError"}
"""The error type that vLLM writes beside each status."""


class CompletionRequest(BaseModel):
    """What both completion endpoints accept.

    Fields of vLLM's that change nothing here are ignored.
    """

    model_config = ConfigDict(extra="allow")

    model: str
    stream: bool = False
    n: Literal[1] = 1
    temperature: float | None = None
    stop: str | list[str] | None = None
    logprobs: bool | int | None = None

    @property
    def stops(self) -> list[str]:
        """The texts before which the answer ends."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []


class TextRequest(CompletionRequest):
    """POST /v1/completions."""

    prompt: str
    max_tokens: int | None = Field(default=16, ge=1, le=4096)


class Message(BaseModel):
    """One message of a chat."""

    model_config = ConfigDict(extra="allow")

    role: Literal["system", "user", "assistant"]
    content: str


class ChatRequest(CompletionRequest):
    """POST /v1/chat/completions."""

    messages: list[Message] = Field(min_length=1)
    max_tokens: int | None = Field(default=None, ge=1, le=4096)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=4096)


class LoadRequest(BaseModel):
    """POST /v1/load_lora_adapter."""

    lora_name: str = Field(min_length=1)
    lora_path: str = Field(min_length=1)
    load_inplace: bool = False


class UnloadRequest(BaseModel):
    """POST /v1/unload_lora_adapter."""

    model_config = ConfigDict(extra="allow")

    lora_name: str = Field(min_length=1)


class Desk:
    """The one thread that holds the model, and the queue in front of it."""

    def __init__(self) -> None:
        self.resident: Resident | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._waiting = 0

    def loaded(self) -> Resident:
        """The model. Raises Unavailable `no-base-yet` until it is loaded."""
        if self.resident is None:
            raise Unavailable("no-base-yet", "The engine waits for its base model.")
        return self.resident

    async def ask(self, work: Callable[[Resident], T]) -> T:
        """Run `work` with the model in its turn. Raises Unavailable `engine-busy`."""
        resident = self.loaded()
        if self._waiting >= MAX_WAITING:
            raise Unavailable(
                "engine-busy",
                f"{MAX_WAITING} requests are already waiting.",
                "Try again in a moment.",
            )
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work, resident)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Drop the requests that wait, and let the thread end."""
        self._thread.shutdown(cancel_futures=True)


def create_app(desk: Desk) -> FastAPI:
    """Make the engine's HTTP application over one desk."""

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
    async def refuse_body(_: Request, error: RequestValidationError) -> JSONResponse:
        reasons = "; ".join(
            f"{'.'.join(map(str, defect['loc'][1:]))}: {defect['msg']}"
            for defect in error.errors()[:5]
        )
        return problem(400, f"{reasons}.")

    @app.get("/health")
    async def health() -> PlainTextResponse:
        desk.loaded()
        return PlainTextResponse("")

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        resident = desk.loaded()
        base = card(resident.ref, resident.since, str(resident.folder), None) | {
            "max_model_len": resident.window
        }
        return {
            "object": "list",
            "data": [
                base,
                *(
                    card(name, adapter.since, str(adapter.path), resident.ref)
                    for name, adapter in resident.adapters.items()
                ),
            ],
        }

    @app.post("/v1/completions")
    async def complete(body: TextRequest) -> dict[str, Any]:
        check(body)
        result = await desk.ask(
            lambda resident: resident.answer(
                body.model, body.prompt, body.max_tokens or 16, body.stops
            )
        )
        return answer("cmpl", "text_completion", body.model, {"text": result.text}, result)

    @app.post("/v1/chat/completions")
    async def chat(body: ChatRequest) -> dict[str, Any]:
        check(body)
        messages = [{"role": message.role, "content": message.content} for message in body.messages]
        limit = body.max_completion_tokens or body.max_tokens or 256
        result = await desk.ask(
            lambda resident: resident.answer(body.model, messages, limit, body.stops)
        )
        choice = {"message": {"role": "assistant", "content": result.text}}
        return answer("chatcmpl", "chat.completion", body.model, choice, result)

    @app.post("/v1/load_lora_adapter")
    async def load(body: LoadRequest) -> PlainTextResponse:
        await desk.ask(
            lambda resident: resident.load(
                body.lora_name, body.lora_path, in_place=body.load_inplace
            )
        )
        return PlainTextResponse(f"Success: LoRA adapter '{body.lora_name}' added successfully.")

    @app.post("/v1/unload_lora_adapter")
    async def unload(body: UnloadRequest) -> PlainTextResponse:
        await desk.ask(lambda resident: resident.unload(body.lora_name))
        return PlainTextResponse(f"Success: LoRA adapter '{body.lora_name}' removed successfully.")

    return app


def check(request: CompletionRequest) -> None:
    """Raise Invalid `unsupported` for an option that the engine would have to ignore.

    It decodes greedily and answers once, with the whole text.
    """
    options = {
        "stream": request.stream,
        "temperature above 0": request.temperature,
        "logprobs": request.logprobs,
        "tools": (request.model_extra or {}).get("tools"),
    }
    for option, value in options.items():
        if value:
            raise Invalid("unsupported", f"This engine does not support {option}.")


def card(name: str, since: int, root: str, parent: str | None) -> dict[str, Any]:
    """One entry of the model list, in vLLM's shape."""
    return {
        "id": name,
        "object": "model",
        "created": since,
        "owned_by": "countersign",
        "root": root,
        "parent": parent,
    }


def answer(
    prefix: str, kind: str, name: str, choice: dict[str, Any], result: Answer
) -> dict[str, Any]:
    """A completion in OpenAI's shape; `choice` holds its text or message."""
    return {
        "id": f"{prefix}-{uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": name,
        "choices": [{"index": 0, **choice, "logprobs": None, "finish_reason": result.reason}],
        "usage": {
            "prompt_tokens": result.prompt_tokens,
            "completion_tokens": result.completion_tokens,
            "total_tokens": result.prompt_tokens + result.completion_tokens,
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
    """The reference and the files of the base to serve; None when `stopping` is set first.

    Without `base` it is the base of the first route that production gets.
    """
    if base is not None:
        version = registry.version(base)
        return version.ref, version.files
    while not stopping.is_set():
        try:
            routing = registry.routing("production")
        except Unavailable as error:
            LOG.warning("the registry is unreachable: %s", error)
        else:
            if routing is not None and routing.entries:
                return routing.entries[0].base.ref, routing.entries[0].base.files
        stopping.wait(POLL_SECONDS)
    return None


def main(base: str | None, port: int, cache: Path, allowed: Path) -> None:
    """Serve until SIGTERM or Ctrl-C. /health answers 503 until the base is verified and loaded."""
    desk, stopping = Desk(), threading.Event()
    server = uvicorn.Server(
        uvicorn.Config(create_app(desk), "127.0.0.1", port, log_level="warning", access_log=False)
    )
    job.quieten()

    def settle(registry: Countersign) -> None:
        try:
            base_to_serve = find_base(registry, base, stopping)
            if base_to_serve is None:
                return
            ref, files = base_to_serve
            folder = Cache(registry, cache).folder(files)
            desk.resident = Resident(ref, folder, device.choose(None), allowed)
            LOG.info("serving %s on port %d", ref, port)
        except Exception as error:
            # Without a base there is nothing to serve: end, so that the supervisor starts again.
            LOG.error("no base to serve: %s", error)
            server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn shuts down in good order and then raises the signal again, which this takes.
        signal.signal(number, lambda *_: stopping.set())
    with Countersign() as registry:
        settling = threading.Thread(target=settle, args=(registry,), name="settle", daemon=True)
        settling.start()
        server.run()
        stopping.set()
    if desk.resident is None:
        raise Unavailable("no-base", "The engine ended before it had a base to serve.")
