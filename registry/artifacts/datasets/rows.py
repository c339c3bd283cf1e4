"""Data sets row by row: what is wrong with which line, the record root over every row, repeats, and
what is missing.

A data set is JSON Lines: each row an object with texts `prompt` and `completion`, an optional
`split` (train when absent), and any other fields, which are kept and covered by the root.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from registry.artifacts.bundles.judge import Finding
from registry.artifacts.weights.tensors import File, Read, check_extent, chunks
from registry.documents import canonical
from registry.documents.canonical import sha256_hex
from registry.documents.strict_json import loads
from registry.errors import Defect, Invalid, Unverified
from registry.proof.merkle import Frontier

MAX_LINE = 1 << 20
MAX_LISTED = 50
TRAIN = "train"
SPLIT = re.compile(r"[a-z][a-z0-9_-]{0,31}")
PERSONAL_DATA = ("none", "pseudonymous", "personal", "special")
REQUIRED_META = ("source", "licence", "legal_basis", "personal_data", "retention")


@dataclass(frozen=True, slots=True)
class Row:
    """One row: line number (from 1), texts, split, and canonical bytes (the leaf of the record
    root).
    """

    line: int
    prompt: str
    completion: str
    split: str
    leaf: bytes


@dataclass(frozen=True, slots=True)
class InspectedDataset:
    """What a data set file is; `defects` lists at most 50 and a last one that counts the rest,
    `wrong` counts all.

    `duplicates` counts rows whose prompt and completion stood in the same split before; `overlap`
    counts rows outside train whose prompt stands in train; both compare normalised texts.
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
class Item:
    """One question of an eval suite; `id` is 16 hex digits of the SHA-256 of canonical {prompt,
    expected}.
    """

    id: str
    prompt: str
    expected: str


@dataclass(frozen=True, slots=True)
class Overlap:
    """Contamination of a suite: items whose prompt stands among the training rows, and at most 20
    of their ids.
    """

    items: int
    train_rows: int
    exact: int
    examples: tuple[str, ...]


def normalise(text: str) -> str:
    """The text as a reader would call it the same: NFKC, case folded, blanks collapsed.

    A copied question is often re-wrapped, re-cased or carries full-width or ligature forms; a model
    that learned one form knows the other, so for contamination they are equal. (Folded text may
    leave NFKC, hence twice.)
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(folded.split())


def rows(file: File, read: Read) -> Iterator[Row | Defect]:
    """Each line as a Row, or as a Defect naming it; the file is streamed. Unverified when its bytes
    are not there.
    """
    check_extent(file, read)
    for number, line in enumerate(_lines(chunks(file, read, 0, file.size)), 1):
        yield _row(file.path, number, line)


def sound_rows(file: File, read: Read) -> Iterator[Row]:
    """The rows of a registered data set; Unverified (`dataset-unsound`) if a line no longer reads
    as one.
    """
    for row in rows(file, read):
        if isinstance(row, Defect):
            raise Unverified(
                "dataset-unsound",
                f"{row.file} {row.where}: {row.detail}.",
            )
        yield row


def _lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Split at newlines, holding at most a line; one that is too long comes as its first MAX_LINE +
    1 bytes.
    """
    held = b""
    for piece in pieces:
        *whole, rest = piece.split(b"\n")
        for part in whole:
            yield held + part[: MAX_LINE + 1]
            held = b""
        held = (held + rest)[: MAX_LINE + 1]
    if held:
        yield held


def _row(path: str, number: int, line: bytes) -> Row | Defect:
    where = f"line {number}"
    if len(line) > MAX_LINE:
        return Defect(
            path, where, "line-too-long", f"it is longer than {MAX_LINE} bytes", "Split the row."
        )
    if not line.strip():
        return Defect(path, where, "line-empty", "the line is empty", "Remove it.")
    try:
        record = loads(line)
        leaf = canonical.encode(record, large_floats=True)
    except Invalid as error:
        return Defect(path, where, error.kind, error.detail, error.fix)
    if not isinstance(record, dict):
        return Defect(
            path, where, "row-object", "the row is no JSON object", "Write an object a line."
        )
    for key in ("prompt", "completion"):
        if not isinstance(record.get(key), str) or not record[key].strip():
            return Defect(
                path,
                where,
                "row-text",
                f"{key} is missing, empty or no text",
                f"Give {key} as a text.",
            )
    split = record.get("split", TRAIN)
    if not isinstance(split, str) or not SPLIT.fullmatch(split):
        return Defect(
            path,
            where,
            "row-split",
            f"split {str(split)[:40]!r} is no name of lower-case letters",
            "Use train, dev, test or another short name, or leave it out.",
        )
    return Row(number, record["prompt"], record["completion"], split, leaf)


