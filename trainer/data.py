"""A data set version to training examples, in an order that only the seed decides."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from registry.artifacts.datasets.rows import TRAIN, Row, sound_rows
from registry.artifacts.weights.local_files import read_files
from registry.artifacts.weights.tensors import File
from registry.errors import Invalid, Unverified
from registry.proof.merkle import Frontier

IGNORED = -100  # the label that the loss of transformers skips


@dataclass(frozen=True, slots=True)
class Example:
    """One row as token ids: the first `prompt` of them are read, the others are learned."""

    ids: tuple[int, ...]
    prompt: int


def read_rows(path: Path, sha256: str, record_root: str) -> list[Row]:
    """Every row of a data set file, checked against the record root that was leased.

    Raises Unverified `record-root-mismatch`: training on rows that the registry does not name would
    break lineage.
    """
    rows = list(
        sound_rows(File(path.name, sha256, path.stat().st_size), read_files(lambda _: path))
    )
    actual = Frontier(row.leaf for row in rows).text()
    if actual != record_root:
        raise Unverified(
            "record-root-mismatch",
            f"The rows in the cache have the record root {actual}, but {record_root} was leased.",
        )
    return rows


def render(tokenizer: Any, messages: Sequence[dict[str, str]]) -> str:
    """The messages in the base's chat template, ending where the model's answer begins.

    Some templates (SmolLM2's among them) add a system prompt of their own unless the first message
    is one. An empty system message prevents that, and adapters are trained, evaluated and served
    with it. A template that refuses system messages adds none and gets none. Raises Invalid
    `no-chat-template`.
    """
    if not tokenizer.chat_template:
        raise Invalid("no-chat-template", "The base model has no chat template.")
    conversation = list(messages)
    if conversation and conversation[0]["role"] != "system":
        try:
            return str(
                tokenizer.apply_chat_template(
                    [{"role": "system", "content": ""}, *conversation],
                    tokenize=False,
                    add_generation_prompt=True,
                )
            )
        except Exception as error:
            # A template refuses a role by raising from within jinja.
            if "TemplateError" not in {kind.__name__ for kind in type(error).__mro__}:
                raise
    return str(
        tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
    )


def prompt_ids(tokenizer: Any, prompt: str, template: str, system: str | None = None) -> list[int]:
    """A prompt as token ids, the same in training, evaluation and serving.

    `plain` takes the text unchanged, with the tokenizer's own opening token where it has one.
    """
    if template == "plain":
        return list(tokenizer(prompt if system is None else f"{system}\n{prompt}").input_ids)
    opening = [] if system is None else [{"role": "system", "content": system}]
    text = render(tokenizer, [*opening, {"role": "user", "content": prompt}])
    return list(tokenizer(text, add_special_tokens=False).input_ids)


def tokenise(rows: Sequence[Row], tokenizer: Any, template: str, max_length: int) -> list[Example]:
    """The training rows as examples that end with the end-of-text token.

    Only the completion is learned. Raises Invalid `no-training-rows`, and `row-too-long` instead of
    cutting a row: the model would learn half an answer as a whole one.
    """
    examples, long = [], []
    for row in rows:
        if row.split != TRAIN:
            continue
        prompt = prompt_ids(tokenizer, row.prompt, template)
        completion = tokenizer(row.completion, add_special_tokens=False).input_ids
        ids = (*prompt, *completion, tokenizer.eos_token_id)
        if len(ids) > max_length:
            long.append((row.line, len(ids)))
        examples.append(Example(ids, len(prompt)))
    if long:
        raise Invalid(
            "row-too-long",
            f"{len(long)} training rows are longer than {max_length} tokens; line {long[0][0]} has "
            f"{long[0][1]}, the longest has {max(length for _, length in long)}.",
        )
    if not examples:
        raise Invalid("no-training-rows", f"The data set has no row in the split '{TRAIN}'.")
    return examples


def order(count: int, places: int, seed: int, sample: int | None) -> list[int]:
    """The row that each place of the training run takes, decided only by the seed.

    Every epoch is a new shuffle. `sample` is the number of rows to draw and keep to; None takes all
    `count` rows. The order is written out in full, so that resuming only has to skip places.
    """
    rows = random.Random(f"{seed}:sample").sample(range(count), min(sample or count, count))
    return list(_epochs(rows, places, seed))


def _epochs(rows: list[int], places: int, seed: int) -> Iterator[int]:
    for place in range(places):
        epoch, index = divmod(place, len(rows))
        if index == 0:
            shuffled = list(rows)
            random.Random(f"{seed}:{epoch}").shuffle(shuffled)
        yield shuffled[index]


class Ordered(Dataset[Example]):
    """The examples in training order, one for each place of each batch of each step."""

    def __init__(self, examples: Sequence[Example], places: Sequence[int]) -> None:
        self._examples = examples
        self._places = places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, place: int) -> Example:
        return self._examples[self._places[place]]

    def tokens(self, places: range) -> int:
        """The number of tokens in these places, without padding."""
        return sum(len(self[place].ids) for place in places)


def collate(examples: Sequence[Example], pad_id: int) -> dict[str, torch.Tensor]:
    """One batch, padded on the right to its longest row: int64 tensors of shape (rows, tokens)."""
    width = max(len(example.ids) for example in examples)
    ids = torch.full((len(examples), width), pad_id)
    labels = torch.full((len(examples), width), IGNORED)
    mask = torch.zeros((len(examples), width), dtype=torch.int64)
    for line, example in enumerate(examples):
        length = len(example.ids)
        ids[line, :length] = torch.tensor(example.ids)
        labels[line, example.prompt : length] = ids[line, example.prompt : length]
        mask[line, :length] = 1
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}
