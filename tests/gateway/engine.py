"""A small engine that speaks vLLM's subset: the routes, refusals and status codes measured on vLLM
0.32.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

MAX_RANK = 16


class SmallEngine:
    """Answers every prompt with the note that lies beside the adapter's weights, so that one sees
    who answered.
    """

    def __init__(self, base: str) -> None:
        self.base = base
        self.adapters: dict[str, str] = {}
        self.loads: list[str] = []
        self.prompts: list[str] = []
        self.failing: dict[str, int] = {}
        self.slow = 0.0
        self.loading = threading.Event()
        self.loading.set()
        self.app = Starlette(
            routes=[
                Route("/v1/models", self.models),
                Route("/v1/load_lora_adapter", self.load, methods=["POST"]),
                Route("/v1/unload_lora_adapter", self.unload, methods=["POST"]),
                Route("/v1/completions", self.complete, methods=["POST"]),
                Route("/v1/chat/completions", self.complete, methods=["POST"]),
            ]
        )

    def restart(self) -> None:
        """What was loaded at run time is gone, as with every engine."""
        self.adapters.clear()

    async def models(self, _: Request) -> Response:
        base = {"id": self.base, "object": "model", "root": "base-weights", "parent": None}
        adapters = [
            {"id": name, "object": "model", "root": root, "parent": self.base}
            for name, root in self.adapters.items()
        ]
        return JSONResponse({"object": "list", "data": [base, *adapters]})

    async def load(self, request: Request) -> Response:
        body = await request.json()
        name, path = body["lora_name"], Path(body["lora_path"])
        self.loads.append(name)
        await asyncio.to_thread(self.loading.wait, 20)
        if name in self.adapters:
            return _error(400, f"The lora adapter '{name}' has already been loaded.")
        config = path / "adapter_config.json"
        if not config.is_file():
            return _error(404, f"No adapter found for {path}")
        if json.loads(config.read_text())["r"] > MAX_RANK:
            return PlainTextResponse("LoRA rank is greater than max_lora_rank", 500)
        self.adapters[name] = str(path)
        return PlainTextResponse(f"Success: LoRA adapter '{name}' added successfully.")

    async def unload(self, request: Request) -> Response:
        name = (await request.json())["lora_name"]
        if self.adapters.pop(name, None) is None:
            return _error(404, f"The lora adapter '{name}' cannot be found.")
        return PlainTextResponse(f"Success: LoRA adapter '{name}' removed successfully.")

    async def complete(self, request: Request) -> Response:
        body = await request.json()
        model = body["model"]
        if model != self.base and model not in self.adapters:
            return _error(404, f"The model `{model}` does not exist.")
        if status := self.failing.get(model):
            return _error(status, "internal error")
        asked = body.get("prompt") or (body.get("messages") or [{}])[-1].get("content")
        if not asked:
            return _error(400, "There is no prompt.")
        self.prompts.append(asked)
        await self._linger()
        note = (
            "base" if model == self.base else (Path(self.adapters[model]) / "note.txt").read_text()
        )
        if body.get("stream"):
            return StreamingResponse(self._events(model, note), media_type="text/event-stream")
        chat = request.url.path.endswith("chat/completions")
        choice = {"message": {"role": "assistant", "content": note}} if chat else {"text": note}
        return JSONResponse(
            {"id": "x", "object": "completion", "model": "inner-name", "choices": [choice]}
        )

    async def _linger(self) -> None:
        """Take `slow` seconds, or until a test makes it quicker."""
        since = time.monotonic()
        while time.monotonic() - since < self.slow:
            await asyncio.sleep(min(self.slow, 0.02))

    async def _events(self, model: str, note: str) -> AsyncIterator[bytes]:
        for letter in note:
            await self._linger()
            yield (
                "data: "
                f"{json.dumps({'model': model, 'choices': [{'delta': {'content': letter}}]})}\n\n"
            ).encode()
        if self.failing.get("mid-stream"):
            raise ConnectionError
        yield b"data: [DONE]\n\n"


def _error(status: int, message: str) -> Response:
    return JSONResponse({"error": {"message": message, "code": status}}, status)
