"""A data set version to training examples, in an order that only the seed decides."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from registry.artifacts.datasets.rows import TRAIN, Row, plain_text, sound_rows
from registry.artifacts.weights.local_files import read_files
from registry.artifacts.weights.tensors import File
from registry.documents import canonical
from registry.errors import Invalid, Unverified
from registry.proof.merkle import Frontier

IGNORED = -100  # the label that the loss of transformers skips
MAX_SHOWN = 2000
"""Characters of a rendered row that people are shown."""


@dataclass(frozen=True, slots=True)
class Example:
    """One row as token ids: the first `prompt` of them are read, the others are learned."""

    ids: tuple[int, ...]
    prompt: int


def read_rows(path: Path, sha256: str, record_root: str) -> list[Row]:
    """Every row of the file that was leased, checked against the record root over its rows.

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


def conversation(prompt: str, system: str | None) -> list[dict[str, str]]:
    """The messages of one prompt: the system prompt where there is one, then the user's turn.

    A blank system prompt is none: exports write an empty column for rows that have nothing there.
    """
    opening = [{"role": "system", "content": system}] if system and system.strip() else []
    return [*opening, {"role": "user", "content": prompt}]


def render(tokenizer: Any, messages: Sequence[dict[str, str]], *, answered: bool = False) -> str:
    """The messages in the base's chat template, as they are, and nothing beside them.

    The text ends where the model's answer begins, or with the answer where the messages are
    `answered`. Every other client renders the same text. Raises Invalid `no-chat-template`, and
    `template-refused` where the template does not take these messages.
    """
    if not tokenizer.chat_template:
        raise Invalid("no-chat-template", "The base model has no chat template.")
    try:
        return str(
            tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=not answered
            )
        )
    except Exception as error:
        # A template refuses a role by raising from within jinja.
        if "TemplateError" not in {kind.__name__ for kind in type(error).__mro__}:
            raise
        roles = ", ".join(message["role"] for message in messages)
        raise Invalid(
            "template-refused",
            f"The base's chat template does not take the turns {roles[:80]}: {str(error)[:200]}.",
        ) from error


def prompt_ids(tokenizer: Any, prompt: str, template: str, system: str | None = None) -> list[int]:
    """A prompt as token ids, the same in training, evaluation and serving.

    `plain` takes the text unchanged, with the tokenizer's own opening token where it has one. A
    chat template writes that token itself.
    """
    if template == "plain":
        return list(tokenizer(plain_text(prompt, system)).input_ids)
    return ids_of(tokenizer, render(tokenizer, conversation(prompt, system)))


def ids_of(tokenizer: Any, text: str) -> list[int]:
    """The token ids of a text that has its special tokens already."""
    return list(tokenizer(text, add_special_tokens=False).input_ids)


@dataclass(frozen=True, slots=True)
class Form:
    """How rows become token ids: by which template, under which system prompt, ending with what.

    `ends` are the tokens at which the base ends its answers.
    """

    template: str
    system: str | None
    ends: tuple[int, ...]

    def system_of(self, row: Row) -> str | None:
        """The system prompt of a row: its own, else the recipe's.

        Raises Invalid `system-prompts-differ` where both are there and differ, because only one of
        them could be served.
        """
        own = row.own_system
        if own is not None and self.system is not None and own != self.system:
            raise Invalid(
                "system-prompts-differ",
                f"The recipe has a system prompt, and training row {row.line} has another.",
            )
        return own if own is not None else self.system

    def end(self, tokenizer: Any) -> int:
        """The token that ends an answer where the template writes none."""
        own = tokenizer.eos_token_id
        return int(own if own in self.ends or not self.ends else self.ends[0])

    def example(self, tokenizer: Any, row: Row) -> Example:
        """A row as token ids. The answer is learned, with the token that ends it."""
        system = self.system_of(row)
        prompt = prompt_ids(tokenizer, row.prompt, self.template, system)
        if self.template == "plain":
            answer = [*ids_of(tokenizer, row.completion), self.end(tokenizer)]
        else:
            answer = self._answer(tokenizer, row, system, prompt)
        return Example((*prompt, *answer), len(prompt))

    def _answer(self, tokenizer: Any, row: Row, system: str | None, prompt: list[int]) -> list[int]:
        """The assistant's turn as the template writes it, up to the token at which it ends.

        What the template writes after that token no engine generates. A template whose turns end
        with no such token gets one, otherwise the model would never learn to stop.
        """
        asked, answer = answered_texts(tokenizer, row, system)
        whole = ids_of(tokenizer, asked + answer)
        ids = whole[len(prompt) :]
        if whole[: len(prompt)] != prompt:
            # The answer's first letters join the prompt's last token. Engines always generate after
            # the whole prompt, so that is what is learned.
            ids = ids_of(tokenizer, answer)
            if _text(tokenizer, [*prompt, *ids]) != _text(tokenizer, whole):
                raise Invalid(
                    "answer-misplaced",
                    f"Training row {row.line}: after the tokens of the prompt, the base's "
                    "tokenizer cannot write the answer as its chat template does.",
                )
        ends = {*self.ends, self.end(tokenizer)}
        last = max((at for at, token in enumerate(ids) if token in ends), default=None)
        if last is None or _text(tokenizer, ids[last + 1 :]).strip():
            return [*ids, self.end(tokenizer)]
        return ids[: last + 1]


