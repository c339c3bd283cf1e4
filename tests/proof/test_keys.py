from __future__ import annotations

import hashlib
import json
import stat
from base64 import b64decode
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

from registry.documents import canonical
from registry.errors import Conflict, Invalid, NotFound
from registry.proof import keys
from tests.proof import vectors


def test_every_wycheproof_ed25519_case() -> None:
    groups = json.loads((vectors.FOLDER / "wycheproof" / "ed25519_test.json").read_text())[
        "testGroups"
    ]
    cases = [
        (bytes.fromhex(group["publicKey"]["pk"]), test)
        for group in groups
        for test in group["tests"]
    ]
    assert len(cases) == 151
    wrong = [
        test["tcId"]
        for public, test in cases
        if (test["result"] == "valid")
        is not keys.verify(public, bytes.fromhex(test["msg"]), bytes.fromhex(test["sig"]))
    ]
    assert not wrong


@pytest.fixture
def key() -> keys.SigningKey:
    return keys.SigningKey.generate()


def test_a_saved_key_is_private_and_comes_back(key: keys.SigningKey, tmp_path: Path) -> None:
    path = tmp_path / "signing.key"
    key.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in tmp_path.iterdir()] == ["signing.key"]
    again = keys.SigningKey.load(path)
    assert (again.public, again.id) == (key.public, key.id)
    assert keys.verify(key.public, b"m", again.sign(b"m"))


def test_a_key_is_never_overwritten(key: keys.SigningKey, tmp_path: Path) -> None:
    path = tmp_path / "signing.key"
    key.save(path)
    before = path.read_bytes()
    with pytest.raises(Conflict) as refusal:
        keys.SigningKey.generate().save(path)
    assert refusal.value.kind == "key-exists"
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["signing.key"]


def test_a_missing_or_foreign_key_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no signing key"):
        keys.SigningKey.load(tmp_path / "none")
    (tmp_path / "text").write_text("not a key")
    (tmp_path / "curve").write_bytes(
        generate_private_key(SECP256R1()).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    (tmp_path / "locked").write_bytes(
        generate_private_key(SECP256R1()).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    for name in ("text", "curve", "locked", "."):
        with pytest.raises(Invalid) as refusal:
            keys.SigningKey.load(tmp_path / name)
        assert refusal.value.kind == "bad-key"


def test_names_of_a_key(key: keys.SigningKey) -> None:
    assert b64decode(key.public_text) == key.public
    assert len(key.public) == 32
    assert key.id == keys.key_id(key.public) == hashlib.sha256(key.public).hexdigest()[:16]


def test_a_document_is_signed_for_one_context_and_one_content(key: keys.SigningKey) -> None:
    document = {"review": 7, "verdict": "approve"}
    name, signature = key.sign_document(document, "decision")
    assert name == key.id
    message = f"countersign/decision/1\n{canonical.digest(document)}\n".encode()
    assert keys.verify(key.public, message, b64decode(signature))
    assert keys.verify_document(
        key.public_text, {"verdict": "approve", "review": 7}, "decision", signature
    )
    assert not keys.verify_document(key.public_text, document, "enrol", signature)
    assert not keys.verify_document(
        key.public_text, {**document, "verdict": "reject"}, "decision", signature
    )
    assert not keys.verify_document(
        keys.SigningKey.generate().public_text, document, "decision", signature
    )


@pytest.mark.parametrize("bad", ["", "!", "AAAA", "ä", "A" * 88])
def test_malformed_keys_and_signatures_are_simply_false(key: keys.SigningKey, bad: str) -> None:
    _, signature = key.sign_document({}, "enrol")
    assert not keys.verify_document(bad, {}, "enrol", signature)
    assert not keys.verify_document(key.public_text, {}, "enrol", bad)
    assert not keys.verify_document(key.public_text, {"a": float("nan")}, "enrol", signature)
