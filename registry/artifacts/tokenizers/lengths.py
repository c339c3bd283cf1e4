"""How many tokens a text has at least, counted without running the tokenizer.

The registry cannot run every tokenizer. Most of them split a text at its blanks before anything
else, and no token reaches over a blank: such a text has at least as many tokens as words. Rows that
this proves too long are refused at once. The trainer counts exactly, and finds the others.
"""

from __future__ import annotations

import json
import re
from typing import Any

WORD = re.compile(r"[^ \t\r\n]*[A-Za-z0-9][^ \t\r\n]*")
"""A word with a letter that every vocabulary has; tokenizers may drop characters they lack."""
BLANK = re.compile(r"\S\s+\S")
GPT_BLANKS = r"\s+(?!\S)"
"""The part of the patterns of the GPT family that takes blanks apart from words."""
SPLITTING = ("Whitespace", "WhitespaceSplit", "BertPreTokenizer")
HARMLESS = ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Prepend")
"""Normalisers that leave every word in its place."""
BLANKS = re.compile(r"[ \t\r\n]*")
"""What may stand between two parts of JSON."""


def words(text: str) -> int:
    """The number of words, which a tokenizer that splits at blanks never joins in one token."""
    return sum(1 for _ in WORD.finditer(text))


def splits_at_blanks(head: str) -> bool:
    """Whether a tokenizer surely has at least one token for each word.

    `head` is the beginning of its tokenizer.json, with what stands before the vocabulary.
    """
    settings = _before_model(head)
    added = settings.get("added_tokens")
    contents = [token.get("content") for token in added or () if isinstance(token, dict)]
    return (
        not any(isinstance(content, str) and BLANK.search(content) for content in contents)
        and _keeps_words(settings.get("normalizer"))
        and _splits(settings.get("pre_tokenizer"))
    )


def _before_model(head: str) -> dict[str, Any]:
    """The members of a JSON object that stand before its member `model`."""
    decode = json.JSONDecoder().raw_decode
    members: dict[str, Any] = {}

    def skip(at: int) -> int:
        match = BLANKS.match(head, at)
        assert match is not None
        return match.end()

    try:
        at = skip(head.index("{") + 1)
        while head[at] == '"':
            key, at = decode(head, at)
            at = skip(at)
            if key == "model" or head[at] != ":":
                break
            members[key], at = decode(head, skip(at + 1))
            at = skip(at)
            if head[at] != ",":
                break
            at = skip(at + 1)
    except (ValueError, IndexError, RecursionError):
        return {}
    return members


def _splits(step: Any) -> bool:
    match step:
        case {"type": "Sequence", "pretokenizers": list(steps)}:
            return any(map(_splits, steps))
        case {"type": "ByteLevel"}:
            return bool(step.get("use_regex", True))
        case {"type": "Metaspace"}:
            return bool(step.get("split", True))
        case {"type": "Split", "pattern": {"Regex": str(pattern)}}:
            return GPT_BLANKS in pattern and not step.get("invert")
        case {"type": str(kind)}:
            return kind in SPLITTING
    return False


def _keeps_words(step: Any) -> bool:
    match step:
        case None:
            return True
        case {"type": "Sequence", "normalizers": list(steps)}:
            return all(map(_keeps_words, steps))
        case {"type": "Replace", "pattern": {"String": " "}}:
            return bool(step.get("content") == "\u2581")
        case {"type": str(kind)}:
            return kind in HARMLESS
    return False
