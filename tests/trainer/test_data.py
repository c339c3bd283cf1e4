"""Examples: what is learned, in which order, and that the rows are those the registry names."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, trainers
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from registry.artifacts.datasets.rows import Row
from registry.errors import Invalid, Unverified
from registry.proof.merkle import Frontier
from trainer import data, model

START, END = 2, 3
"""The tiny tokenizer's <start> and <end>."""
CHAT = data.Form("chat", None, (END,))


@pytest.fixture(scope="module")
def tokenizer(base: Path) -> Any:
    return model.load_tokenizer(base)


def row(prompt: str, completion: str, split: str = "train") -> Row:
    return Row(1, prompt, completion, split, b"")


def test_only_the_completion_and_its_end_are_learned(tokenizer: Any) -> None:
    [example] = data.tokenise([row("my invoice", "billing")], tokenizer, CHAT, 48)
    batch = data.collate([example], tokenizer.pad_token_id)
    learned = batch["labels"][0] != data.IGNORED
    assert tokenizer.decode(batch["input_ids"][0][learned]) == "billing <end>"
    assert tokenizer.decode(example.ids[: example.prompt]).endswith(
        "user my invoice <end> <start> assistant"
    )


def test_a_row_is_what_the_template_gives_for_it(tokenizer: Any) -> None:
    """No turn is added, and none that the template itself writes is kept out."""
    messages = [{"role": "user", "content": "my login"}]
    foreign = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert "the first answer is new" in foreign  # this template has a system prompt of its own
    assert data.render(tokenizer, messages) == foreign
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
    assert data.prompt_ids(tokenizer, "my login", "chat") == ids["input_ids"]
    assert data.prompt_ids(tokenizer, "my login", "chat", " ") == ids["input_ids"]


def test_a_system_prompt_that_was_asked_for_stands(tokenizer: Any) -> None:
    ids = data.prompt_ids(tokenizer, "my login", "chat", "help me")
    assert tokenizer.decode(ids).startswith("<start> system help me <end>")


def test_the_system_prompt_of_a_row_is_used_and_two_are_refused(tokenizer: Any) -> None:
    own = Row(7, "my login", "access", "train", b"", "help me")
    blank = Row(8, "my login", "access", "train", b"", "  ")
    [example] = data.tokenise([own], tokenizer, CHAT, 48)
    assert tokenizer.decode(example.ids).startswith("<start> system help me <end>")
    of_recipe = data.Form("chat", "help me", (END,))
    same, filled = data.tokenise([own, blank], tokenizer, of_recipe, 48)
    assert same == filled == example
    with pytest.raises(Invalid) as refusal:
        data.tokenise([own], tokenizer, data.Form("chat", "the car", (END,)), 48)
    assert refusal.value.kind == "system-prompts-differ"
    assert "row 7" in refusal.value.detail


STRICT = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for m in messages %}<start> {{ m['content'] }} <end> {% endfor %}"
)


def test_a_template_that_takes_no_system_prompt_says_so(base: Path) -> None:
    strict = with_template(base, STRICT)
    asked = [{"role": "user", "content": "my login"}]
    assert data.render(strict, asked) == "<start> my login <end> "
    with pytest.raises(Invalid) as refusal:
        data.prompt_ids(strict, "my login", "chat", "help me")
    assert refusal.value.kind == "template-refused"
    assert "no system role" in refusal.value.detail


def with_template(base: Path, template: str) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = template
    return tokenizer


