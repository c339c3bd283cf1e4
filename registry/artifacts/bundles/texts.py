"""The tokenizer files of a bundle, read again by pieces where they are too large to stay parsed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from registry.artifacts.bundles.files import Bundle
from registry.artifacts.bundles.names import TOKENIZER, max_bytes
from registry.artifacts.tokenizers import chat_templates, meanings
from registry.artifacts.tokenizers.chat_templates import FILE, FILES, SETTINGS, SPECIAL, Templates
from registry.artifacts.tokenizers.meanings import Meaning
from registry.artifacts.tokenizers.tables import Table
from registry.artifacts.weights.tensors import File, Read, fetch
from registry.documents.json_streams import PIECE, outline
from registry.documents.strict_json import MAX_BUNDLE_VALUES, Allowance, loads
from registry.errors import Invalid

FAST_TOKENIZER = "tokenizer.json"
"""A complete tokenizer."""
ADDED = "added_tokens.json"


@dataclass(frozen=True, slots=True)
class Texts:
    """A base's tokenizer files, its parsed texts, and its chat templates.

    `kind` is its model_type; `read` reads its files again.
    """

    files: Mapping[str, File]
    documents: Mapping[str, Any]
    kind: str | None
    read: Read

    @property
    def templates(self) -> Templates | None:
        """The chat templates, if there are any."""
        return chat_templates.templates_of(self.documents)

    @property
    def settings(self) -> dict[str, Any]:
        """The tokenizer_config.json, with the special tokens that only the map beside it names."""
        parts = (self.documents.get(path) for path in (SPECIAL, SETTINGS))
        return {
            key: value for part in parts if isinstance(part, dict) for key, value in part.items()
        }

    def pieces(self, path: str) -> Iterator[bytes]:
        """The bytes of a file by pieces."""
        file = self.files[path]
        for start in range(0, file.size, PIECE):
            yield fetch(file, self.read, start, min(PIECE, file.size - start))

    def meaning(
        self, seek: Collection[str] = (), span: tuple[str, int] | None = None
    ) -> Meaning | None:
        """What the tokenizer.json means, if there is one. Raises Unreadable for an unknown form."""
        if FAST_TOKENIZER in self.documents:
            return meanings.of_document(self.documents[FAST_TOKENIZER], seek=seek, span=span)
        if FAST_TOKENIZER in self.files:
            return meanings.read(self.pieces(FAST_TOKENIZER), seek=seek, span=span)
        return None

    def table(self, path: str) -> Table:
        """A vocab.json, vocab.txt or merges.txt. Raises Unreadable for an unknown form."""
        table = Table()
        if path in self.documents:
            table.add(meanings.by_number(self.documents[path]))
        elif path == "vocab.json":
            outline(
                self.pieces(path),
                Allowance(MAX_BUNDLE_VALUES),
                take=lambda _, part: table.add(part),
            )
        else:
            text = b"".join(self.pieces(path)).decode("utf-8")
            lines = text.removesuffix("\n").replace("\r\n", "\n").split("\n")
            if path == "vocab.txt":
                table.add_lines(lines)
            else:
                table.add([line for line in lines if line and not line.startswith("#version")])
        return table


def texts_of(bundle: Bundle) -> Texts:
    """The texts of a bundle that are compared: those of a base, or an adapter's own."""
    compared = TOKENIZER | {FILE}
    config = bundle.documents.get("config.json")
    kind = config.get("model_type") if isinstance(config, dict) else None
    return Texts(
        {path: file for path, file in bundle.files.items() if path in compared},
        {path: document for path, document in bundle.documents.items() if path in compared},
        kind if isinstance(kind, str) else None,
        bundle.read,
    )


def documents_of(files: Iterable[File], read: Read) -> dict[str, Any]:
    """The parsed files of a stored bundle that hold chat templates and special tokens.

    One that cannot be parsed is left out: `verify` says what is wrong with it. Raises Unverified
    when bytes are not there.
    """
    documents: dict[str, Any] = {}
    for file in files:
        if file.path in FILES and file.size <= max_bytes(file.path):
            data = fetch(file, read, 0, file.size)
            with suppress(Invalid, UnicodeDecodeError):
                documents[file.path] = data.decode() if file.path == FILE else loads(data)
    return documents
