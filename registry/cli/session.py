"""Which registry, as whom, with which signing key: the environment, else what `countersign login`
stored.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.cli.output import note
from registry.errors import Invalid, NotFound, RegistryError
from registry.proof.private_files import write_private

if TYPE_CHECKING:
    from registry.client import Countersign, Sign
    from registry.proof.keys import Context, SigningKey


def config_dir() -> Path:
    """COUNTERSIGN_CONFIG_DIR, else ~/.config/countersign."""
    named = os.environ.get("COUNTERSIGN_CONFIG_DIR")
    return Path(named) if named else Path.home() / ".config" / "countersign"


def address() -> tuple[str | None, str | None]:
    """URL and token in force. A stored token goes only to the registry it was stored for."""
    url, token = os.environ.get("COUNTERSIGN_URL"), os.environ.get("COUNTERSIGN_TOKEN")
    if told_by_environment():
        return url, token
    stored = _stored()
    if not url or url.rstrip("/") == stored.get("url"):
        return url or stored.get("url"), token or stored.get("token")
    return url, token


def told_by_environment() -> bool:
    """Whether the environment names both a registry and a token; nothing else counts then."""
    return bool(os.environ.get("COUNTERSIGN_URL") and os.environ.get("COUNTERSIGN_TOKEN"))


@contextmanager
def connect(url: str | None = None, token: str | None = None) -> Iterator[Countersign]:
    """The client for this command, of the address in force unless told otherwise."""
    from registry.client import Countersign

    told = False

    def on_wait(error: RegistryError) -> None:
        nonlocal told
        if not told:
            note(f"Waiting for the registry: {error.detail}")
            told = True

    if url is None:
        url, token = address()
    with Countersign(url, token, on_wait=on_wait) as registry:
        yield registry


def remember(url: str, token: str) -> Path:
    """Store a sign-in, readable by its owner alone."""
    folder = config_dir()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    stored = json.dumps({"url": url.rstrip("/"), "token": token})
    return write_private(folder / "login.json", stored)


def signing_key_path(named: Path | None) -> Path:
    """--key-file, else signing.key in the configuration folder."""
    return named or config_dir() / "signing.key"


def signing_key(named: Path | None) -> SigningKey:
    """The person's own key; NotFound tells how to get one."""
    from registry.proof.keys import SigningKey

    path = signing_key_path(named)
    if not path.exists():
        raise NotFound(
            "no-signing-key",
            f"There is no signing key at {path}, and a vote is nothing without a signature.",
        )
    return SigningKey.load(path)


def signer(named: Path | None, context: Context) -> Sign:
    """Sign documents of one context with the person's own key."""
    key = signing_key(named)
    return lambda document: key.sign_document(document, context)


def document(path: Path | None) -> Mapping[str, Any]:
    """A YAML (or JSON) file that holds a mapping. No file is an empty mapping."""
    if path is None:
        return {}
    from registry.documents import strict_yaml

    try:
        loaded = strict_yaml.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise Invalid(
            "bad-yaml",
            f"{path} is not YAML with one meaning: {str(error)[:300]}.",
            "Fix the file, or write it as JSON.",
        ) from error
    if not isinstance(loaded, dict):
        raise Invalid("bad-yaml", f"{path} holds no mapping.", "Write one `name: value` a line.")
    try:
        # As it will be sent: dates become texts, and what JSON or UTF-8 cannot carry is said here.
        written = json.dumps(loaded, default=str, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise Invalid(
            "bad-yaml",
            f"{path} holds what JSON cannot carry: {error}.",
            "Write plain texts, numbers, lists and mappings; no .inf, no .nan, nothing that holds "
            "itself.",
        ) from error
    return {str(key): value for key, value in json.loads(written).items()}


def _stored() -> dict[str, str]:
    path = config_dir() / "login.json"
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return {"url": str(stored["url"]), "token": str(stored["token"])}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError) as error:
        raise Invalid("bad-login-file", f"{path} is damaged.") from error
