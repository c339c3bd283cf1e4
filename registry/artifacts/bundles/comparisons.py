"""An adapter's tokenizer files compared with those of its base, by meaning.

Every file must agree by itself, since readers differ in which of them they prefer. What a file says
together with tokenizer_config.json must agree too.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import islice
from typing import Any

from registry.artifacts.bundles.files import Bundle
from registry.artifacts.bundles.names import TOKENIZER
from registry.artifacts.bundles.texts import ADDED, FAST_TOKENIZER, Texts, texts_of
from registry.artifacts.tokenizers import settings
from registry.artifacts.tokenizers.chat_templates import SETTINGS, SPECIAL
from registry.artifacts.tokenizers.meanings import Meaning, content, named_texts
from registry.artifacts.tokenizers.tables import SPAN, Table, Unreadable
from registry.documents.differences import differences, short
from registry.errors import Defect, Invalid

MAX_LISTED_KEYS = 3
"""Differences reported for each file."""
NO_COUNTERPART = "the base has no such file"
TABLES = {"vocab.json": "vocab", "vocab.txt": "vocab", "merges.txt": "merges"}
ODD_FORMS = (AttributeError, IndexError, KeyError, TypeError, ValueError)
"""What a part of another kind than expected leads to: a list where an object belongs."""
Difference = tuple[str, str]
"""Where two tokenizers differ, and what each of them has."""


def tokenizer_defects(bundle: Bundle, base: Texts) -> Iterator[Defect]:
    """A defect for each tokenizer file that makes another tokenizer than the base's, by key."""
    own = texts_of(bundle)
    comparison = Comparison(own, base)
    unsound = {defect.file for defect in bundle.defects}
    for path in sorted((TOKENIZER & set(own.files)) - unsound):
        if path in base.files and base.files[path].sha256 == own.files[path].sha256:
            continue
        try:
            yield from islice(comparison.defects(path), MAX_LISTED_KEYS)
        except Unreadable as error:
            yield _mismatch(path, "", f"it cannot be compared: {error}")
        except ODD_FORMS:  # whoever wrote the file, no reader knows what it means
            yield _mismatch(path, "", "it cannot be compared: a part has an unexpected form")
        except Invalid as error:  # half of a surrogate pair, which readers treat differently
            yield Defect(path, "", error.kind, error.detail, error.fix)


