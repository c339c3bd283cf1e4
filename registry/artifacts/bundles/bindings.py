"""What an adapter's folder says beside its weights must be what its base says: one tokenizer, one
chat template.

PEFT and its trainers save the tokenizer next to the adapter, and some engines (vLLM) then read it
from there instead of from the base. Equal files change nothing and are kept; others would make a
model that nobody evaluated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from registry.artifacts.bundles.files import ALONE, TOKENIZER, Bundle
from registry.artifacts.tokenizers import chat_templates
from registry.artifacts.tokenizers.chat_templates import FILE, SETTINGS, Judge, Templates
from registry.documents import canonical
from registry.documents.canonical import SAFE_INTEGER, digest, sha256_hex
from registry.errors import Defect, Invalid

WHOLE = ALONE | {"vocab.json", "merges.txt", "vocab.txt"}
"""Compared by their bytes: the order of lines and keys is what the tokens are numbered by."""
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
"""Keys of tokenizer_config.json that say where it was loaded from; the chat template is judged
apart.
"""
WHOLLY = "tokenizer.json"
"""Compared key by key up to `files.MAX_HELD`, and by its bytes beyond."""
SPECIAL = "special_tokens_map.json"
ADDED = "added_tokens.json"
MOST = 3
"""Differing keys told of one file; the first is what people look for."""


@dataclass(frozen=True, slots=True)
class Texts:
    """A base's tokenizer files by digest, its parsed texts, and its chat templates."""

    digests: Mapping[str, str]
    documents: Mapping[str, Any]

    @property
    def templates(self) -> Templates | None:
        return chat_templates.templates_of(self.documents)


def texts_of(bundle: Bundle) -> Texts:
    """The part of a base that an adapter's own texts are held against."""
    kept = TOKENIZER | {FILE}
    return Texts(
        {path: file.sha256 for path, file in bundle.files.items() if path in kept},
        {path: document for path, document in bundle.documents.items() if path in kept},
    )


def check(bundle: Bundle, base: Texts | None, judge: Judge | None) -> dict[str, Any]:
    """Note what is wrong with a bundle's tokenizer and chat templates; its facts about the
    templates.

    An adapter's tokenizer must be its base's (`base` None: not bound yet, so not judged yet).
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
    """Every tokenizer file that does not say what the base's says, with the keys that differ."""
    for path in sorted(TOKENIZER & set(bundle.files)):
        if base.digests.get(path) == bundle.files[path].sha256:
            continue
        if (
            path in WHOLE
            or path not in bundle.documents
            or (path == WHOLLY and path not in base.documents)
        ):
            why = (
                "differs from the base's, byte for byte"
                if path in base.digests
                else "is no file of the base"
            )
            yield _mismatch(path, "", f"it {why}")
        else:
            try:
                yield from _documents(path, bundle.documents[path], base)
            except Invalid as error:  # half of a surrogate pair, which no two readers take alike
                yield Defect(path, "", error.kind, error.detail, error.fix)


def _documents(path: str, own: Any, base: Texts) -> Iterator[Defect]:
    known = WHOLLY not in base.digests or WHOLLY in base.documents
    if added := sorted(_added(path, own) - _known(base)) if base.digests and known else []:
        yield Defect(
            path,
            added[0][:80],
            "tokens-added",
            f"it adds {len(added)} token{'s' if len(added) > 1 else ''} to the base's: "
            f"{', '.join(repr(one[:40]) for one in added[:MOST])}",
            "A model with more tokens is another model: merge the adapter, embeddings included, "
            "and register it as a "
            "checkpoint; or train without new tokens.",
        )
        return
    other = _counterpart(path, base)
    if other is None:
        yield _mismatch(path, "", "it is no file of the base")
        return
    said = _padded(plain(path, own), plain(path, other))
    for key, mine, theirs in islice(differences(said, plain(path, other)), MOST):
        yield _mismatch(path, key, f"it says {_short(mine)}, the base says {_short(theirs)}")


def _mismatch(path: str, where: str, detail: str) -> Defect:
    return Defect(
        path,
        where,
        "tokenizer-mismatch",
        detail,
        f"Leave {path} out (import: --leave-out {path}), and the base's is used; an adapter "
        "trained with "
        "another tokenizer belongs to another base.",
    )


