"""The engine through its own HTTP doors: vLLM's shapes and status codes, and the right weights
behind each name.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import peft
import pytest
from fastapi.testclient import TestClient

from registry.artifacts.datasets.rows import Item
from registry.client import Countersign
from registry.errors import Unavailable
from tests.gateway.served import until
from tests.ports import free_port
from tests.trainer.conftest import short_recipe
from tests.trainer.live import Live
from trainer import evaluate, loop, model, pack
from trainer.device import Device
from trainer.engine import MAX_WAITING, Desk, create_app
from trainer.loop import Job
from trainer.resident import Resident

BASE = "acme/tiny@v1"
DECODING = {"template": "chat", "max_new_tokens": 4, "system": None}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("adapters")


@pytest.fixture
def door(base: Path, cpu: Device, place: Path) -> Iterator[TestClient]:
    """An engine with the tiny base in it."""
    desk = Desk()
    desk.resident = Resident(BASE, base, cpu, place)
    with TestClient(create_app(desk)) as client:
        yield client


@pytest.fixture
def adapter(place: Path, tmp_path: Path, make_job: Callable[..., Job]) -> Callable[[int], Path]:
    """A bundle trained a little, with a seed of its own; made once."""

    def make(seed: int) -> Path:
        final = place / f"adapter-{seed}"
        if not final.exists():
            recipe = short_recipe(
                seed=seed, steps=6, publish_at=[6], batch_size=16, rank=8, dropout=0.0
            )
            loop.train(make_job(tmp_path / str(seed), recipe))
            pack.bundle(
                tmp_path / str(seed) / "save-points" / "step-6",
                final,
                repository="acme/tiny.v1",
                commit="c" * 40,
                readme="",
            )
        return final

    return make


def chat(door: TestClient, name: str, item: Item) -> str:
    answer = door.post(
        "/v1/chat/completions",
        json={
            "model": name,
            "messages": [{"role": "user", "content": item.prompt}],
            "max_tokens": 4,
            "temperature": 0,
        },
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["model"] == name
    return str(answer.json()["choices"][0]["message"]["content"])


def load(door: TestClient, name: str, path: Path, **more: Any) -> Any:
    return door.post(
        "/v1/load_lora_adapter", json={"lora_name": name, "lora_path": str(path), **more}
    )


def test_what_would_change_the_answers_of_others_is_not_loaded(
    door: TestClient, place: Path, base: Path, cpu: Device
) -> None:
    """A prompt stands beside no other adapter in PEFT; that is said, not found out by whoever asks
    the base.
    """
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    peft.get_peft_model(model.load_base(base, cpu), config).save_pretrained(place / "prompt")
    refused = load(door, "acme/letters@v9", place / "prompt")
    assert refused.status_code == 400, refused.text
    assert "serves LoRA without biases, not prompt" in refused.text


def test_each_name_answers_with_its_own_weights(
    door: TestClient,
    adapter: Callable[[int], Path],
    base: Path,
    cpu: Device,
    items: tuple[Item, ...],
) -> None:
    """The eval suite's own answers, computed apart, are what the engine must give, whoever was
    asked before.
    """
    few, tokenizer = items[:6], model.load_tokenizer(base)
    paths = {BASE: None, "acme/letters@v1": adapter(1), "acme/letters@v2": adapter(2)}
    expected = {}
    for name, path in paths.items():
        net = model.load_base(base, cpu)
        net = model.adapted(net, path) if path else net
        subject = evaluate.Subject(net, tokenizer)
        expected[name], _ = evaluate.answer(subject, few, DECODING, lambda *_: None, batch=1)
        if path:
            assert load(door, name, path).status_code == 200
    assert len({tuple(answers) for answers in expected.values()}) == 3
    for at, item in enumerate(few):
        for name, answers in expected.items():
            assert chat(door, name, item) == answers[at]


def test_the_model_list_says_what_is_loaded_from_where(
    door: TestClient, adapter: Callable[[int], Path]
) -> None:
    load(door, "acme/letters@v1", adapter(1))
    first, second = door.get("/v1/models").json()["data"]
    assert (first["id"], first["parent"], first["max_model_len"]) == (BASE, None, 256)
    assert (second["id"], second["parent"], second["root"]) == (
        "acme/letters@v1",
        BASE,
        str(adapter(1)),
    )


def test_a_taken_name_is_refused_unless_in_place(
    door: TestClient, adapter: Callable[[int], Path], items: tuple[Item, ...]
) -> None:
    name = "acme/letters@v1"
    load(door, name, adapter(1))
    before = [chat(door, name, item) for item in items[:6]]
    assert load(door, name, adapter(1)).status_code == 400
    assert "already" in load(door, name, adapter(2)).json()["error"]["message"]
    assert load(door, BASE, adapter(1), load_inplace=True).status_code == 400
    assert load(door, name, adapter(2), load_inplace=True).status_code == 200
    assert [chat(door, name, item) for item in items[:6]] != before
    assert len(door.get("/v1/models").json()["data"]) == 2


def test_an_unloaded_adapter_is_gone_and_the_base_still_answers(
    door: TestClient, adapter: Callable[[int], Path], items: tuple[Item, ...]
) -> None:
    before = chat(door, BASE, items[0])
    load(door, "acme/letters@v1", adapter(1))
    assert (
        door.post("/v1/unload_lora_adapter", json={"lora_name": "acme/letters@v1"}).status_code
        == 200
    )
    gone = door.post(
        "/v1/chat/completions",
        json={"model": "acme/letters@v1", "messages": [{"role": "user", "content": "my car"}]},
    )
    assert gone.status_code == 404
    assert gone.json()["error"]["type"] == "NotFoundError"
    assert (
        door.post("/v1/unload_lora_adapter", json={"lora_name": "acme/letters@v1"}).status_code
        == 404
    )
    assert chat(door, BASE, items[0]) == before


def test_only_sound_adapters_from_under_the_allowed_folder_are_loaded(
    door: TestClient, adapter: Callable[[int], Path], place: Path, tmp_path: Path
) -> None:
    outside = shutil.copytree(adapter(1), tmp_path / "outside")
    (place / "link").symlink_to(outside)
    empty, cut, other = place / "empty", place / "cut", place / "other"
    empty.mkdir(exist_ok=True)
    shutil.copytree(adapter(1), cut)
    (cut / "adapter_model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{")
    shutil.copytree(adapter(1), other)
    config = json.loads((other / "adapter_config.json").read_text())
    (other / "adapter_config.json").write_text(json.dumps(config | {"r": 4}))
    for path in (outside, place / "link", place / ".." / "outside", empty, cut, other):
        refused = load(door, "x", path)
        assert refused.status_code in (400, 404), path
        assert refused.json()["error"]["message"]
    assert load(door, "x", place / "nowhere").status_code == 404
    assert len(door.get("/v1/models").json()["data"]) == 1
    (place / "link").unlink()


def test_completions_take_the_text_as_it_stands(door: TestClient) -> None:
    body = {"model": BASE, "prompt": "please help me", "max_tokens": 3}
    answer = door.post("/v1/completions", json=body).json()
    assert answer["object"] == "text_completion"
    assert answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}
    assert answer["choices"][0]["finish_reason"] == "length"
    assert door.post("/v1/completions", json=body).json()["choices"] == answer["choices"]


def test_an_answer_ends_before_a_stop_text(door: TestClient) -> None:
    body = {"model": BASE, "prompt": "please help me", "max_tokens": 6}
    whole = door.post("/v1/completions", json=body).json()["choices"][0]["text"]
    second = whole.split()[1]
    for stop in (second, ["nowhere", "", second]):
        [choice] = door.post("/v1/completions", json=body | {"stop": stop}).json()["choices"]
        assert (choice["text"], choice["finish_reason"]) == (whole[: whole.find(second)], "stop")


@pytest.mark.parametrize(
    "change",
    [
        {"stream": True},
        {"temperature": 0.7},
        {"n": 2},
        {"logprobs": 1},
        {"max_tokens": 0},
        {"max_tokens": 4096},
        {"prompt": 3},
        {"prompt": ""},
        {"prompt": "car " * 255},
    ],
)
def test_what_it_cannot_do_is_400_in_vllms_shape(door: TestClient, change: dict[str, Any]) -> None:
    refused = door.post(
        "/v1/completions", json={"model": BASE, "prompt": "my car", "max_tokens": 4, **change}
    )
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == 400


def test_without_a_base_it_says_so() -> None:
    with TestClient(create_app(Desk())) as door:
        assert door.get("/health").status_code == 503
        assert door.get("/v1/models").status_code == 503


async def _crowd(desk: Desk) -> list[object]:
    import asyncio
    import threading

    held = threading.Event()
    waiting = [asyncio.create_task(desk.ask(lambda _: held.wait(120))) for _ in range(MAX_WAITING)]
    await asyncio.sleep(0.05)
    one_more = await asyncio.gather(desk.ask(lambda _: None), return_exceptions=True)
    held.set()
    await asyncio.gather(*waiting)
    return list(one_more)


def test_a_full_line_turns_the_next_away(base: Path, cpu: Device, place: Path) -> None:
    import asyncio

    desk = Desk()
    desk.resident = Resident(BASE, base, cpu, place)
    [refusal] = asyncio.run(_crowd(desk))
    desk.close()
    assert isinstance(refusal, Unavailable)
    assert refusal.kind == "engine-busy"


def test_the_program_fetches_its_base_from_the_registry_and_stops_cleanly(
    live: Live, nora: Countersign, tmp_path: Path
) -> None:
    port = free_port()
    given = {**os.environ, "COUNTERSIGN_URL": live.url, "COUNTERSIGN_TOKEN": live.engineer}
    engine = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "trainer",
            "engine",
            "--base",
            BASE,
            "--port",
            str(port),
            "--cache",
            str(tmp_path),
        ],
        env=given,
    )
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        assert engine.poll() is None
        try:
            return httpx.get(f"{url}/health", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    until(ready, "it has its base", 300)
    [served] = httpx.get(f"{url}/v1/models", trust_env=False, timeout=60).json()["data"]
    assert served["id"] == nora.version(BASE).ref
    engine.send_signal(signal.SIGTERM)
    assert engine.wait(120) == 0
