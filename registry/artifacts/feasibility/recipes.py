"""Whether a recipe can be trained on a base and a data set, from their files and before it waits.

Everything here is also found by the trainer, hours later. What only the trainer can find is the
exact number of tokens of each row, and whether the machine has memory enough.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from registry.artifacts.bundles import judge
from registry.artifacts.bundles.memory import JUDGING
from registry.artifacts.bundles.texts import FAST_TOKENIZER, documents_of
from registry.artifacts.datasets.rows import TRAIN
from registry.artifacts.feasibility.extremes import Extremes, extremes
from registry.artifacts.methods import plans
from registry.artifacts.methods.heads import trained_view
from registry.artifacts.methods.plans import Plan
from registry.artifacts.tokenizers import lengths, prompts
from registry.artifacts.tokenizers.prompts import Question
from registry.artifacts.weights.tensors import File, Read, fetch
from registry.fields import Problem

SAMPLE = Question("What is a mortgage?", "A loan that a house secures.")
"""What a template is tried with where no row of the split is near the beginning of the file."""

MAX_HEAD_BYTES = 1 << 20
"""Bytes of the beginning of tokenizer.json that are read: what stands before its vocabulary."""


@dataclass(frozen=True, slots=True)
class Base:
    """The base that is tuned: its reference, its root, and its files."""

    ref: str
    root: str
    files: Sequence[File]


@dataclass(frozen=True, slots=True)
class Rows:
    """The data set that is read: its reference, its file, and the rows of each split."""

    ref: str
    file: File
    splits: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Reading:
    """How a recipe reads rows: its template, the most tokens of a row, and its system prompt.

    The system prompt is for rows that have none of their own.
    """

    template: str
    max_length: int
    system: str | None = None


@dataclass(frozen=True, slots=True)
class Training:
    """A training run that somebody asks for; `meta` goes to the versions that it makes."""

    plan: Plan
    reading: Reading
    base: Base
    rows: Rows
    meta: Mapping[str, Any]


def problems(training: Training, read: Read) -> list[Problem]:
    """Everything that keeps a recipe from being trained and its versions from being registered.

    Raises Unavailable when the machine has no room to judge now, BundleRejected or Unverified when
    stored bytes are damaged.
    """
    wrong = [
        Problem(f"meta.{finding.field}", "missing", f"{finding.detail}. {finding.fix}".rstrip("."))
        for finding in judge.unstated("adapter", training.meta, "queue the training again")
    ]
    misfits = [*_misfits(training.plan, training.base, read), *_unreadable(training, read)]
    return wrong + [Problem(key, "wrong", text) for key, text in misfits]


def _misfits(plan: Plan, base: Base, read: Read) -> list[tuple[str, str]]:
    """The only place where a plan meets the base's modules, by the names of the loaded model."""
    reading, _ = judge.footprint("base", base.files, read)
    with JUDGING.take(reading):
        facts = judge.base_facts(base.files, read, base_root=base.root)
        return plans.unfit(plan, trained_view(facts.shapes, facts.config).body)


def _unreadable(training: Training, read: Read) -> Iterator[tuple[str, str]]:
    reading, base, rows = training.reading, training.base, training.rows
    if not rows.splits.get(TRAIN):
        others = ", ".join(sorted(rows.splits)) or "none"
        yield (
            "dataset",
            f"{rows.ref} has no row in the split {TRAIN}; its splits are {others}. Add a version "
            f"with rows of the split {TRAIN}",
        )
        return
    documents = documents_of(base.files, read)
    if prompts.lacks_end(documents):
        yield "base", prompts.NO_END
    seen = extremes(rows.file, read, TRAIN)
    if reading.system is not None and (line := seen.other_system(reading.system)):
        yield (
            "system",
            f"the recipe has a system prompt, and line {line} of {rows.ref} has another. Remove "
            "one of the two",
        )
        return
    added_words, first = 0, seen.first
    if reading.template == "chat":
        asked = first.asked if first else SAMPLE
        asked = replace(asked, system=asked.system or reading.system)
        trial = prompts.tried(documents, asked)
        if trial.unfit is not None:
            where = f" (line {first.line} of {rows.ref})" if first else ""
            way_out = trial.way_out("write template: plain, or take another base")
            yield "template", f"{trial.unfit}{where}. {way_out}"
        added_words = trial.added_words
    if seen.longest and lengths.splits_at_blanks(_tokenizer_head(base.files, read)):
        yield from _too_long(reading.max_length, added_words, seen, rows.ref)


def _tokenizer_head(files: Sequence[File], read: Read) -> str:
    """The beginning of tokenizer.json; empty without such a file."""
    file = next((file for file in files if file.path == FAST_TOKENIZER), None)
    if file is None:
        return ""
    return fetch(file, read, 0, min(file.size, MAX_HEAD_BYTES)).decode("utf-8", "replace")


def _too_long(
    max_length: int, added_words: int, seen: Extremes, ref: str
) -> Iterator[tuple[str, str]]:
    """The rows that surely have too many tokens.

    `added_words` are those of the template around the first row; they count for rows of its form.
    """
    like_first = seen.first is not None and seen.first.asked.system is not None
    counts = [
        # One more: the end-of-text token is learned too.
        (row.line, row.words + 1 + (added_words if row.system == like_first else 0))
        for row in seen.longest
    ]
    long = [(line, count) for line, count in counts if count > max_length]
    if long:
        line, count = max(long, key=lambda entry: entry[1])
        yield (
            "max_length",
            f"line {line} of {ref} has {count} tokens or more, and {len(long)} rows or more are "
            f"longer than {max_length}. Raise max_length, or shorten the rows",
        )
