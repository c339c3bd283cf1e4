"""What an adapter's other files say: they must hold the tokenizer and chat template of its base.

PEFT and its trainers save the tokenizer next to the adapter, and some engines (vLLM) then read it
from there instead of from the base. Equal files change nothing and are kept. Different files would
make a model that nobody evaluated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from registry.artifacts.bundles.files import Bundle
from registry.artifacts.bundles.names import ALONE, TOKENIZER
from registry.artifacts.tokenizers import chat_templates
from registry.artifacts.tokenizers.chat_templates import FILE, SETTINGS, Judge, Templates
from registry.documents import canonical
from registry.documents.canonical import SAFE_INTEGER, digest, sha256_hex
from registry.errors import Defect, Invalid

WHOLE = ALONE | {"vocab.json", "merges.txt", "vocab.txt"}
"""Files compared by their bytes: tokens are numbered by the order of the lines and keys."""
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
"""Keys of tokenizer_config.json that do not change the tokenizer.

The chat template among them is judged apart.
"""
FAST_TOKENIZER = "tokenizer.json"
"""Compared key by key up to `files.MAX_PARSED_BYTES`, and by its bytes beyond."""
SPECIAL = "special_tokens_map.json"
ADDED = "added_tokens.json"
MAX_LISTED_KEYS = 3
"""Differing keys reported for one file."""


@dataclass(frozen=True, slots=True)
class Texts:
    """A base's tokenizer files by digest, its parsed texts, and its chat templates."""

    digests: Mapping[str, str]
    documents: Mapping[str, Any]

    @property
    def templates(self) -> Templates | None:
        """The base's chat templates, if it has any."""
        return chat_templates.templates_of(self.documents)


def texts_of(bundle: Bundle) -> Texts:
    """The texts of a base with which an adapter's own texts are compared."""
    compared = TOKENIZER | {FILE}
    return Texts(
        {path: file.sha256 for path, file in bundle.files.items() if path in compared},
        {path: document for path, document in bundle.documents.items() if path in compared},
    )


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


def tokenizer_defects(bundle: Bundle, base: Texts) -> Iterator[Defect]:
    """A defect for each tokenizer file that differs from the base's, with the keys that differ."""
    for path in sorted(TOKENIZER & set(bundle.files)):
        if base.digests.get(path) == bundle.files[path].sha256:
            continue
        if (
            path in WHOLE
            or path not in bundle.documents
            or (path == FAST_TOKENIZER and path not in base.documents)
        ):
            detail = (
                "its bytes differ from those of the base's file"
                if path in base.digests
                else "the base has no such file"
            )
            yield _mismatch(path, "", detail)
        else:
            try:
                yield from _document_defects(path, bundle.documents[path], base)
            except Invalid as error:  # half of a surrogate pair, which readers treat differently
                yield Defect(path, "", error.kind, error.detail, error.fix)


def _document_defects(path: str, own: Any, base: Texts) -> Iterator[Defect]:
    known = FAST_TOKENIZER not in base.digests or FAST_TOKENIZER in base.documents
    if added := sorted(_added(path, own) - _known(base)) if base.digests and known else []:
        yield Defect(
            path,
            added[0][:80],
            "tokens-added",
            f"it adds {len(added)} token{'s' if len(added) > 1 else ''} to the base's: "
            f"{', '.join(repr(token[:40]) for token in added[:MAX_LISTED_KEYS])}",
            "A model with more tokens is another model. Merge the adapter, embeddings included, "
            "and register it as a checkpoint, or train without new tokens.",
        )
        return
    other = _counterpart(path, base)
    if other is None:
        yield _mismatch(path, "", "the base has no such file")
        return
    expected = plain(path, other)
    own = _without_padding(plain(path, own), expected)
    for key, received, value in islice(differences(own, expected), MAX_LISTED_KEYS):
        yield _mismatch(path, key, f"it has {short(received)}, the base has {short(value)}")


def _mismatch(path: str, where: str, detail: str) -> Defect:
    return Defect(
        path,
        where,
        "tokenizer-mismatch",
        detail,
        f"Leave {path} out (import --leave-out {path}), so that the base's is used. An adapter "
        "trained with another tokenizer belongs to another base.",
    )


def _counterpart(path: str, base: Texts) -> Any:
    """The base's document on the same subject: this file or, if the base lacks it, another one."""
    if path in base.documents:
        return base.documents[path]
    settings = base.documents.get(SETTINGS)
    if path == SPECIAL and isinstance(settings, dict):
        return {
            key: value
            for key, value in settings.items()
            if key in (*chat_templates.TOKENS, "additional_special_tokens")
        }
    if path == ADDED and FAST_TOKENIZER in base.documents:
        return _numbered(base.documents[FAST_TOKENIZER])
    return None


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


def _without_padding(own: Any, base: Any) -> Any:
    """A document without a harmless `pad_token`.

    Where the base names no padding token, the adapter may use the base's end, unknown or start
    token. TRL and every tutorial do so to fill up batches. The filling is masked, so every text is
    still read in the same way.
    """
    if not isinstance(own, dict) or not isinstance(base, dict) or "pad_token" in base:
        return own
    known = {_content(base.get(name)) for name in ("eos_token", "unk_token", "bos_token")} - {None}
    if isinstance(pad := _content(own.get("pad_token")), str) and pad in known:
        return {key: value for key, value in own.items() if key != "pad_token"}
    return own


def _content(token: Any) -> Any:
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None


def _numbered(document: Any) -> dict[str, Any]:
    """The added tokens of a tokenizer.json with their numbers."""
    added = document.get("added_tokens") if isinstance(document, dict) else None
    return {
        token["content"]: token.get("id")
        for token in added or ()
        if isinstance(token, dict) and isinstance(token.get("content"), str)
    }


def _added(path: str, document: Any) -> set[str]:
    if path == FAST_TOKENIZER:
        return set(_numbered(document))
    return set(document) if path == ADDED and isinstance(document, dict) else set()


def _known(base: Texts) -> set[str]:
    """Every token that the base's files list as added, and its vocabulary."""
    whole = base.documents.get(FAST_TOKENIZER)
    model = whole.get("model") if isinstance(whole, dict) else None
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    words = {
        word
        for word in (vocabulary if isinstance(vocabulary, dict) else ())
        if isinstance(word, str)
    }
    tables = base.documents.get(ADDED), base.documents.get("vocab.json")
    listed = {word for table in tables if isinstance(table, dict) for word in table}
    return words | set(_numbered(whole)) | listed


def differences(own: Any, other: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Each place where two JSON documents differ, outermost first: key, own value, other value."""
    if isinstance(own, dict) and isinstance(other, dict):
        for key in sorted({*own, *other}):
            yield from differences(
                own.get(key), other.get(key), f"{path}.{key}" if path else str(key)
            )
    elif written(own) != written(other):
        yield path, own, other


def written(value: Any) -> bytes:
    """The canonical form, with integers beyond 2**53 - 1 written as texts.

    transformers writes a `model_max_length` of 1e30. Raises Invalid (`not-canonical`).
    """

    def carried(value: Any) -> Any:
        match value:
            case dict():
                return {key: carried(item) for key, item in value.items()}
            case list():
                return [carried(item) for item in value]
            case int() if abs(value) > SAFE_INTEGER:
                return f"integer {value}"
            case _:
                return value

    return canonical.encode(carried(value), large_floats=True)


def short(value: Any) -> str:
    """A JSON value for a message, in at most 60 characters."""
    if value is None:
        return "nothing"
    text = written(value).decode()
    return text if len(text) <= 60 else f"{text[:57]}..."


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
