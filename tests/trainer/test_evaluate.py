"""Answers: greedy, the same again, unchanged by what stands beside them in the batch; and the tiny
demo's gain.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from registry.artifacts.bundles.judge import base_facts, inspect
from registry.artifacts.datasets.rows import Item
from registry.artifacts.datasets.samples import expected_answers, read_samples
from registry.artifacts.weights.tensors import File
from registry.errors import BundleRejected, Invalid
from registry.rules import evals, recipes
from trainer import evaluate, loop, model, pack
from trainer.demo.recipes import SMOLLM2, TINY
from trainer.device import Device
from trainer.loop import Job

DECODING = {"template": "chat", "max_new_tokens": 4, "system": None}


@pytest.fixture(scope="module")
def tokenizer(base: Path) -> Any:
    return model.load_tokenizer(base)


def quiet(done: int, of: int) -> None:
    """Nobody watches."""


def test_the_same_model_gives_the_same_answers_alone_or_in_a_batch(
    base: Path, cpu: Device, tokenizer: Any, items: tuple[Item, ...]
) -> None:
    subject = evaluate.Subject(model.load_base(base, cpu), tokenizer)
    few = items[:10]
    alone, _ = evaluate.answer(subject, few, DECODING, quiet, batch=1)
    together, written = evaluate.answer(subject, few, DECODING, quiet, batch=4)
    assert alone == together
    assert 0 < written <= 4 * len(few)


def test_progress_counts_to_the_end(
    base: Path, cpu: Device, tokenizer: Any, items: tuple[Item, ...]
) -> None:
    told: list[tuple[int, int]] = []
    subject = evaluate.Subject(model.load_base(base, cpu), tokenizer)
    evaluate.answer(subject, items[:10], DECODING, lambda *counts: told.append(counts), batch=4)
    assert told == [(4, 10), (8, 10), (10, 10)]


def test_an_answer_ends_at_its_stop_whatever_stands_beside_it(
    base: Path, cpu: Device, tokenizer: Any, items: tuple[Item, ...]
) -> None:
    """As engines answer: without the stop, and without the tokens that would follow it."""
    subject = evaluate.Subject(model.load_base(base, cpu), tokenizer)
    longer, few = {**DECODING, "max_new_tokens": 12}, items[:6]
    whole, written = evaluate.answer(subject, few, longer, quiet, batch=3)
    stop = [next(text[1:3] for text in whole if len(text) > 4)]
    short, fewer = evaluate.answer(subject, few, {**longer, "stop": stop}, quiet, batch=3)
    assert short == [evals.cut(text, stop) for text in whole] != whole
    assert fewer <= written
    assert evaluate.answer(subject, few, {**longer, "stop": []}, quiet, batch=3)[0] == whole


@pytest.mark.parametrize(
    "decoding",
    [
        {},
        {"template": "chat", "max_new_tokens": 0, "system": None},
        {**DECODING, "temperature": 1.0},
        {**DECODING, "template": "alpaca"},
        {**DECODING, "system": 3},
        {**DECODING, "max_new_tokens": True},
    ],
)
def test_decoding_it_cannot_do_is_refused(decoding: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as refusal:
        evaluate.check_decoding(decoding)
    assert refusal.value.kind == "bad-decoding"


def test_the_tiny_recipe_beats_the_base_beyond_doubt_and_its_bundle_is_sound(
    tmp_path: Path,
    make_job: Callable[..., Job],
    base: Path,
    cpu: Device,
    tokenizer: Any,
    items: tuple[Item, ...],
) -> None:
    """The whole walk of DEMO_BASE=tiny on files: train, pack, load, answer, judge by the registry's
    own rules.
    """
    recipe = recipes.parse(TINY)

    def publish(step: int, written: Path, tokens: int) -> None:
        origin = pack.Origin("a-run", "acme/letters", "acme/tiny@v1", "acme/letters@v1", recipe)
        pack.bundle(
            written,
            tmp_path / f"step-{step}",
            repository="acme/tiny.v1",
            commit="c" * 40,
            readme=pack.card(origin, "{prompt}", step, tokens),
        )

    assert loop.train(replace(make_job(tmp_path / "work", recipe), publish=publish)) is not None

    def score(adapter: Path | None) -> evals.Scores:
        net = model.load_base(base, cpu)
        into = tmp_path / "samples.jsonl"
        subject = evaluate.Subject(model.adapted(net, adapter) if adapter else net, tokenizer)
        meters = evaluate.run(subject, items, DECODING, into, quiet)
        assert meters["items"] == len(items) >= 60
        assert [json.loads(line)["item"] for line in into.read_text().splitlines()] == [
            item.id for item in items
        ]
        return evals.score(
            read_samples(into.read_bytes()), expected_answers(items), evals.Scoring()
        )

    before, half, after = score(None), score(tmp_path / "step-24"), score(tmp_path / "step-48")
    assert before.correct / before.n < 0.05
    assert after.correct / after.n > 0.9
    assert half.correct < after.correct
    _, low, _ = evals.difference(
        evals.pair([evals.packed(after)], [evals.packed(before)], len(items))
    )
    assert low > 0.5

    held = {}

    def files(folder: Path) -> list[File]:
        found = []
        for path in folder.iterdir():
            data = path.read_bytes()
            import hashlib

            sha256 = hashlib.sha256(data).hexdigest()
            held[sha256] = data
            found.append(File(path.name, sha256, len(data)))
        return found

    def read(sha256: str, start: int, length: int) -> bytes:
        return held[sha256][start : start + length]

    facts = base_facts(files(base), read)
    inspected = inspect(
        "adapter",
        files(tmp_path / "step-48"),
        read,
        base=facts,
        meta={"domain": "service", "purpose": "sorting letters"},
    )
    assert inspected.defects == []
    assert inspected.findings == []
    config = json.loads((tmp_path / "step-48" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("acme/tiny.v1", "c" * 40)
    assert config["target_modules"] == sorted(config["target_modules"])
    assert str(tmp_path) not in (tmp_path / "step-48" / "adapter_config.json").read_text()


def test_both_demo_recipes_are_sound() -> None:
    assert recipes.parse(SMOLLM2).publish_at == (18, 36)
    assert recipes.parse(TINY).publish_at == (24, 48)


def test_an_adapter_of_another_base_is_refused_before_it_answers(
    tmp_path: Path, make_job: Callable[..., Job], base: Path, cpu: Device
) -> None:
    from tests.trainer.conftest import short_recipe

    loop.train(make_job(tmp_path, short_recipe(steps=1, publish_at=[1])))
    written = tmp_path / "save-points" / "step-1"
    packed = pack.bundle(
        written, tmp_path / "packed", repository="acme/tiny.v1", commit="c" * 40, readme=""
    )
    body = model.anatomy_of(model.load_base(base, cpu))
    narrow = {
        name: (*shape[:1], 128) if len(shape) == 2 else shape for name, shape in body.shapes.items()
    }
    with pytest.raises(BundleRejected) as refusal:
        model.check_fit(packed, replace(body, shapes=narrow))
    assert {defect.rule for defect in refusal.value.defects} == {"tensor-shape"}