def answered_texts(tokenizer: Any, row: Row, system: str | None) -> tuple[str, str]:
    """What the template makes of a row: the text before the answer, and from the answer on.

    Raises Invalid `answer-misplaced` where the template writes an answered conversation otherwise
    than it asks for the answer, `answer-lost` where it leaves out part of the answer. An adapter
    would learn what no client ever asks of it.
    """
    messages = conversation(row.prompt, system)
    asked = render(tokenizer, messages)
    turn = {"role": "assistant", "content": row.completion}
    whole = render(tokenizer, [*messages, turn], answered=True)
    if not whole.startswith(asked):
        raise Invalid(
            "answer-misplaced",
            f"Training row {row.line}: the base's chat template asks for an answer with "
            f"{asked[-60:]!r}, and writes something else before one that is there.",
        )
    answer = whole[len(asked) :]
    if "".join(row.completion.split()) not in "".join(answer.split()):
        raise Invalid(
            "answer-lost",
            f"Training row {row.line}: the base's chat template leaves out part of the answer.",
        )
    return asked, answer


def _text(tokenizer: Any, ids: Sequence[int]) -> str:
    return str(
        tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    )


def tokenise(rows: Sequence[Row], tokenizer: Any, form: Form, max_length: int) -> list[Example]:
    """The training rows as examples.

    Raises Invalid `no-training-rows`, and `row-too-long` instead of cutting a row: the model would
    learn half an answer as a whole one.
    """
    examples, long = [], []
    for row in training_rows(rows):
        example = form.example(tokenizer, row)
        if len(example.ids) > max_length:
            long.append((row.line, len(example.ids)))
        examples.append(example)
    if long:
        raise Invalid(
            "row-too-long",
            f"{len(long)} training rows are longer than {max_length} tokens; row {long[0][0]} has "
            f"{long[0][1]}, the longest has {max(length for _, length in long)}.",
        )
    if not examples:
        raise Invalid("no-training-rows", f"The data set has no row in the split '{TRAIN}'.")
    return examples


def training_rows(rows: Sequence[Row]) -> Iterator[Row]:
    """The rows of the split that is trained on."""
    return (row for row in rows if row.split == TRAIN)


@dataclass(frozen=True, slots=True)
class Rendered:
    """What a model sees of one row, to show and to keep.

    `text` are the tokens as text, `form` is the same with placeholders for what the row says.
    `learned` of the `tokens` are learned. `ids_sha256` is the digest of the ids as canonical JSON.
    """

    text: str
    form: str
    tokens: int
    learned: int
    ids_sha256: str

    def shown(self) -> dict[str, Any]:
        """The row for people who watch the run; a long text is cut."""
        text = self.text if len(self.text) <= MAX_SHOWN else f"{self.text[:MAX_SHOWN]} ..."
        return {**self.kept(), "text": text}

    def kept(self) -> dict[str, Any]:
        """The row for a report that is never erased: the row's own words are not in it."""
        return {
            "form": self.form,
            "tokens": self.tokens,
            "learned": self.learned,
            "ids_sha256": self.ids_sha256,
        }


def rendered(tokenizer: Any, form: Form, row: Row, example: Example) -> Rendered:
    """What the model sees of a row that became this example."""
    own = row.own_system
    blank = replace(
        row,
        prompt="{prompt}",
        completion="{completion}",
        system=None if own is None or form.system is not None else "{system}",
    )
    system = form.system_of(blank)
    if form.template == "plain":
        end = _text(tokenizer, [form.end(tokenizer)])
        shape = f"{plain_text(blank.prompt, system)}{blank.completion}{end}"
    else:
        shape = "".join(answered_texts(tokenizer, blank, system))
    return Rendered(
        text=_text(tokenizer, example.ids),
        form=shape,
        tokens=len(example.ids),
        learned=len(example.ids) - example.prompt,
        ids_sha256=canonical.digest(list(example.ids)),
    )


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
