"""The texts of a base that say how it is asked, and the beginning of its tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from registry.artifacts.tokenizers.chat_templates import FILE, SETTINGS
from registry.artifacts.weights.tensors import File, Read, fetch
from registry.documents.strict_json import loads
from registry.errors import RegistryError

TEXTS = (FILE, SETTINGS, "special_tokens_map.json")
MAX_TEXT_BYTES = 4 << 20
"""Bytes of one of these files; the registry accepts no larger tokenizer_config.json."""
MAX_HEAD_BYTES = 1 << 20
"""Bytes of the beginning of tokenizer.json that are read: what stands before its vocabulary."""


def documents_of(files: Sequence[File], read: Read) -> dict[str, Any]:
    """The parsed files of a bundle that hold chat templates and special tokens.

    Damaged ones are left out: whoever loads them says what is wrong.
    """
    documents: dict[str, Any] = {}
    for file in files:
        if file.path in TEXTS and file.size <= MAX_TEXT_BYTES:
            with suppress(RegistryError, UnicodeDecodeError):
                data = fetch(file, read, 0, file.size)
                documents[file.path] = data.decode() if file.path == FILE else loads(data)
    return documents


def tokenizer_head(files: Sequence[File], read: Read) -> str:
    """The beginning of tokenizer.json; empty without such a file."""
    file = next((file for file in files if file.path == "tokenizer.json"), None)
    if file is None:
        return ""
    return fetch(file, read, 0, min(file.size, MAX_HEAD_BYTES)).decode("utf-8", "replace")