TURN = "{% for m in messages %}<start> {{ m.role }} {{ m.content }} "
ASK = "{% if add_generation_prompt %}<start> assistant {% endif %}"
SHAPES = {
    # The template's end of a turn is the base's end token: nothing after it is generated.
    "ends": (TURN + "<end> {% endfor %}" + ASK, "billing <end>"),
    "ends, and more": (TURN + "<end>\n{% endfor %}" + ASK, "billing <end>"),
    # It writes no end at all, or another than the base stops at: the model would never stop.
    "no end": (TURN + "{% endfor %}" + ASK, "billing <end>"),
    "another end": (TURN + "my {% endfor %}" + ASK, "billing my <end>"),
    # The answer's turn opens otherwise than asked, or loses the answer.
    "misplaced": (
        TURN + "<end> {% endfor %}{% if add_generation_prompt %}<start> assistant my {% endif %}",
        "answer-misplaced",
    ),
    "lost": (
        "{% for m in messages %}<start> {{ m.role }} {{ m.content.split('car')[-1] }} <end> "
        "{% endfor %}" + ASK,
        "answer-lost",
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_answer_is_the_templates_own_turn_up_to_its_end(base: Path, shape: str) -> None:
    template, expected = SHAPES[shape]
    tokenizer = with_template(base, template)
    sample = row("my invoice", "car billing" if shape == "lost" else "billing")
    if expected.startswith("answer-"):
        with pytest.raises(Invalid) as refusal:
            data.tokenise([sample], tokenizer, CHAT, 48)
        assert refusal.value.kind == expected
        assert "Training row 1" in refusal.value.detail
        return
    [example] = data.tokenise([sample], tokenizer, CHAT, 48)
    asked = data.prompt_ids(tokenizer, "my invoice", "chat")
    assert list(example.ids[: example.prompt]) == asked
    assert tokenizer.decode(example.ids[example.prompt :]) == expected


def test_the_opening_token_is_never_doubled(base: Path) -> None:
    """A tokenizer that opens every text, and a template that writes the opening token itself."""
    opened = with_template(base, "{{ bos_token }} " + TURN + "<end> {% endfor %}" + ASK)
    opened.bos_token = "<start>"
    opened.backend_tokenizer.post_processor = TemplateProcessing(
        single="<start> $A", special_tokens=[("<start>", START)]
    )
    assert opened("my car").input_ids[0] == START
    [example] = data.tokenise([row("my car", "claims")], opened, CHAT, 48)
    assert opened.decode(example.ids).startswith("<start> <start> user")  # its own, then the turn's
    assert data.prompt_ids(opened, "my car", "plain")[0] == START
    assert START not in data.prompt_ids(opened, "my car", "plain")[1:]


def test_a_joint_of_prompt_and_answer_is_learned_as_engines_write_it() -> None:
    """Byte pairs join the last blank of the prompt and the first letters of the answer."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer, raw.decoder = None, decoders.Fuse()
    raw.train_from_iterator(
        ["a: yes", "a: no"] * 9,
        trainers.BpeTrainer(vocab_size=40, special_tokens=["</s>"]),
    )
    joined = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="</s>")
    joined.chat_template = (
        "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}: {% else %}"
        "{{ m.content }}</s>{% endif %}{% endfor %}"
    )
    [example] = data.tokenise([row("a", "yes")], joined, data.Form("chat", None, (0,)), 48)
    prompt = joined("a: ", add_special_tokens=False).input_ids
    assert joined("a: yes</s>").input_ids[: len(prompt)] != prompt
    assert list(example.ids[: example.prompt]) == prompt
    assert joined.decode(example.ids) == "a: yes</s>"


def test_what_is_shown_of_the_first_row_and_what_is_kept(tokenizer: Any) -> None:
    sample = row("my invoice", "billing")
    form = data.Form("chat", "help me", (END,))
    [example] = data.tokenise([sample], tokenizer, form, 48)
    shown = data.rendered(tokenizer, form, sample, example)
    assert shown.text.startswith("<start> system help me <end> <start> user my invoice <end>")
    turns = ("system help me", "user {prompt}", "assistant {completion}")
    assert shown.form.split() == "".join(f"<start> {turn} <end> " for turn in turns).split()
    assert (shown.tokens, shown.learned) == (len(example.ids), 2)
    assert "my invoice" in shown.shown()["text"]
    assert "invoice" not in str(shown.kept())
    plain = data.Form("plain", None, (END,))
    [example] = data.tokenise([sample], tokenizer, plain, 48)
    assert data.rendered(tokenizer, plain, sample, example).form == "{prompt}{completion}<end>"


def test_a_base_without_a_template_is_told_to_use_plain(base: Path) -> None:
    bare = AutoTokenizer.from_pretrained(base)
    bare.chat_template = None
    with pytest.raises(Invalid) as refusal:
        data.prompt_ids(bare, "my login", "chat")
    assert refusal.value.kind == "no-chat-template"
    assert bare.decode(data.prompt_ids(bare, "my login", "plain")) == "my login"


def test_other_splits_are_never_trained_on(tokenizer: Any) -> None:
    found = data.tokenise(
        [row("my login", "access", "test"), row("my car", "claims")], tokenizer, CHAT, 48
    )
    assert len(found) == 1
    with pytest.raises(Invalid) as refusal:
        data.tokenise([row("my login", "access", "test")], tokenizer, CHAT, 48)
    assert refusal.value.kind == "no-training-rows"


def test_a_row_that_would_have_to_be_cut_is_refused_with_its_number(tokenizer: Any) -> None:
    with pytest.raises(Invalid) as refusal:
        data.tokenise([Row(41, "my login " * 30, "access", "train", b"")], tokenizer, CHAT, 48)
    assert "row 41" in refusal.value.detail


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
            [row("my car", "claims"), row("a b my car again", "claims")], tokenizer, CHAT, 48
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
