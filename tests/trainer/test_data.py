"""Examples: what is learned, in which order, and that the rows are those the registry names."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from registry.artifacts.datasets.rows import Row
from registry.errors import Invalid, Unverified
from registry.proof.merkle import Frontier
from trainer import data, model


@pytest.fixture(scope="module")
def tokenizer(base: Path) -> Any:
    return model.load_tokenizer(base)


def row(prompt: str, completion: str, split: str = "train") -> Row:
    return Row(1, prompt, completion, split, b"")


def test_only_the_completion_and_its_end_are_learned(tokenizer: Any) -> None:
    [example] = data.tokenise([row("my invoice", "billing")], tokenizer, "chat", 48)
    batch = data.collate([example], tokenizer.pad_token_id)
    learned = batch["labels"][0] != data.IGNORED
    assert tokenizer.decode(batch["input_ids"][0][learned]) == "billing <end>"
    assert tokenizer.decode(example.ids[: example.prompt]).endswith(
        "user my invoice <end> <start> assistant"
    )


def test_the_templates_own_system_prompt_is_kept_out(tokenizer: Any) -> None:
    plain = tokenizer.apply_chat_template([{"role": "user", "content": "my login"}], tokenize=False)
    assert "the first answer is new" in plain  # this is what the template does by itself
    assert "the first answer is new" not in data.render(
        tokenizer, [{"role": "user", "content": "my login"}]
    )


def test_a_system_prompt_that_was_asked_for_stands(tokenizer: Any) -> None:
    ids = data.prompt_ids(tokenizer, "my login", "chat", "help me")
    assert tokenizer.decode(ids).startswith("<start> system help me <end>")


def test_a_template_that_refuses_a_system_message_gets_none(base: Path) -> None:
    strict = AutoTokenizer.from_pretrained(base)
    strict.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        "{% for message in messages %}<start> {{ message['content'] }} <end> {% endfor %}"
    )
    assert (
        data.render(strict, [{"role": "user", "content": "my login"}]) == "<start> my login <end> "
    )


def test_a_base_without_a_template_is_told_to_use_plain(base: Path) -> None:
    bare = AutoTokenizer.from_pretrained(base)
    bare.chat_template = None
    with pytest.raises(Invalid) as refusal:
        data.prompt_ids(bare, "my login", "chat")
    assert refusal.value.kind == "no-chat-template"
    assert bare.decode(data.prompt_ids(bare, "my login", "plain")) == "my login"


def test_other_splits_are_never_trained_on(tokenizer: Any) -> None:
    found = data.tokenise(
        [row("my login", "access", "test"), row("my car", "claims")], tokenizer, "chat", 48
    )
    assert len(found) == 1
    with pytest.raises(Invalid) as refusal:
        data.tokenise([row("my login", "access", "test")], tokenizer, "chat", 48)
    assert refusal.value.kind == "no-training-rows"


def test_a_row_that_would_have_to_be_cut_is_refused_with_its_line(tokenizer: Any) -> None:
    with pytest.raises(Invalid) as refusal:
        data.tokenise([Row(41, "my login " * 30, "access", "train", b"")], tokenizer, "chat", 48)
    assert "line 41" in refusal.value.detail


def test_the_seed_alone_decides_the_order_and_every_epoch_takes_every_row() -> None:
    places = data.order(10, 35, seed=3, sample=None)
    assert (
        places == data.order(10, 35, seed=3, sample=None) != data.order(10, 35, seed=4, sample=None)
    )
    epochs = [places[start : start + 10] for start in (0, 10, 20)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert len(places) == 35


def test_a_sample_keeps_to_few_rows_and_uses_them_alike() -> None:
    counts = Counter(data.order(100, 40, seed=3, sample=8))
    assert len(counts) == 8
    assert set(counts.values()) == {5}


def test_padding_is_neither_read_nor_learned(tokenizer: Any) -> None:
    batch = data.collate(
        data.tokenise(
            [row("my car", "claims"), row("a b my car again", "claims")], tokenizer, "chat", 48
        ),
        tokenizer.pad_token_id,
    )
    padding = batch["attention_mask"][0] == 0
    assert int(padding.sum()) == 3
    assert set(batch["labels"][0][padding].tolist()) == {data.IGNORED}
    assert set(batch["input_ids"][0][padding].tolist()) == {tokenizer.pad_token_id}


def test_rows_other_than_those_leased_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\n')
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    root = Frontier([b'{"completion":"b","prompt":"a"}']).text()
    [found] = data.read_rows(path, sha256, root)
    assert (found.prompt, found.completion, found.split) == ("a", "b", "train")
    path.write_text('{"prompt": "a", "completion": "B"}\n')
    with pytest.raises(Unverified) as refusal:
        data.read_rows(path, sha256, root)
    assert refusal.value.kind == "record-root-mismatch"