def _counterpart(path: str, base: Texts) -> Any:
    """What the base says on the same matter, in this file or, where it has none, in another."""
    if path in base.documents:
        return base.documents[path]
    settings = base.documents.get(SETTINGS)
    if path == SPECIAL and isinstance(settings, dict):
        return {
            key: value
            for key, value in settings.items()
            if key in (*chat_templates.TOKENS, "additional_special_tokens")
        }
    if path == ADDED and WHOLLY in base.documents:
        return _numbered(base.documents[WHOLLY])
    return None


def plain(path: str, document: Any) -> Any:
    """A document without what does not matter: where it came from, empty keys, the long form of a
    plain token.
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


def _padded(own: Any, base: Any) -> Any:
    """A document without a `pad_token` that is the base's end, unknown or start token, where the
    base names none.

    TRL and every tutorial do so to fill up batches, whose filling is masked: no text is read
    otherwise.
    """
    if not isinstance(own, dict) or not isinstance(base, dict) or "pad_token" in base:
        return own
    known = {_content(base.get(name)) for name in ("eos_token", "unk_token", "bos_token")} - {None}
    if isinstance(pad := _content(own.get("pad_token")), str) and pad in known:
        return {key: value for key, value in own.items() if key != "pad_token"}
    return own


def _content(token: Any) -> Any:
    said = token.get("content") if isinstance(token, dict) else token
    return said if isinstance(said, str) else None


def _numbered(document: Any) -> dict[str, Any]:
    """The added tokens of a tokenizer.json with their numbers."""
    added = document.get("added_tokens") if isinstance(document, dict) else None
    return {
        one["content"]: one.get("id")
        for one in added or ()
        if isinstance(one, dict) and isinstance(one.get("content"), str)
    }


def _added(path: str, document: Any) -> set[str]:
    if path == WHOLLY:
        return set(_numbered(document))
    return set(document) if path == ADDED and isinstance(document, dict) else set()


def _known(base: Texts) -> set[str]:
    """Every token the base's files name as added, and its vocabulary."""
    whole = base.documents.get(WHOLLY)
    model = whole.get("model") if isinstance(whole, dict) else None
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    words = {
        word
        for word in (vocabulary if isinstance(vocabulary, dict) else ())
        if isinstance(word, str)
    }
    also = base.documents.get(ADDED), base.documents.get("vocab.json")
    return (
        words
        | set(_numbered(whole))
        | {word for one in also if isinstance(one, dict) for word in one}
    )


def differences(own: Any, other: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(key, own value, other value) of every place where two JSON documents differ, outermost
    first.
    """
    if isinstance(own, dict) and isinstance(other, dict):
        for key in sorted({*own, *other}):
            yield from differences(
                own.get(key), other.get(key), f"{path}.{key}" if path else str(key)
            )
    elif written(own) != written(other):
        yield path, own, other


def written(value: Any) -> bytes:
    """The canonical form, with whole numbers it cannot carry as texts: transformers writes a
    `model_max_length` of 1e30.
    """

    def carried(value: Any) -> Any:
        match value:
            case dict():
                return {key: carried(one) for key, one in value.items()}
            case list():
                return [carried(one) for one in value]
            case int() if abs(value) > SAFE_INTEGER:
                return f"integer {value}"
            case _:
                return value

    return canonical.encode(carried(value), large_floats=True)


def _short(value: Any) -> str:
    if value is None:
        return "nothing"
    text = written(value).decode()
    return text if len(text) <= 60 else f"{text[:57]}..."


def tokenizer_identity(files: Mapping[str, str], documents: Mapping[str, Any]) -> str | None:
    """What of a base's tokenizer enters its base root; `files` holds hex SHA-256 by path. None:
    there is none.

    tokenizer.json is whole in itself. A SentencePiece model beside it is another whole one, which
    some engines read instead: then both are meant. Without it the vocabulary, the merges and the
    small files make the tokenizer together, each by its bytes or, where only its meaning counts, by
    its canonical form.
    """
    if WHOLLY in files:
        alone = {path: files[path] for path in sorted(ALONE & set(files))}
        return digest({WHOLLY: files[WHOLLY], **alone}) if alone else files[WHOLLY]
    parts = {}
    for path in sorted(TOKENIZER & set(files)):
        meaning = plain(path, documents[path]) if path in documents and path not in WHOLE else None
        if meaning == {}:
            continue
        parts[path] = files[path] if meaning is None else sha256_hex(written(meaning))
    return digest(parts) if parts else None
