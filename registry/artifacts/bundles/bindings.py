"""What an adapter's other files say: they must hold the tokenizer and chat template of its base.

PEFT and its trainers save the tokenizer next to the adapter, and some engines (vLLM) then read it
from there instead of from the base. Files of the same meaning change nothing and are kept. Others
would make a model that nobody evaluated.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from registry.artifacts.bundles.comparisons import tokenizer_defects
from registry.artifacts.bundles.files import Bundle
from registry.artifacts.bundles.names import ALONE, TOKENIZER
from registry.artifacts.bundles.texts import FAST_TOKENIZER, Texts
from registry.artifacts.tokenizers import chat_templates
from registry.artifacts.tokenizers.chat_templates import SETTINGS, SPECIAL, Judge
from registry.documents.canonical import digest, sha256_hex
from registry.documents.differences import written

WHOLE = ALONE | {"vocab.json", "merges.txt", "vocab.txt"}
"""Files that enter a base root by their bytes."""
INERT = frozenset(
    {
        "chat_template",
        "name_or_path",
        "is_local",
        "local_files_only",
        "special_tokens_map_file",
        "transformers_version",
        "processor_class",
    }
)
"""Keys of tokenizer_config.json that enter no base root.

The chat template among them is judged apart.
"""


def check(bundle: Bundle, base: Texts | None, judge: Judge | None) -> dict[str, Any]:
    """Add the defects of a bundle's tokenizer and chat templates, and return the templates' facts.

    An adapter's tokenizer must be its base's. When `base` is None the adapter is not bound yet, and
    its tokenizer is not judged.
    """
    if bundle.kind == "adapter" and base is not None:
        bundle.defects.extend(tokenizer_defects(bundle, base))
    tokens = chat_templates.tokens_of(base.documents if base else bundle.documents)
    facts, defects = chat_templates.check(
        bundle.kind, bundle.documents, base.templates if base else None, tokens, judge
    )
    bundle.defects.extend(defects)
    return facts


def plain(path: str, document: Any) -> Any:
    """A document without the parts that do not change the tokenizer.

    It leaves out where the tokenizer came from, empty keys, and the long form of a plain token.
    """
    if not isinstance(document, dict):
        return document
    if path == SETTINGS:
        return {
            key: value for key, value in document.items() if key not in INERT and value is not None
        }
    if path == SPECIAL:
        return {
            key: value.get("content") if isinstance(value, dict) else value
            for key, value in document.items()
            if value is not None
        }
    return document


def tokenizer_identity(files: Mapping[str, str], documents: Mapping[str, Any]) -> str | None:
    """The identity of a tokenizer for the base root; None when there is no tokenizer.

    `files` maps paths to hex SHA-256. tokenizer.json is a complete tokenizer. A SentencePiece model
    beside it is another one, which some engines read instead, so both count. Without
    tokenizer.json, the vocabulary, the merges and the small files make the tokenizer together. Each
    counts by its bytes or, where only its meaning matters, by its canonical form.
    """
    if FAST_TOKENIZER in files:
        alone = {path: files[path] for path in sorted(ALONE & set(files))}
        return (
            digest({FAST_TOKENIZER: files[FAST_TOKENIZER], **alone})
            if alone
            else files[FAST_TOKENIZER]
        )
    parts = {}
    for path in sorted(TOKENIZER & set(files)):
        meaning = plain(path, documents[path]) if path in documents and path not in WHOLE else None
        if meaning == {}:
            continue
        parts[path] = files[path] if meaning is None else sha256_hex(written(meaning))
    return digest(parts) if parts else None
