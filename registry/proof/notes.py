"""Signed notes and the log's tree heads, as C2SP signed-note and tlog-checkpoint define them.

A note is a text, an empty line, and signature lines `— name base64(key hash || signature)`. The
specification calls a signed tree head a checkpoint; only the two functions that read and write that
format use this name.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re

from registry.errors import Invalid, Unverified
from registry.proof.keys import SigningKey, verify

ED25519 = b"\x01"
DASH = "— "
SIZE = re.compile(r"0|[1-9][0-9]{0,18}")


def _key_hash(name: str, public: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + ED25519 + public).digest()[:4]


def _check_name(name: str) -> str:
    if not name or "+" in name or any(character.isspace() or character < " " for character in name):
        raise Invalid("bad-key-name", f"'{name[:80]}' cannot name a log key.")
    return name


def verifier_key(name: str, public: bytes) -> str:
    """`name+hash+key`, the line with which anybody can verify notes signed under this name."""
    key = base64.b64encode(ED25519 + public).decode()
    return f"{_check_name(name)}+{_key_hash(name, public).hex()}+{key}"


def parse_verifier_key(text: str) -> tuple[str, bytes]:
    """(name, 32 raw public bytes) of a verifier key.

    Raises Invalid `bad-verifier-key` for anything else, also when the hash is not of the key.
    """
    try:
        name, key_hash, encoded = text.strip().split("+", 2)
        raw = base64.b64decode(encoded, validate=True)
    except (ValueError, binascii.Error):
        name, key_hash, raw = "", "", b""
    if len(raw) != 33 or raw[:1] != ED25519 or _key_hash(name, raw[1:]).hex() != key_hash:
        raise Invalid(
            "bad-verifier-key",
            "This is not an Ed25519 verifier key.",
            "Give one line: name, plus sign, eight hex digits, plus sign, base64.",
        )
    return _check_name(name), raw[1:]


def sign_note(text: str, name: str, key: SigningKey) -> str:
    """The text with one signature line under `name`.

    Raises Invalid `bad-note` unless the text ends with a line break and has no control characters.
    """
    if not text.endswith("\n") or _unprintable(text):
        raise Invalid(
            "bad-note",
            "The text of a note must end with a line break and hold no control characters.",
        )
    signature = _key_hash(_check_name(name), key.public) + key.sign(text.encode())
    return f"{text}\n{DASH}{name} {base64.b64encode(signature).decode()}\n"


def verify_note(note: str, verifier: str) -> str:
    """The note's text, if the verifier key signed it. Signatures of others (witnesses) are ignored.

    Raises Unverified: `note-malformed`, `note-unsigned` (no signature under that key),
    `note-forged` (a wrong one).
    """
    name, public = parse_verifier_key(verifier)
    text, gap, signatures = note.rpartition("\n\n")
    text += "\n"
    if not gap or not signatures.endswith("\n") or _unprintable(note):
        raise Unverified("note-malformed", "This is not a signed note.")
    key_hash = _key_hash(name, public)
    is_signed = False
    for line in signatures[:-1].split("\n"):
        signer, _, encoded = line.removeprefix(DASH).partition(" ")
        try:
            raw = base64.b64decode(encoded, validate=True)
        except (ValueError, binascii.Error):
            raw = b""
        if not line.startswith(DASH) or not signer or len(raw) < 5:
            raise Unverified("note-malformed", "A signature line of the note is malformed.")
        if signer == name and raw[:4] == key_hash:
            if not verify(public, text.encode(), raw[4:]):
                raise Unverified("note-forged", f"The signature of {name} is not over this text.")
            is_signed = True
    if not is_signed:
        raise Unverified("note-unsigned", f"The note has no signature by the given key of {name}.")
    return text


def checkpoint_text(origin: str, size: int, root: bytes) -> str:
    """A tree head as text of three lines: origin, number of leaves, base64 of the 32-byte root."""
    return f"{_check_name(origin)}\n{size}\n{base64.b64encode(root).decode()}\n"


def parse_checkpoint(text: str) -> tuple[str, int, bytes]:
    """(origin, size, root) of a tree head's text; Invalid `bad-tree-head` for anything else."""
    lines = text.split("\n")
    if len(lines) == 4 and not lines[3] and lines[0] and SIZE.fullmatch(lines[1]):
        try:
            root = base64.b64decode(lines[2], validate=True)
        except (ValueError, binascii.Error):
            root = b""
        if len(root) == 32 and base64.b64encode(root).decode() == lines[2]:
            return lines[0], int(lines[1]), root
    raise Invalid(
        "bad-tree-head",
        "This is not a tree head.",
        "Give three lines: origin, size, base64 of the root.",
    )


def open_tree_head(note: str, verifier: str) -> tuple[int, bytes]:
    """(size, root) of a tree head that the verifier key signed for its own origin.

    Raises Unverified, also for a signed tree head of another origin (`wrong-origin`).
    """
    origin, size, root = parse_checkpoint(verify_note(note, verifier))
    if origin != parse_verifier_key(verifier)[0]:
        raise Unverified("wrong-origin", f"The tree head is of {origin}.")
    return size, root


def _unprintable(text: str) -> bool:
    return any(character < " " and character != "\n" for character in text)
