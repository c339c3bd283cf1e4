"""The texts of a stored bundle that say how it is asked."""

from __future__ import annotations

import json

import pytest

from registry.artifacts.bundles.texts import documents_of
from registry.artifacts.tokenizers.chat_templates import FILE, SETTINGS, SPECIAL, templates_of
from registry.artifacts.weights.tensors import File
from registry.errors import Unverified
from tests.artifacts.bundle_files import declared


def test_a_large_tokenizer_config_is_read_as_far_as_the_registry_accepts_it() -> None:
    """Gemma's has 1.2 MB, with the chat template in it."""
    large = json.dumps({"chat_template": "hello", "note": "x" * (2 << 20)}).encode()
    listed, read = declared({SETTINGS: large, SPECIAL: b"{", "config.json": b"{}"})
    documents = documents_of(listed, read)
    assert documents.keys() == {SETTINGS}  # the damaged one is left out
    templates = templates_of(documents)
    assert templates is not None
    assert templates.texts == {"default": "hello"}


def test_missing_bytes_are_no_missing_template() -> None:
    listed, read = declared({SETTINGS: b"{}"})
    lost = File(FILE, "0" * 64, 5)
    with pytest.raises(Unverified, match="no bytes"):
        documents_of([*listed, lost], read)
