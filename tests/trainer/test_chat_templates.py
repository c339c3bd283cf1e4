"""Genuine chat templates: none is refused, and they render here exactly as transformers renders
them.
"""

from __future__ import annotations

import shutil
from datetime import datetime
from pathlib import Path

import pytest
import trl
from transformers import AutoTokenizer

from registry.artifacts.bundles.judge import base_facts, inspect
from registry.artifacts.tokenizers import sandbox
from registry.artifacts.tokenizers.chat_templates import HIDDEN
from registry.artifacts.tokenizers.conversations import GOLDEN
from registry.artifacts.weights.tensors import File
from registry.client.sources import choose
from registry.documents.canonical import sha256_hex

TEMPLATES = {
    path.stem: path
    for path in sorted((Path(trl.__file__).parent / "chat_templates").glob("*.jinja"))
}
RENDERED = (
    "llama3_1",
    "qwen3",
    "gemma3",
    "phi3",
    "deepseekv3",
    "gptoss",
    "cohere",
    "qwen3_training",
)


def test_none_of_those_in_use_is_refused() -> None:
    assert len(TEMPLATES) > 50
    names = list(TEMPLATES)
    for first in range(0, len(names), 12):
        texts = {
            name: TEMPLATES[name].read_text(encoding="utf-8") for name in names[first : first + 12]
        }
        assert sandbox.look(texts, None) == []
        assert not any(HIDDEN.search(text) for text in texts.values())


@pytest.mark.parametrize("name", RENDERED)
def test_they_render_as_transformers_renders_them(base: Path, name: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base)
    text = TEMPLATES[name].read_text(encoding="utf-8")
    assert sandbox.look({"default": text}, dict(tokenizer.special_tokens_map)) == []
    for one in (GOLDEN[2], GOLDEN[3], GOLDEN[4], GOLDEN[6]):
        try:
            expected: str | None = tokenizer.apply_chat_template(
                list(one.messages),
                tools=list(one.tools) if one.tools else None,
                chat_template=text,
                tokenize=False,
                add_generation_prompt=one.add_generation_prompt,
            )
        except Exception:
            expected = None
        given = {
            **tokenizer.special_tokens_map,
            "messages": list(one.messages),
            "documents": None,
            "tools": list(one.tools) if one.tools else None,
            "add_generation_prompt": one.add_generation_prompt,
        }
        found = sandbox.render(text, given, datetime.now().isoformat())
        assert (found.text, found.failed) == (expected, None), one.title
        assert (found.raised is None) is (expected is not None)


def test_a_tokenizer_saved_beside_an_adapter_is_its_base_s_until_it_is_changed(
    base: Path, tmp_path: Path
) -> None:
    """What PEFT's trainers leave: the tokenizer they loaded, saved again next to the adapter."""
    from tests.artifacts.bundle_files import adapter_files

    folder = tmp_path / "output"
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.save_pretrained(folder)
    for path, data in adapter_files().items():
        (folder / path).write_bytes(data)

    def listed(kind: str, where: Path) -> tuple[list[File], dict[str, bytes]]:
        held = {inside: path.read_bytes() for path, inside in choose(kind, where).files}
        return (
            [File(path, sha256_hex(data), len(data)) for path, data in held.items()],
            {sha256_hex(data): data for data in held.values()},
        )

    def about_texts(where: Path) -> list[tuple[str, str, str]]:
        files, held = listed("base", base)
        facts = base_facts(files, lambda sha, at, length: held[sha][at : at + length])
        files, own = listed("adapter", where)
        found = inspect(
            "adapter",
            files,
            lambda sha, at, length: own[sha][at : at + length],
            base=facts,
            meta={},
        )
        return [
            (one.file, one.where, one.rule)
            for one in found.defects
            if one.file not in ("adapter_model.safetensors", "adapter_config.json")
        ]

    assert {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"} <= {
        path.name for path in folder.iterdir()
    }
    assert about_texts(folder) == []
    changed = shutil.copytree(folder, tmp_path / "changed")
    tokenizer.add_special_tokens({"eos_token": "<start>"})
    tokenizer.save_pretrained(changed)
    assert about_texts(changed) == [("tokenizer_config.json", "eos_token", "tokenizer-mismatch")]
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(changed)
    assert ("tokenizer.json", "<new>", "tokens-added") in about_texts(changed)