class Comparison:
    """The files of an adapter and of its base, read once when they are needed."""

    def __init__(self, own: Texts, base: Texts) -> None:
        self.own, self.base = own, base
        self._own_settings, self._base_settings = own.settings, base.settings
        self._added = own.documents.get(ADDED) or {}
        self._seek = {
            *named_texts(self._own_settings),
            *named_texts(self._base_settings),
            *self._added,
        }

    @cached_property
    def _own_file(self) -> Meaning | None:
        """The adapter's tokenizer.json, or the base's where it brings none."""
        return self.own.meaning(self._seek) if FAST_TOKENIZER in self.own.files else self._base_file

    @cached_property
    def _base_file(self) -> Meaning | None:
        own = self._own_file if FAST_TOKENIZER in self.own.files else None
        return self.base.meaning(self._seek | set(own.added if own else ()))

    @cached_property
    def _base_loaded(self) -> Meaning:
        """The base's tokenizer as it is loaded, or its added tokens without a tokenizer.json."""
        file = self._base_file or Meaning({}, {}, Table(), Table())
        return file.loaded(self._base_settings)

    @cached_property
    def _readings(self) -> list[Meaning]:
        """What the base's files mean: as releases before 5 load them, and as later ones do."""
        if self._base_file is None:
            return [self._base_loaded]
        return [self._base_file.loaded(self._base_settings, rebuilt=False), self._base_loaded]

    @cached_property
    def _differs(self) -> list[Difference]:
        """Where the adapter's tokenizer.json differs from what the base's files mean."""
        own, base = self._own_file, self._base_file
        if own is None or base is None or own is base:
            return []
        return self._least(own, [base, *self._readings])

    def _least(self, own: Meaning, readings: list[Meaning]) -> list[Difference]:
        """The differences from the reading of the base that is nearest, the first among equals."""
        return min((list(self._compare(own, reading)) for reading in readings), key=len)

    def defects(self, path: str) -> Iterator[Defect]:
        """The defects of a file whose bytes are not the base's. Raises Unreadable."""
        if path == FAST_TOKENIZER:
            yield from self._whole()
        elif path in (SETTINGS, SPECIAL):
            yield from self._settings(path)
        elif path == ADDED:
            yield from self._numbers()
        elif path in TABLES:
            yield from self._table(path)
        elif path in self.base.files:
            yield _mismatch(path, "", "its bytes differ from those of the base's file")
        else:
            yield _mismatch(path, "", NO_COUNTERPART)

    def _whole(self) -> Iterator[Defect]:
        own, base = self._own_file, self._base_file
        if own is None or base is None:
            yield _incomparable(FAST_TOKENIZER, sorted(TOKENIZER & self.base.files.keys()))
            return
        known = self._base_loaded
        if new := [text for text in own.added if known.id_of(text) is None]:
            yield self._new(FAST_TOKENIZER, new)
            return
        for where, detail in self._differs:
            yield _mismatch(FAST_TOKENIZER, where, detail)

    def _settings(self, path: str) -> Iterator[Defect]:
        own, base = self.own.documents.get(path), self._base_settings
        if not isinstance(own, dict):
            yield _mismatch(path, "", NO_COUNTERPART)
            return
        if not self.base.files:
            yield _mismatch(path, "", "the base has no tokenizer")
            return
        known, named = self._base_loaded, named_texts(base)
        new = [text for text in named_texts(own) if known.id_of(text) is None]
        new = [text for text in new if text not in named] if known.steps and base else []
        if new:
            yield self._new(path, new)
            return
        if path == SPECIAL:
            own = {"tokenizer_class": self._own_settings.get("tokenizer_class"), **base, **own}
        compared = list(settings.differences(own, base, known, self.base.kind))
        if compared and not base:
            yield _mismatch(path, "", NO_COUNTERPART)
            return
        for key, received, expected in compared:
            detail = f"it has {short(received)}, the base has {short(expected)}"
            yield _mismatch(path, key, detail)
        yield from self._padding(path, own)
        file = self._own_file if path == SETTINGS and self._base_file else None
        if file is not None and not self._differs:
            yield from self._loaded(file.loaded(self._own_settings))

    def _loaded(self, own: Meaning) -> Iterator[Defect]:
        """What tokenizer_config.json makes of a tokenizer.json that agrees by itself."""
        if new := [text for text in own.added if self._base_loaded.id_of(text) is None]:
            yield self._new(SETTINGS, new)
            return
        for where, detail in self._least(own, self._readings):
            key = where.replace("added_tokens", "added_tokens_decoder", 1)
            key = "add_bos_token, add_eos_token" if where.startswith("post_processor") else key
            yield _mismatch(SETTINGS, key, detail)

    def _new(self, path: str, new: list[str]) -> Defect:
        """The defect of tokens that the base lacks; one that only pads can stay behind."""
        fix = (
            "A model with more tokens is another model. Merge the adapter, embeddings included, "
            "and register it as a checkpoint, or train without new tokens."
        )
        padding = content(self._own_settings, "pad_token")
        if new == [padding] and named_texts(self._own_settings).count(new[0]) == 1:
            fix = (
                f"It only pads: leave {path} out (import --leave-out {path}), so that the base's "
                "is used, which answers the same."
            )
        listed = ", ".join(repr(token[:40]) for token in sorted(new)[:MAX_LISTED_KEYS])
        detail = f"it adds {len(new)} token{'s' if len(new) > 1 else ''} to the base's: {listed}"
        return Defect(path, new[0][:80], "tokens-added", detail, fix)

    def _padding(self, path: str, own: dict[str, Any]) -> Iterator[Defect]:
        """A padding token must be a special word of the base already; then it changes no id."""
        value, known = own.get("pad_token"), self._base_loaded
        text = content(own, "pad_token")
        if value is None or (
            text is not None and text == content(self._base_settings, "pad_token")
        ):
            return
        if text is None:
            yield _mismatch(path, "pad_token", f"it has {short(value)}, which is not a text")
        elif text not in known.added and text not in named_texts(self._base_settings):
            yield _mismatch(
                path,
                "pad_token",
                f"it makes {short(text)} a special token, which is no special token of the base, "
                "so texts that contain it get other ids",
            )

    def _numbers(self) -> Iterator[Defect]:
        known = self._base_loaded
        if self._base_file is None and ADDED not in self.base.files:
            yield _mismatch(ADDED, "", NO_COUNTERPART)
            return
        listed = self.base.documents.get(ADDED) or {}
        numbers = {text: listed.get(text, known.id_of(text)) for text in self._added}
        if new := [text for text, number in numbers.items() if number is None]:
            yield self._new(ADDED, new)
            return
        for text, number in sorted(self._added.items()):
            if number != numbers[text]:
                detail = f"it gives {text[:40]!r} the id {number}, the base the id {numbers[text]}"
                yield _mismatch(ADDED, text[:80], detail)

    def _table(self, path: str) -> Iterator[Defect]:
        base, own = self._base_file, self.own.table(path)
        if path in self.base.files:
            expected = self.base.table(path)
        elif base is None:
            yield _mismatch(path, "", NO_COUNTERPART)
            return
        else:
            expected = base.merges if TABLES[path] == "merges" else base.vocabulary
        if own != expected:
            start = own.differing_span(expected) * SPAN
            yield _mismatch(
                path,
                "",
                f"it has {own.count} entries and the base {expected.count}; they differ between "
                f"number {start} and {start + SPAN - 1}",
            )

    def _compare(self, own: Meaning, base: Meaning) -> Iterator[Difference]:
        for name in sorted({*own.steps, *base.steps} - {"puts_blank"}):
            for key, received, expected in differences(
                own.steps.get(name), base.steps.get(name), name
            ):
                yield key, f"it has {short(received)}, the base has {short(expected)}"
        for text in sorted({*own.added, *base.added}):
            if own.added.get(text) != base.added.get(text):
                yield (
                    f"added_tokens.{text[:60]}",
                    _tokens(own.added.get(text), base.added.get(text)),
                )
        if own.vocabulary != base.vocabulary:
            yield self._entry("vocab", own.vocabulary, base.vocabulary)
        if own.merges != base.merges:
            yield self._entry("merges", own.merges, base.merges)

    def _entry(self, name: str, own: Table, base: Table) -> Difference:
        """The first entry in which two tables differ: both files are read once more."""
        span = own.differing_span(base)
        readings = [texts.meaning(span=(name, span)) for texts in (self.own, self.base)]
        kept = [
            (reading.vocabulary if name == "vocab" else reading.merges).kept if reading else []
            for reading in readings
        ]
        shared = min(map(len, kept))
        at = next((at for at in range(shared) if kept[0][at] != kept[1][at]), shared)
        entries = [_entry_text(part[at]) if at < len(part) else "nothing" for part in kept]
        number = span * SPAN + at
        if name == "vocab":
            detail = f"entry {number} of its vocabulary is {entries[0]}, the base's {entries[1]}"
        else:
            detail = f"it merges {entries[0]} at rank {number}, the base {entries[1]}"
        return f"model.{name}", detail


