from __future__ import annotations

import base64
from collections.abc import Callable

import pytest

from registry.errors import Invalid, RegistryError, Unverified
from registry.proof import merkle, notes
from registry.proof.keys import SigningKey
from tests.proof import vectors

ORIGIN = "countersign.local/7f3a"
TESSERA = "example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx"


@pytest.mark.parametrize("size", range(16))
def test_a_tree_head_of_tesseras_log(size: int) -> None:
    log = vectors.FOLDER / "tessera" / "log"
    entries: list[bytes] = []
    if size:
        bundle = (log / "tile" / "entries" / "000.p" / str(size)).read_bytes()
        while bundle:
            length = int.from_bytes(bundle[:2])
            entries.append(bundle[2 : 2 + length])
            bundle = bundle[2 + length :]
    assert len(entries) == size
    leaves = [merkle.leaf_hash(entry) for entry in entries]
    if size:
        assert b"".join(leaves) == (log / "tile" / "0" / "000.p" / str(size)).read_bytes()
    note = (log / f"checkpoint.{size}").read_text()
    assert notes.open_tree_head(note, TESSERA) == (size, merkle.root(leaves))

    name, public = notes.parse_verifier_key(TESSERA)
    stranger = SigningKey.generate().public
    for other in (
        notes.verifier_key(name, stranger),
        notes.verifier_key("example.com/other", public),
    ):
        with pytest.raises(Unverified) as refusal:
            notes.open_tree_head(note, other)
        assert refusal.value.kind == "note-unsigned"


@pytest.fixture
def key() -> SigningKey:
    return SigningKey.generate()


def test_a_tree_head_goes_round(key: SigningKey) -> None:
    verifier = notes.verifier_key(ORIGIN, key.public)
    root = merkle.root([merkle.leaf_hash(b"one")])
    text = notes.checkpoint_text(ORIGIN, 1, root)
    note = notes.sign_note(text, ORIGIN, key)
    assert notes.verify_note(note, verifier) == text
    assert notes.parse_checkpoint(text) == (ORIGIN, 1, root)
    assert notes.open_tree_head(note, verifier) == (1, root)
    assert notes.parse_verifier_key(verifier + "\n") == (ORIGIN, key.public)


def test_a_head_of_another_origin_is_refused_though_the_key_signed_it(key: SigningKey) -> None:
    note = notes.sign_note(
        notes.checkpoint_text("countersign.local/other", 0, merkle.EMPTY), ORIGIN, key
    )
    with pytest.raises(Unverified) as refusal:
        notes.open_tree_head(note, notes.verifier_key(ORIGIN, key.public))
    assert refusal.value.kind == "wrong-origin"


def test_witnesses_beside_the_log_are_passed_over(key: SigningKey) -> None:
    text = notes.checkpoint_text(ORIGIN, 0, merkle.EMPTY)
    note = notes.sign_note(text, ORIGIN, key)
    witnessed = (
        note + notes.sign_note(text, "witness.example", SigningKey.generate()).split("\n\n")[1]
    )
    assert notes.verify_note(witnessed, notes.verifier_key(ORIGIN, key.public)) == text


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("note-forged", lambda note: note.replace("\n0\n", "\n1\n")),
        ("note-forged", lambda note: "extra line\n" + note),
        ("note-malformed", lambda note: note[:-1]),
        ("note-malformed", lambda note: note.replace("\n\n", "\n")),
        ("note-malformed", lambda note: note.replace("— ", "- ")),
        ("note-malformed", lambda note: note.replace("\n0\n", "\n0\r\n")),
        ("note-malformed", lambda note: note + "\n"),
        ("note-malformed", lambda note: note[:-3] + "\n"),
        ("note-malformed", lambda note: note + "— name\n"),
        ("note-unsigned", lambda note: note.replace(f"— {ORIGIN} ", "— somebody ")),
        ("note-malformed", lambda _: ""),
    ],
)
def test_a_changed_note_is_refused(
    key: SigningKey, kind: str, change: Callable[[str], str]
) -> None:
    note = notes.sign_note(notes.checkpoint_text(ORIGIN, 0, merkle.EMPTY), ORIGIN, key)
    with pytest.raises(Unverified) as refusal:
        notes.verify_note(change(note), notes.verifier_key(ORIGIN, key.public))
    assert refusal.value.kind == kind


ROOT = base64.b64encode(merkle.EMPTY).decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"\n0\n{ROOT}\n",
        f"o\n00\n{ROOT}\n",
        f"o\n-1\n{ROOT}\n",
        f"o\n+1\n{ROOT}\n",
        f"o\n1\n{ROOT}",
        f"o\n1\n{ROOT}\nmore\n",
        f"o\n1\n{ROOT[:-4]}\n",
        f"o\n1\n{ROOT[:-2]}V=\n",
        f"o\n٣\n{ROOT}\n",
        "o\n1\n!\n",
    ],
)
def test_what_is_no_tree_head(text: str) -> None:
    with pytest.raises(Invalid) as refusal:
        notes.parse_checkpoint(text)
    assert refusal.value.kind == "bad-tree-head"


@pytest.mark.parametrize(
    "bad", ["", "a+b", "a+00000000+AAAA", TESSERA[:-4], TESSERA.replace("33d7", "33d8"), "ä+ö+ü"]
)
def test_what_is_no_verifier_key(bad: str) -> None:
    with pytest.raises(Invalid) as refusal:
        notes.parse_verifier_key(bad)
    assert refusal.value.kind == "bad-verifier-key"


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\nb", "a\x00"])
def test_a_name_that_would_break_the_note_is_refused(key: SigningKey, name: str) -> None:
    with pytest.raises(RegistryError) as refusal:
        notes.sign_note("text\n", name, key)
    assert refusal.value.kind == "bad-key-name"


@pytest.mark.parametrize("text", ["", "no break", "tab\there\n"])
def test_a_text_that_cannot_be_signed_is_refused(key: SigningKey, text: str) -> None:
    with pytest.raises(Invalid) as refusal:
        notes.sign_note(text, ORIGIN, key)
    assert refusal.value.kind == "bad-note"
