"""What is measured is what is served: an ordinary client, asking through the gateway, gets the
registry's own numbers, and so does plain transformers with the files that the registry serves.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import peft
import pytest
import torch
import transformers

from registry.artifacts.datasets.rows import Item
from registry.client import Countersign, NewTrainingRun
from registry.errors import NotFound
from registry.gateway.app import Gateway, create_app
from tests import build
from tests.gateway.served import Served, until
from tests.trainer.live import Live
from trainer import engine
from trainer.device import Device
from trainer.resident import Resident
from trainer.worker import Worker

SYSTEM = "please help me with the letter"
LIMIT = 4
RECIPE: dict[str, Any] = {
    "steps": 24,
    "batch_size": 32,
    "learning_rate": 1e-2,
    "max_length": 48,
    "publish_at": [24],
    "save_every": 24,
}


class Shop:
    """A team that ships, and the same steps for every kind of version."""

    def __init__(self, live: Live, nora: Countersign, worker: Worker, folder: Path) -> None:
        self.live, self.nora, self.worker, self.folder = live, nora, worker, folder
        self.reviewers = [
            build.a_person(live.store, "reviewer", team=team) for team in ("compliance", "risk")
        ]

    def train(self, name: str, system: str | None) -> str:
        recipe = RECIPE | ({"system": system} if system else {})
        line, meta = f"acme/{name}", {"purpose": "sorting"}
        queued = self.nora.train(
            NewTrainingRun(line, "acme/tiny@v1", "acme/letters@v1", recipe, "service", meta)
        )
        self.worker.run(0.1, once=True)
        run = self.nora.training_run(queued.id)
        assert run.state == "succeeded", run.error
        assert (system or "the first answer is new") in run.first_row["form"]
        assert "text" not in run.first_row  # what a row says is not kept for ever
        return run.outputs[-1]

    def measure(self, name: str, system: str | None, *refs: str) -> list[int]:
        """How many answers of each version are right by the registry's own count.

        The suite that says so is named by a use case of the same name.
        """
        decoding = {"max_new_tokens": LIMIT, "system": system}
        try:
            suite = f"acme/{name}@v1"
            runs = [self.nora.evaluate(ref, suite) for ref in refs]
        except NotFound:
            suite = self.nora.freeze_suite(
                f"acme/{name}", "acme/letters@v1", "test", decoding=decoding
            ).ref
            self.nora.add_use_case(
                f"acme/{name}", purpose="s", owner="n", risk_tier="limited", suite=suite, details={}
            )
            runs = [self.nora.evaluate(ref, suite) for ref in refs]
        self.worker.run(0.1, once=True)
        ended = [self.nora.eval_run(run.id) for run in runs]
        assert [run.error for run in ended] == [None] * len(refs)
        return [round(run.metrics[0].value * run.metrics[0].n) for run in ended]

    def pull(self, ref: str) -> Path:
        folder = self.folder / "pulled" / ref.replace("/", "-")
        self.nora.pull(ref, folder)
        return folder

    def ship(self, ref: str, case: str) -> None:
        """Submit, approve, canary, promote."""
        review = self.nora.submit(ref, "production", f"acme/{case}", "please").review
        for person in self.reviewers:
            build.ballot(self.live.store, person, review)
        self.nora.start_canary(ref, "production", 5000, reason="measured")
        self.nora.promote(ref.partition("@")[0], "production", reason="clean")

    @contextmanager
    def gateway(self, ref: str, device: Device) -> Iterator[str]:
        """The address of a gateway before the embedded engine, which serves this model."""
        cache = self.folder / ref.replace("/", "-")
        desk = engine.Desk()
        desk.resident = Resident(ref, self.pull(ref), device, cache)
        behind = Served(engine.create_app(desk))
        registry = Countersign(self.live.url, self.live.engineer)
        front = Served(
            create_app(
                Gateway(registry, behind.url, "production", cache),
                poll_every=(0.05, 0.1),
                keep_every=0.2,
            )
        )
        try:
            yield front.url
        finally:
            front.stop()
            behind.stop()
            registry.close()


@pytest.fixture(scope="module")
def shop(live: Live, nora: Countersign, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    with Countersign(live.url, live.trainer) as registry, Worker(registry, folder / "w") as worker:
        yield Shop(live, nora, worker, folder)


def right(answers: list[str], items: tuple[Item, ...]) -> int:
    return sum(answer.strip() == item.expected for answer, item in zip(answers, items, strict=True))


def ask(url: str, line: str, items: tuple[Item, ...], *opening: dict[str, str]) -> list[str]:
    """What an application does: OpenAI's client, one user message, nothing else."""
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=5) as client:
        answers = []
        for item in items:
            messages: Any = [*opening, {"role": "user", "content": item.prompt}]
            answer = client.chat.completions.create(
                model=line, messages=messages, max_tokens=LIMIT, temperature=0
            )
            answers.append(answer.choices[0].message.content or "")
        return answers


def plain(net: Any, tokenizer: Any, items: tuple[Item, ...], system: str | None) -> list[str]:
    """What anybody does who has the files: apply_chat_template and greedy generate."""
    answers = []
    opening = [{"role": "system", "content": system}] if system else []
    for item in items:
        inputs = tokenizer.apply_chat_template(
            [*opening, {"role": "user", "content": item.prompt}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        with torch.inference_mode():
            made = net.generate(**inputs, max_new_tokens=LIMIT, do_sample=False)
        width = inputs["input_ids"].shape[1]
        answers.append(tokenizer.decode(made[0, width:], skip_special_tokens=True))
    return answers


def holds(url: str, ref: str) -> bool:
    """Whether the gateway's engine has this version, and the gateway serves it."""
    state = httpx.get(f"{url}/readyz", trust_env=False).json()
    return any(
        ref in channel["held"] and channel["generation"] == channel["wanted"]
        for channel in state.get("channels", [])
    )


@pytest.mark.parametrize(
    ("name", "system"),
    [pytest.param("bare", None, marks=pytest.mark.slow), ("led", SYSTEM)],
)
def test_an_ordinary_client_gets_the_registrys_own_numbers(
    shop: Shop, cpu: Device, items: tuple[Item, ...], name: str, system: str | None
) -> None:
    line = f"acme/{name}"
    ref = shop.train(name, system)
    base, own = shop.measure(name, system, "acme/tiny@v1", ref)
    assert own > base + 30
    shop.ship(ref, name)
    with shop.gateway("acme/tiny@v1", cpu) as url:
        until(lambda: holds(url, ref), "the gateway serves the adapter")
        served = ask(url, line, items)
        assert right(served, items) == own
        opening = {"role": "system", "content": system or SYSTEM}
        if system is None:
            # No system prompt was approved and none is added; a caller's own stays theirs.
            assert len(ask(url, line, items[:2], opening)) == 2
        else:
            assert ask(url, line, items[:4], opening) == served[:4]
            with pytest.raises(openai.BadRequestError) as refusal:
                ask(url, line, items[:1], {"role": "system", "content": "the car"})
            assert "approved under a system prompt" in refusal.value.response.text
    folder = shop.pull("acme/tiny@v1")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    net = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    assert right(plain(net, tokenizer, items, system), items) == base
    net = peft.PeftModel.from_pretrained(net, shop.pull(ref)).eval()
    assert plain(net, tokenizer, items, system) == served
