"""Genuine SentencePiece models, trained in a moment by sentencepiece itself on sentences made up
here.
"""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import sentencepiece

WORDS = [
    "please",
    "route",
    "this",
    "letter",
    "to",
    "the",
    "answer",
    "of",
    "a",
    "claim",
    "for",
    "water",
    "damage",
    "in",
    "2024",
    "ﬁrst",
    "über",
    "café",
    "naïve",
    "漢字",
    "かな",
]
SENTENCES = [" ".join(WORDS[(n * k) % len(WORDS)] for k in range(1, 9)) for n in range(1, 160)]
RULES = "FB01\t66 69\nC4\t41 65\nE9\t65\nFF21\t41\n41 308\tC4\n"
"""Code points, and what they become: a map of a kilobyte, where NFKC's has 240."""


@cache
def trained(**options: Any) -> bytes:
    """A model of 300 pieces, unigram unless told otherwise; `rules=True` gives it a small character
    map of its own.
    """
    made = io.BytesIO()
    with TemporaryDirectory() as folder:
        if options.pop("rules", False):
            Path(folder, "rules.tsv").write_text(RULES, "utf-8")
            options["normalization_rule_tsv"] = str(Path(folder, "rules.tsv"))
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(SENTENCES),
            model_writer=made,
            minloglevel=2,
            num_threads=1,
            hard_vocab_limit=False,
            **{"vocab_size": 300, **options},
        )
    return made.getvalue()