def _entry_text(entry: str) -> str:
    """A token with its id or score, or the two pieces of a merge."""
    size, _, rest = entry.removesuffix("\n").partition(" ")
    return f"{rest[: int(size)][:40]!r} {rest[int(size) + 1 :][:40]!r}"


def _tokens(own: Any, base: Any) -> str:
    if own is None or base is None:
        return "the base has no such token" if base is None else "it lacks this token of the base"
    key = next(key for key in ("id", *own) if own[key] != base.get(key))
    return f"its {key} is {short(own[key])}, the base's {short(base.get(key))}"


def _mismatch(path: str, where: str, detail: str) -> Defect:
    return Defect(
        path,
        where,
        "tokenizer-mismatch",
        detail,
        f"Leave {path} out (import --leave-out {path}), so that the base's is used. An adapter "
        "trained with another tokenizer belongs to another base.",
    )


def _incomparable(path: str, files: list[str]) -> Defect:
    if not files:
        return _mismatch(path, "", "the base has no tokenizer")
    return Defect(
        path,
        "",
        "tokenizer-mismatch",
        f"it cannot be compared: the base's tokenizer is in {', '.join(files[:4])}, from which "
        "each release builds a tokenizer.json in its own way",
        f"Leave it out (import --leave-out {path} --leave-out {SETTINGS}), so that the base's "
        "files are used; or save the base's tokenizer with save_pretrained, and register the base "
        "again with its tokenizer.json.",
    )
