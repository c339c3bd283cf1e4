"""Which registry to use, with which token and signing key.

They come from the environment, or else from what `countersign login` stored.
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
    """Return COUNTERSIGN_CONFIG_DIR, or else ~/.config/countersign."""
    configured = os.environ.get("COUNTERSIGN_CONFIG_DIR")
    return Path(configured) if configured else Path.home() / ".config" / "countersign"


def address() -> tuple[str | None, str | None]:
    """Return the URL and the token to use.

    A stored token is sent only to the registry that it was stored for.
    """
    url, token = os.environ.get("COUNTERSIGN_URL"), os.environ.get("COUNTERSIGN_TOKEN")
    if in_environment():
        return url, token
    stored = _stored_login()
    if not url or url.rstrip("/") == stored.get("url"):
        return url or stored.get("url"), token or stored.get("token")
    return url, token


def in_environment() -> bool:
    """Whether the environment names a registry and a token, and so overrides everything else."""
    return bool(os.environ.get("COUNTERSIGN_URL") and os.environ.get("COUNTERSIGN_TOKEN"))


@contextmanager
def connect(url: str | None = None, token: str | None = None) -> Iterator[Countersign]:
    """Yield the client for this command, by default with the URL and token of `address`."""
    from registry.client import Countersign

    noted = False

    def on_wait(error: RegistryError) -> None:
        nonlocal noted
        if not noted:
            note(f"Waiting for the registry: {error.detail}")
            noted = True

    if url is None:
        url, token = address()
    with Countersign(url, token, on_wait=on_wait) as registry:
        yield registry


def store_login(url: str, token: str) -> Path:
    """Store a URL and its token in a file that only its owner can read; return the file."""
    folder = config_dir()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    stored = json.dumps({"url": url.rstrip("/"), "token": token})
    return write_private(folder / "login.json", stored)


def signing_key_path(key_file: Path | None) -> Path:
    """Return --key-file, or else signing.key in the configuration folder."""
    return key_file or config_dir() / "signing.key"


def signing_key(key_file: Path | None) -> SigningKey:
    """Load the person's own key. Raises NotFound, which says how to create one."""
    from registry.proof.keys import SigningKey

    path = signing_key_path(key_file)
    if not path.exists():
        raise NotFound(
            "no-signing-key", f"There is no signing key at {path}, and every vote is signed."
        )
    return SigningKey.load(path)


def signer(key_file: Path | None, context: Context) -> Sign:
    """Return a function that signs documents of one context with the person's own key."""
    key = signing_key(key_file)
    return lambda document: key.sign_document(document, context)


def document(path: Path | None) -> Mapping[str, Any]:
    """Read a YAML (or JSON) file that contains a mapping. No file means an empty mapping.

    Values are returned as they will be sent: dates become texts. Raises Invalid (`bad-yaml`).
    """
    if path is None:
        return {}
    from registry.documents import strict_yaml

    try:
        loaded = strict_yaml.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise Invalid(
            "bad-yaml",
            f"{path} is not unambiguous YAML: {str(error)[:300]}.",
            "Fix the file, or write it as JSON.",
        ) from error
    if not isinstance(loaded, dict):
        raise Invalid(
            "bad-yaml", f"{path} does not contain a mapping.", "Write one `name: value` per line."
        )
    try:
        written = json.dumps(loaded, default=str, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise Invalid(
            "bad-yaml",
            f"{path} contains a value that JSON does not have: {error}.",
            "Use texts, finite numbers, lists and mappings, and no mapping that contains itself.",
        ) from error
    return {str(key): value for key, value in json.loads(written).items()}


def _stored_login() -> dict[str, str]:
    path = config_dir() / "login.json"
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return {"url": str(stored["url"]), "token": str(stored["token"])}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError) as error:
        raise Invalid("bad-login-file", f"{path} is damaged.") from error