def _key(text: str) -> bytes:
    """Sixteen bytes stand for a text, so that millions of rows fit in memory; 2**-64 of them
    collide by chance.
    """
    return sha256(normalise(text).encode("utf-8", "surrogatepass")).digest()[:16]


def inspect(file: File, read: Read, meta: Mapping[str, Any]) -> InspectedDataset:
    """Read every row once and say what the data set is, which lines are wrong, and which
    descriptions are missing.
    """
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
                if wrong <= MAX_LISTED:
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
            Defect(file.path, "", "dataset-empty", "the file holds no row", "Add at least one row.")
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
        _findings(meta),
    )


def _findings(meta: Mapping[str, Any]) -> list[Finding]:
    findings = [
        Finding(
            name, f"{name} is missing", f"Give {name} in the meta file and add the same file again."
        )
        for name in REQUIRED_META
        if not str(meta.get(name) or "").strip()
    ]
    named = str(meta.get("personal_data") or "").strip()
    if named and named not in PERSONAL_DATA:
        findings.append(
            Finding(
                "personal_data",
                f"personal_data is {named[:40]!r}, which is no known class",
                f"Use one of {', '.join(PERSONAL_DATA)}.",
            )
        )
    return findings


def item_id(prompt: str, expected: str) -> str:
    """An item's name is its content, so that the same question has the same name in every suite."""
    return sha256_hex(canonical.encode({"prompt": prompt, "expected": expected}))[:16]


def suite_items(found: Iterable[Row], split: str) -> tuple[Item, ...]:
    """The items of a frozen suite, in file order; a row that repeats one counts once, or it would
    weigh double.

    Raises Invalid: `split-empty` when no row is in the split, `item-contradicts` when one prompt
    has two answers.
    """
    items: dict[str, Item] = {}
    others: Counter[str] = Counter()
    for row in found:
        others[row.split] += 1
        if row.split != split:
            continue
        item = Item(item_id(row.prompt, row.completion), row.prompt, row.completion)
        known = items.setdefault(row.prompt, item)
        if known.expected != item.expected:
            raise Invalid(
                "item-contradicts",
                f"Line {row.line} expects another answer to a prompt that stands there before.",
                line=row.line,
            )
    if not items:
        raise Invalid(
            "split-empty",
            f"The data set has no row in the split '{split[:40]}'.",
            f"Use one of its splits: {', '.join(sorted(others)) or 'it has none'}.",
        )
    return tuple(items.values())


def encode_items(items: Sequence[Item]) -> bytes:
    """The suite's items file: canonical JSON Lines of id, prompt, expected."""
    return b"".join(
        canonical.encode({"id": item.id, "prompt": item.prompt, "expected": item.expected}) + b"\n"
        for item in items
    )


def decode_items(data: bytes) -> tuple[Item, ...]:
    """Read an items file back; Unverified (`items-unsound`) when an id is not its content's, or a
    line is no item.
    """
    items = []
    for number, line in enumerate(data.removesuffix(b"\n").split(b"\n"), 1):
        try:
            item = Item(**loads(line))
            sound = item.id == item_id(item.prompt, item.expected)
        except (Invalid, TypeError):
            sound = False
        if not sound:
            raise Unverified(
                "items-unsound",
                f"Line {number} of the suite's items is not as it was frozen.",
            )
        items.append(item)
    return tuple(items)


def overlap(train_prompts: Iterable[str], items: Sequence[Item]) -> Overlap:
    """Which items were trained on: exact equality of normalised prompts, the training side
    streamed.
    """
    wanted = {_key(item.prompt): item.id for item in items}
    counted = 0
    met: set[bytes] = set()
    for prompt in train_prompts:
        counted += 1
        if (key := _key(prompt)) in wanted:
            met.add(key)
    # Two items may differ only in what normalising removes: count items, not distinct keys.
    exact = [item.id for item in items if _key(item.prompt) in met]
    return Overlap(len(items), counted, len(exact), tuple(exact[:20]))
