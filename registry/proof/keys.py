"""Ed25519 keys of people, trainers and the log.

The signature of a document covers a short text with the context and the document's canonical
digest, so a signature made in one context is not valid in another.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from pathlib import Path
from typing import Any, Literal

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from registry.documents import canonical
from registry.errors import Conflict, Invalid, NotFound, RegistryError
from registry.proof.private_files import write_private

Context = Literal["decision", "enrol", "training-report", "eval-report"]
"""The purposes of a signature. The signed message differs with the context."""


class SigningKey:
    """A private Ed25519 key."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public: bytes = private.public_key().public_bytes_raw()

    @classmethod
    def generate(cls) -> SigningKey:
        """A new key from the system's source of randomness."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, path: Path) -> SigningKey:
        """The key saved at `path`.

        Raises NotFound `key-missing` without such a file, Invalid `bad-key` if it cannot be read.
        """
        try:
            private = serialization.load_pem_private_key(path.read_bytes(), None)
        except FileNotFoundError:
            raise NotFound("key-missing", f"There is no signing key at {path}.") from None
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise _unreadable(path) from error
        if not isinstance(private, Ed25519PrivateKey):
            raise _unreadable(path)
        return cls(private)

    def save(self, path: Path) -> None:
        """Write the key as PKCS8 PEM with mode 0600, atomically.

        Raises Conflict `key-exists` if there is a file at `path`: a key is never overwritten.
        """
        pem = self._private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        try:
            write_private(path, pem, overwrite=False)
        except FileExistsError:
            raise Conflict(
                "key-exists",
                f"There already is a file at {path}; a key is never overwritten.",
            ) from None

    @property
    def public_text(self) -> str:
        """The public key as base64."""
        return base64.b64encode(self.public).decode()

    @property
    def id(self) -> str:
        """The key's short name; see `key_id`."""
        return key_id(self.public)

    def sign(self, message: bytes) -> bytes:
        """The 64-byte signature of exactly these bytes."""
        return self._private.sign(message)

    def sign_document(self, document: Any, context: Context) -> tuple[str, str]:
        """(key id, base64 signature) of a document in its context.

        Raises Invalid if the document has no canonical form.
        """
        return self.id, base64.b64encode(self.sign(message_of(document, context))).decode()


def key_id(public: bytes) -> str:
    """The first 16 hex digits of the SHA-256 of the 32 raw public bytes."""
    return hashlib.sha256(public).hexdigest()[:16]


def message_of(document: Any, context: Context) -> bytes:
    """The bytes that the signature of a document covers."""
    return f"countersign/{context}/1\n{canonical.digest(document)}\n".encode()


def verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether this is the key's signature of the message; False if anything is malformed."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def verify_document(public_text: str, document: Any, context: Context, signature: str) -> bool:
    """Whether this is the key's signature of the document in this context.

    Key and signature are base64. The answer is False if anything is malformed.
    """
    try:
        public = base64.b64decode(public_text, validate=True)
        raw = base64.b64decode(signature, validate=True)
        message = message_of(document, context)
    except (binascii.Error, ValueError, RegistryError):
        return False
    return verify(public, message, raw)


def _unreadable(path: Path) -> Invalid:
    return Invalid(
        "bad-key",
        f"{path} is not a readable Ed25519 private key.",
        "Use an unencrypted PKCS8 PEM file.",
    )
