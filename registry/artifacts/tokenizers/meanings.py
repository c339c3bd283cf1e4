"""What a tokenizer.json means: the ids it gives to texts and the texts it gives to ids.

Two releases write the same tokenizer in different bytes. Compared is what changes ids, text or
special tokens: the model, its vocabulary and merges, the steps before and after, and the added
tokens. Truncation and padding are settings of each call, which transformers sets anew.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from registry.artifacts.tokenizers import pipelines
from registry.artifacts.tokenizers.chat_templates import TOKENS
from registry.artifacts.tokenizers.tables import Table, Unreadable
from registry.documents.json_streams import outline
from registry.documents.strict_json import MAX_BUNDLE_VALUES, Allowance

MAX_SMALL_CHARACTERS = 4 << 20
"""Characters of JSON that everything but vocabulary and merges may have."""
MAX_DIGITS = 20
"""A longer id is no id of any tokenizer."""
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
TABLES = ("vocab", "merges")
GENERIC = frozenset({"PreTrainedTokenizer", "Tokenizers"})
"""Families of classes that take a tokenizer.json exactly as it is."""
ENDINGS = ("Fast", "Backend")
"""What ends the name of a class by release and backend."""

Token = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Meaning:
    """A tokenizer reduced to what changes its answers.

    `steps` are the model's settings and the four steps by name. `added` are the added tokens by
    text: their id and flags.
    """

    steps: Mapping[str, Any]
    added: Mapping[str, Token]
    vocabulary: Table
    merges: Table

    def id_of(self, token: str) -> int | None:
        """The id of an added token, or of a token of the vocabulary that was sought."""
        listed = self.added.get(token)
        number = self.vocabulary.numbers.get(token) if listed is None else listed["id"]
        return number if type(number) is int else None

    def loaded(self, settings: Any, *, rebuilt: bool = True) -> Meaning:
        """What transformers makes of it with a tokenizer_config.json.

        `added_tokens_decoder` takes precedence over the ids and flags in tokenizer.json, and
        replaces its added tokens for a class that builds its tokenizer itself. A stated
        `add_bos_token` or `add_eos_token` decides what stands around a text. A word of the
        vocabulary that is named as a special token becomes one. Unless `rebuilt`, a class that
        builds its steps itself takes those of the file, as releases before 5 do.
        """
        if not isinstance(settings, dict):
            return self
        added, listed = dict(self.added), settings.get("added_tokens_decoder")
        replaced = isinstance(listed, dict) and rebuilt and not takes_file(settings)
        if isinstance(listed, dict):
            added = ({} if replaced else added) | _listed(listed)
        for text in named_texts(settings):
            number = self.id_of(text)
            if text not in added and number is not None:
                if replaced:
                    number = self.vocabulary.number(text, added.values())
                added[text] = _flags({"special": True}) | {"id": number}
        steps = self.steps
        if rebuilt and steps and is_rebuilt(settings.get("tokenizer_class")):
            steps = {**steps, **pipelines.llama(settings)}
        return replace(self, added=added, steps=self._with_edges(steps, settings))

    def _with_edges(
        self, steps: Mapping[str, Any], settings: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        stated = [settings.get(f"add_{edge}_token") for edge in ("bos", "eos")]
        if not any(isinstance(value, bool) for value in stated):
            return steps
        ids = [
            self.id_of(text) if value is True and (text := content(settings, edge)) else None
            for value, edge in zip(stated, ("bos_token", "eos_token"), strict=True)
        ]
        present = pipelines.edges(steps.get("post_processor"))
        if all(
            value is None or number == at
            for value, number, at in zip(stated, ids, present, strict=True)
        ):
            return steps
        return {**steps, "post_processor": pipelines.adding(*ids)}

    def special(self) -> set[str]:
        """The added tokens that are left out of a decoded text when the caller asks for that."""
        return {text for text, token in self.added.items() if token["special"]}


EXTRA = ("additional_special_tokens", "extra_special_tokens", "model_specific_special_tokens")
"""The keys of further special tokens by release: they are among the added tokens."""


def extra_texts(settings: Mapping[str, Any]) -> list[str]:
    """The texts of all special tokens beside the named ones."""
    texts: list[str] = []
    for key in EXTRA:
        tokens = settings.get(key)
        if isinstance(tokens, dict):
            tokens = list(tokens.values())
        for token in tokens if isinstance(tokens, list) else ():
            text = token.get("content") if isinstance(token, dict) else token
            texts += [text] if isinstance(text, str) else []
    return texts


def named_texts(settings: Mapping[str, Any]) -> list[str]:
    """The texts of all special tokens that a tokenizer_config.json names."""
    named = [text for name in TOKENS if (text := content(settings, name)) is not None]
    return named + extra_texts(settings)


def is_rebuilt(name: Any) -> bool:
    """Whether a tokenizer class builds its steps itself and ignores those of tokenizer.json.

    Llama's does since transformers 5: what it saves differs from the file that it has loaded.
    """
    return name in ("LlamaTokenizer", "LlamaTokenizerFast")


def takes_file(settings: Mapping[str, Any]) -> bool:
    """Whether the tokenizer class takes a tokenizer.json exactly as it is.

    Any other class takes only vocabulary and merges since transformers 5.
    """
    return family(settings.get("tokenizer_class")) in GENERIC


def family(name: Any) -> str | None:
    """A tokenizer class without what differs by release: `Qwen2TokenizerFast` is `Qwen2`."""
    if not isinstance(name, str):
        return None
    for ending in ENDINGS:
        name = name.removesuffix(ending)
    return str(name if name in GENERIC else name.removesuffix("Tokenizer"))


def content(settings: Mapping[str, Any], name: str) -> str | None:
    """The text of a named special token, which may be written with its flags."""
    token = settings.get(name)
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None


def read(
    pieces: Iterator[bytes], *, span: tuple[str, int] | None = None, seek: Collection[str] = ()
) -> Meaning:
    """Read a tokenizer.json by pieces; a span of one of its tables is kept, as `Table` says.

    Raises Unreadable for a form that is not known here.
    """
    collector = _Collector(span, seek)
    outline(pieces, Allowance(MAX_BUNDLE_VALUES), take=collector.take)
    return collector.meaning()


def of_document(
    document: dict[str, Any], *, span: tuple[str, int] | None = None, seek: Collection[str] = ()
) -> Meaning:
    """The same for a tokenizer.json that was parsed whole, with its tokens in any order."""
    collector = _Collector(span, seek)
    model = document.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(model, dict) and isinstance(vocabulary, dict):
        document = {**document, "model": {**model, "vocab": by_number(vocabulary)}}
    collector.take((), document)
    return collector.meaning()


def by_number(vocabulary: dict[str, Any]) -> dict[str, Any]:
    """Tokens in the order of their numbers."""
    if not all(type(number) is int for number in vocabulary.values()):
        raise Unreadable("a token has no whole number")
    return dict(sorted(vocabulary.items(), key=lambda item: item[1]))


class _Collector:
    """Receives what is read: tables become digests, and everything else is kept."""

    def __init__(self, span: tuple[str, int] | None, seek: Collection[str]) -> None:
        kept = dict([span] if span else [])
        self.tables = {
            "vocab": Table(kept.get("vocab"), seek),
            "merges": Table(kept.get("merges")),
        }
        self.document: dict[str, Any] = {}
        self._room = MAX_SMALL_CHARACTERS

    def take(self, path: tuple[str | int, ...], elements: Any) -> None:
        self._seek_added(self.document)
        if path == ():
            self._seek_added(elements)
        if path[:1] == ("model",) and len(path) > 1 and path[1] in TABLES:
            if len(path) > 2:
                raise Unreadable("an entry of its vocabulary is too long")
            self.tables[str(path[1])].add(elements)
            return
        if path == () and isinstance(inner := elements.get("model"), dict):
            elements = elements | {"model": self._without_tables(inner)}
        if path == ("model",):
            elements = self._without_tables(elements)
        self._room -= len(json.dumps(elements))
        if self._room < 0:
            raise Unreadable(
                f"it has more than {MAX_SMALL_CHARACTERS} characters beside its vocabulary"
            )
        place: Any = self.document
        for key in path[:-1]:
            place = place[key]
        if path and not elements:
            empty: Any = {} if isinstance(elements, dict) else []
            if isinstance(place, list):
                place.append(empty)
            else:
                place.setdefault(path[-1], empty)
            return
        place = place[path[-1]] if path else place
        if isinstance(place, list):
            place.extend(elements)
        else:
            place.update(elements)

    def _seek_added(self, document: Mapping[str, Any]) -> None:
        """Seek the added tokens in a vocabulary that is not read yet."""
        if self.tables["vocab"].count == 0 and isinstance(
            added := document.get("added_tokens"), list
        ):
            texts = (token.get("content") for token in added if isinstance(token, dict))
            self.tables["vocab"].seek(text for text in texts if isinstance(text, str))

    def _without_tables(self, model: dict[str, Any]) -> dict[str, Any]:
        for name in TABLES:
            if model.get(name) is not None:
                self.tables[name].add(model[name])
        return {key: value for key, value in model.items() if key not in TABLES or value is None}

    def meaning(self) -> Meaning:
        model, added = self.document.get("model"), self.document.get("added_tokens") or []
        if not isinstance(model, dict) or not isinstance(added, list):
            raise Unreadable("it has no model")
        for key in ("truncation", "padding"):
            if not isinstance(self.document.get(key), dict | None):
                raise Unreadable(f"its {key} is no object")
        kind = model
        if "merges" in model or self.tables["merges"].count:
            kind = {**model, "merges": None}
        steps: dict[str, Any] = {"model": pipelines.model(kind)}
        for part in pipelines.PARTS:
            steps[part] = pipelines.step(part, self.document.get(part))
        steps["puts_blank"] = pipelines.puts_blank(
            self.document.get("normalizer"), self.document.get("pre_tokenizer")
        )
        return Meaning(steps, self._added(added), self.tables["vocab"], self.tables["merges"])

    def _added(self, listed: list[Any]) -> dict[str, Token]:
        """The added tokens with the ids they get: by their order, whatever id is stated.

        A token of the vocabulary keeps its id. Classes of transformers that build their tokenizer
        themselves order them by the stated id, so the two orders must agree.
        """
        vocabulary, tokens = self.tables["vocab"], dict[str, Token]()
        last = -1
        for token in listed:
            text = token.get("content") if isinstance(token, dict) else None
            if not isinstance(text, str) or not text or text in tokens:
                raise Unreadable("an added token has no text, or is listed twice")
            if type(token.get("id")) is not int:
                raise Unreadable(f"its added token {text[:40]!r} has no whole number as its id")
            if not vocabulary.sought(text):
                raise Unreadable("its added_tokens stand behind its model")
            if text not in vocabulary.numbers:
                if token["id"] <= last:
                    raise Unreadable(
                        f"its added token {text[:40]!r} has the id {token['id']} and stands behind "
                        f"one with the id {last}, but the library assigns ids by order"
                    )
                last = token["id"]
            tokens[text] = _flags(token) | {"id": vocabulary.number(text, tokens.values())}
        return tokens


def _flags(token: Mapping[str, Any]) -> dict[str, Any]:
    return {flag: token.get(flag, False) for flag in FLAGS}


def _listed(listed: Mapping[str, Any]) -> dict[str, Token]:
    """The tokens of an `added_tokens_decoder` in the order of their ids.

    A flag `normalized` that is not stated is the opposite of `special`, as in AddedToken.
    """
    numbered = [
        (int(key) if len(key) < MAX_DIGITS and key.isdecimal() and key.isascii() else key, token)
        for key, token in listed.items()
    ]
    tokens: dict[str, Token] = {}
    for number, token in sorted(numbered, key=lambda pair: (isinstance(pair[0], str), pair[0])):
        if isinstance(token, dict) and isinstance(text := token.get("content"), str):
            first = tokens[text]["id"] if text in tokens else number
            flags = _flags({"normalized": not token.get("special", False)} | token)
            tokens[text] = flags | {"id": first}
    return tokens
