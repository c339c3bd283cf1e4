"""Data sets, read row by row: wrong lines, the record root, repeated rows, and what is missing.

A data set is JSON Lines. Each row is an object with the texts `prompt` and `completion`, an
optional text `system`, and an optional `split` (`train` when absent). Other fields are kept, and
the record root covers them; those that people expect a model to read are refused.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, TypeVar

from registry.artifacts.statements import Finding, unstated
from registry.artifacts.weights.tensors import File, Read, check_extent, chunks
from registry.documents import canonical
from registry.documents.canonical import sha256_hex
from registry.documents.strict_json import loads
from registry.errors import Defect, Invalid, Unverified
from registry.proof.merkle import Frontier

MAX_LINE_BYTES = 1 << 20
MAX_LISTED_DEFECTS = 50
TRAIN = "train"
UNREAD = frozenset(
    {"audio", "audios", "conversation", "conversations", "chosen", "documents", "functions"}
    | {"history", "image", "images", "input", "instruction", "messages", "rejected", "tools"}
    | {"video", "videos"}
)
"""Columns of other formats that would change what a row means, and that nothing here reads."""
SPLIT = re.compile(r"[a-z][a-z0-9_-]{0,31}")
PERSONAL_DATA = ("none", "pseudonymous", "personal", "special")
REQUIRED_META = ("source", "licence", "legal_basis", "personal_data", "retention")


@dataclass(frozen=True, slots=True)
class Row:
    """One row: line number (from 1), texts, split, and the canonical bytes that the root covers."""

    line: int
    prompt: str
    completion: str
    split: str
    leaf: bytes
    system: str | None = None

    @property
    def own_system(self) -> str | None:
        """The system prompt of the row; a blank one is none."""
        return self.system if self.system and self.system.strip() else None


@dataclass(frozen=True, slots=True)
class InspectedDataset:
    """What a data set file is.

    `defects` lists at most 50, and a last one that counts the rest; `wrong` counts all.
    `duplicates` counts rows whose prompt and completion occurred before in the same split.
    `overlap` counts rows outside of train whose prompt occurs in train. Both compare normalised
    texts.
    """

    record_root: str | None
    rows: int
    splits: dict[str, int]
    duplicates: int
    overlap: int
    defects: list[Defect]
    wrong: int
    findings: list[Finding]


@dataclass(frozen=True, slots=True)
class Question:
    """One item of an eval suite as trainers get it, with the system prompt that its row has.

    `id` is the first 16 hex digits of the SHA-256 of canonical {prompt}, with `system` where there
    is one. It does not cover the expected answer, which could otherwise be guessed and tried.
    """

    id: str
    prompt: str
    system: str | None = field(default=None, kw_only=True)


@dataclass(frozen=True, slots=True)
class Item(Question):
    """One item of an eval suite with its expected answer, which never leaves for a trainer."""

    expected: str


@dataclass(frozen=True, slots=True)
class Overlap:
    """Contamination of a suite: how many items have a text that is among the training rows.

    `examples` are at most 20 of their ids.
    """

    items: int
    train_rows: int
    exact: int
    examples: tuple[str, ...]


def normalise(text: str) -> str:
    """The text in the form in which readers would call two texts the same.

    The form is NFKC, case-folded, without format characters, with blanks collapsed. A copied
    question is often re-wrapped, in other case, or written with full-width or ligature forms. A
    model that learned one form knows the other, so for contamination they are equal. So are
    texts that differ in format characters (zero width, soft hyphen). NFKC is applied twice
    because case folding may leave it.
    """
    if not text.isascii():
        text = "".join(each for each in text if unicodedata.category(each) != "Cf")
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(folded.split())


def rows(file: File, read: Read) -> Iterator[Row | Defect]:
    """Each line as a Row, or as a Defect that names it; the file is streamed.

    Raises Unverified when its bytes are not there.
    """
    for number, line in numbered(file, read):
        yield read_row(file.path, number, line)


def sound_rows(file: File, read: Read) -> Iterator[Row]:
    """The rows of a registered data set.

    Raises Unverified (`dataset-unsound`) when a line can no longer be read as a row.
    """
    for row in rows(file, read):
        yield _sound(row)


def sound_lines(file: File, read: Read, split: str) -> Iterator[tuple[bytes, Row]]:
    """The lines of one split of a registered data set as they stand in the file, with their rows.

    Raises Unverified as `sound_rows` does.
    """
    for number, line in numbered(file, read):
        row = _sound(read_row(file.path, number, line))
        if row.split == split:
            yield line, row


def _sound(row: Row | Defect) -> Row:
    if isinstance(row, Defect):
        raise Unverified("dataset-unsound", f"{row.file} {row.where}: {row.detail}.")
    return row


def numbered(file: File, read: Read, most: int | None = None) -> Iterator[tuple[int, bytes]]:
    """The lines of a file with their numbers (from 1); with `most`, those within so many bytes.

    Raises Unverified when its bytes are not there.
    """
    check_extent(file, read)
    end = file.size if most is None else min(file.size, most)
    return enumerate(_lines(chunks(file, read, 0, end), cut=end < file.size), 1)


def _lines(pieces: Iterable[bytes], *, cut: bool) -> Iterator[bytes]:
    """Split bytes at newlines, with at most one line in memory; after a `cut` the last is left out.

    A line that is too long is cut to its first MAX_LINE_BYTES + 1 bytes.
    """
    beginning = b""
    for piece in pieces:
        *whole, rest = piece.split(b"\n")
        for part in whole:
            yield beginning + part[: MAX_LINE_BYTES + 1]
            beginning = b""
        beginning = (beginning + rest)[: MAX_LINE_BYTES + 1]
    if beginning and not cut:
        yield beginning


def read_row(path: str, number: int, line: bytes) -> Row | Defect:
    where = f"line {number}"
    if len(line) > MAX_LINE_BYTES:
        detail = f"it is longer than {MAX_LINE_BYTES} bytes"
        return Defect(path, where, "line-too-long", detail, "Split the row.")
    if not line.strip():
        return Defect(path, where, "line-empty", "the line is empty", "Remove it.")
    try:
        record = loads(line)
        leaf = canonical.encode(record, large_floats=True)
    except Invalid as error:
        return Defect(path, where, error.kind, error.detail, error.fix)
    if not isinstance(record, dict):
        detail = "the row is not a JSON object"
        return Defect(path, where, "row-object", detail, "Write one object on each line.")
    for key in ("prompt", "completion"):
        if not isinstance(record.get(key), str) or not record[key].strip():
            return Defect(
                path,
                where,
                "row-text",
                f"{key} is missing, empty or not a text",
                f"Give {key} as a text.",
            )
    split = record.get("split", TRAIN)
    if not isinstance(split, str) or not SPLIT.fullmatch(split):
        return Defect(
            path,
            where,
            "row-split",
            f"the split {str(split)[:40]!r} is not a short name of lower-case letters",
            "Use train, dev, test or another short name, or leave it out.",
        )
    system = record.get("system")
    if system is not None and not isinstance(system, str):
        return Defect(path, where, "row-text", "system is not a text", "Give system as a text.")
    if ignored := sorted(key for key in UNREAD & record.keys() if record[key]):
        return Defect(
            path,
            where,
            "row-column",
            f"the column {ignored[0]!r} would be ignored: a row is its prompt, completion, system "
            "and split",
            "Write what the model must read into prompt or system, and remove or rename the "
            "column.",
        )
    return Row(number, record["prompt"], record["completion"], split, leaf, system)


def _key(text: str) -> bytes:
    """Sixteen bytes that represent a text, so that millions of rows fit in memory.

    By chance, 2**-64 of them collide.
    """
    return sha256(normalise(text).encode("utf-8", "surrogatepass")).digest()[:16]


def inspect(file: File, read: Read, meta: Mapping[str, Any]) -> InspectedDataset:
    """Read every row once: what the data set is, which lines are wrong, and what is missing."""
    root, splits = Frontier(), Counter[str]()
    defects: list[Defect] = []
    wrong = duplicates = 0
    seen: set[tuple[str, bytes, bytes]] = set()
    train: set[bytes] = set()
    elsewhere: Counter[bytes] = Counter()
    try:
        for row in rows(file, read):
            if isinstance(row, Defect):
                wrong += 1
                if wrong <= MAX_LISTED_DEFECTS:
                    defects.append(row)
                continue
            root.add(row.leaf)
            splits[row.split] += 1
            prompt = _key(row.prompt)
            known = (row.split, prompt, _key(row.completion))
            duplicates += known in seen
            seen.add(known)
            if row.split == TRAIN:
                train.add(prompt)
            else:
                elsewhere[prompt] += 1
    except Unverified as error:
        wrong += 1
        defects.append(Defect(file.path, "", error.kind, error.detail, error.fix))
    if not wrong and not root.size:
        wrong += 1
        defects.append(
            Defect(file.path, "", "dataset-empty", "the file has no row", "Add at least one row.")
        )
    if wrong > len(defects):
        defects.append(
            Defect(
                file.path,
                "",
                "more-defects",
                f"{wrong - len(defects)} more lines are wrong",
                "Fix the lines listed and add the file again.",
            )
        )
    overlap = sum(count for prompt, count in elsewhere.items() if prompt in train)
    return InspectedDataset(
        None if wrong else root.text(),
        root.size,
        dict(sorted(splits.items())),
        duplicates,
        overlap,
        defects,
        wrong,
        missing_facts(meta),
    )


def missing_facts(meta: Mapping[str, Any]) -> list[Finding]:
    """What a data set version still lacks before it gets a number."""
    findings = list(unstated(REQUIRED_META, meta, "add the same file again"))
    named = meta.get("personal_data")
    if isinstance(named, str) and named.strip() and named.strip() not in PERSONAL_DATA:
        findings.append(
            Finding(
                "personal_data",
                f"personal_data is {named[:40]!r}, which is not a known class",
                f"Use one of {', '.join(PERSONAL_DATA)}.",
            )
        )
    return findings


def item_id(prompt: str, system: str | None = None) -> str:
    """The id of an item; the same question has the same id in every suite."""
    asked = {"prompt": prompt} | ({"system": system} if system else {})
    return sha256_hex(canonical.encode(asked))[:16]


def suite_items(dataset_rows: Iterable[Row], split: str) -> tuple[Item, ...]:
    """The items of a frozen suite, in the order of the file.

    A row that repeats another counts once, otherwise it would have double weight. Raises Invalid:
    `split-empty` when the split has no row, `item-contradicts` when one prompt has two answers.
    """
    items: dict[tuple[str, str | None], Item] = {}
    split_sizes: Counter[str] = Counter()
    for row in dataset_rows:
        split_sizes[row.split] += 1
        if row.split != split:
            continue
        system = row.own_system
        item = Item(item_id(row.prompt, system), row.prompt, row.completion, system=system)
        first = items.setdefault((row.prompt, system), item)
        if first.expected != item.expected:
            raise Invalid(
                "item-contradicts",
                f"Line {row.line} and an earlier line expect different answers to one prompt.",
                line=row.line,
            )
    if not items:
        raise Invalid(
            "split-empty",
            f"The data set has no row in the split '{split[:40]}'.",
            f"Use one of its splits: {', '.join(sorted(split_sizes))}."
            if split_sizes
            else "Use a data set that has rows.",
        )
    return tuple(items.values())


def encode_items(items: Sequence[Item]) -> bytes:
    """The items file of a suite: canonical JSON Lines of id, prompt, expected and any system."""
    return b"".join(
        canonical.encode(_asked(item) | {"expected": item.expected}) + b"\n" for item in items
    )


def encode_prompts(items: Sequence[Question]) -> bytes:
    """The items as trainers get them: canonical JSON Lines of id, prompt and any system prompt."""
    return b"".join(canonical.encode(_asked(item)) + b"\n" for item in items)


def _asked(item: Question) -> dict[str, str]:
    asked = {"id": item.id, "prompt": item.prompt}
    return asked | ({"system": item.system} if item.system else {})


def decode_prompts(data: bytes) -> tuple[Question, ...]:
    """The questions of such a file. Raises Unverified as `decode_items` does."""
    return _decoded(data, Question, "prompts")


def decode_items(data: bytes) -> tuple[Item, ...]:
    """The items of an items file.

    Raises Unverified (`items-unsound`) when an id does not match its content, or a line is not an
    item.
    """
    return _decoded(data, Item, "items")


Asked = TypeVar("Asked", bound=Question)


def _decoded(data: bytes, kind: type[Asked], what: str) -> tuple[Asked, ...]:
    entries = []
    for number, line in enumerate(data.removesuffix(b"\n").split(b"\n"), 1):
        try:
            entry = kind(**loads(line))
            sound = entry.id == item_id(entry.prompt, entry.system)
        except (Invalid, TypeError):
            sound = False
        if not sound:
            raise Unverified(
                "items-unsound", f"Line {number} of the suite's {what} is not as it was frozen."
            )
        entries.append(entry)
    return tuple(entries)


def plain_text(prompt: str, system: str | None) -> str:
    """What the template `plain` makes of a prompt: the system prompt stands on lines before it."""
    return f"{system}\n{prompt}" if system and system.strip() else prompt


def _keys(prompt: str, system: str | None) -> set[bytes]:
    """The prompt alone and the text that a model reads: either may occur elsewhere."""
    return {_key(prompt), _key(plain_text(prompt, system))}


def overlap(train_rows: Iterable[Row], items: Sequence[Item], system: str | None = None) -> Overlap:
    """Which items were trained on; the training rows are streamed.

    An item counts where its prompt, or its prompt after the system prompt, is one of these two
    texts of a training row: a question is the same wherever its beginning stands. `system` is the
    suite's, for items without their own. Texts are compared normalised.
    """
    of_items = [_keys(item.prompt, item.system or system) for item in items]
    keys = set[bytes]().union(*of_items)
    count = 0
    seen: set[bytes] = set()
    for row in train_rows:
        count += 1
        seen |= _keys(row.prompt, row.system) & keys
    # Two items may differ only in what normalisation removes, so count items, not distinct keys.
    trained_on = [item.id for item, own in zip(items, of_items, strict=True) if own & seen]
    return Overlap(len(items), count, len(trained_on), tuple(trained_on[:20]))
