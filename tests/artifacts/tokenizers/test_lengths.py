"""The least number of tokens: proven where a tokenizer splits at blanks, else not claimed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from registry.artifacts.tokenizers.lengths import splits_at_blanks, words

GPT = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
LLAMA3 = {
    "type": "Sequence",
    "pretokenizers": [
        {
            "type": "Split",
            "pattern": {"Regex": r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|\s*[\r\n]+|\s+(?!\S)|\s+"},
            "behavior": "Isolated",
            "invert": False,
        },
        {**GPT, "use_regex": False},
    ],
}
LLAMA2 = {
    "type": "Sequence",
    "normalizers": [
        {"type": "Prepend", "prepend": "\u2581"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
    ],
}


def head(pre: Any, normalizer: Any = None, added: list[str] | None = None) -> str:
    document = {
        "version": "1.0",
        "truncation": None,
        "added_tokens": [{"id": n, "content": text} for n, text in enumerate(added or ())],
        "normalizer": normalizer,
        "pre_tokenizer": pre,
        "model": {"type": "BPE", "vocab": {"a": 0}},
    }
    return json.dumps(document, indent=2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (head(GPT), True),
        (head(LLAMA3, {"type": "NFC"}, ["<|im_start|>", "  "]), True),
        (head({"type": "Metaspace", "replacement": "\u2581"}, LLAMA2), True),
        (head({"type": "WhitespaceSplit"}), True),
        (head(None, LLAMA2), False),
        (head({**GPT, "use_regex": False}), False),
        (head({"type": "Metaspace", "split": False}), False),
        (head({"type": "Split", "pattern": {"Regex": "x+"}}), False),
        (head({"type": "Digits"}), False),
        (head(GPT, {"type": "Strip"}), False),
        (head(GPT, {"type": "Replace", "pattern": {"Regex": ".*"}, "content": ""}), False),
        (head(GPT, None, ["two words"]), False),
        (head(GPT)[:200], False),
        ('{"model": {}, "pre_tokenizer": {"type": "ByteLevel"}}', False),
        ("", False),
        ("[1]", False),
        ('{"a": ' + "[" * 100_000, False),
    ],
)
def test_what_is_proven_of_a_tokenizer(text: str, expected: bool) -> None:
    assert splits_at_blanks(text) is expected


def test_words_are_counted_with_a_letter_that_every_vocabulary_has() -> None:
    assert words("  Hello,\n brave\tnew 2nd world!  ") == 5
    assert words("-- \u4f60\u597d \u2014 ...") == 0


@pytest.mark.parametrize("name", ["byte level", "metaspace", "words"])
def test_no_text_has_fewer_tokens_than_words(name: str) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    kinds: dict[str, tuple[Any, Any, Any]] = {
        "byte level": (models.BPE(), pre_tokenizers.ByteLevel(), trainers.BpeTrainer),
        "metaspace": (models.Unigram(), pre_tokenizers.Metaspace(), trainers.UnigramTrainer),
        "words": (
            models.WordLevel(unk_token="<unk>"),
            pre_tokenizers.WhitespaceSplit(),
            trainers.WordLevelTrainer,
        ),
    }
    inner, pre, trainer = kinds[name]
    tokenizer = Tokenizer(inner)
    tokenizer.pre_tokenizer = pre
    texts = [
        "a letter of the claims desk about water",
        "the claims of the desk",
        "x  y\n\nz a-b c's",
    ]
    special = ["<unk>", "<|im_start|>"]
    extra = {"unk_token": "<unk>"} if name == "metaspace" else {}
    tokenizer.train_from_iterator(
        texts * 20, trainer(vocab_size=320, special_tokens=special, show_progress=False, **extra)
    )
    assert splits_at_blanks(tokenizer.to_str())
    for text in [*texts, "water water  everywhere\tand 12 drops", "<|im_start|>user\nthe desk"]:
        assert len(tokenizer.encode(text).ids) >= words(text), text
