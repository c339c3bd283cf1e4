"""The offline verifier as tests run it: the real command, on packs that they build or spoil."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from registry import verifier
from registry.proof import merkle, notes
from registry.proof.keys import SigningKey
from tests.proof.packs import ORIGIN, declare, members, story

KEY = SigningKey.generate()
HEADS = (1, 4, 9, 16)


def honest() -> dict[str, bytes]:
    """The members of the pack of the whole story, with some earlier tree heads."""
    return members(story(), KEY, HEADS)


def redeclared(found: dict[str, bytes]) -> dict[str, bytes]:
    """The members with a pack.json that fits them again: all an attacker without the key can
    fix.
    """
    rest = {name: data for name, data in found.items() if name != "pack.json"}
    leaves = [merkle.leaf_hash(entry) for entry in rest.get("events.jsonl", b"").split(b"\n")[:-1]]
    return declare(rest, len(leaves), merkle.root(leaves))


def ends(*arguments: object) -> tuple[int, str]:
    """Exit code and output of the command."""
    with redirect_stdout(io.StringIO()) as out:
        code = verifier.main([str(one) for one in arguments])
    return code, out.getvalue()


class Judge:
    """Judges packs by the log key that the auditor holds."""

    def __init__(self, folder: Path) -> None:
        self.pack, self.key = folder / "pack.zip", folder / "auditor.pub"
        self.key.write_text(notes.verifier_key(ORIGIN, KEY.public) + "\n")

    def __call__(self, archive: bytes) -> dict[str, Any]:
        self.pack.write_bytes(archive)
        code, out = ends(self.pack, "--key", self.key, "--json")
        answer: dict[str, Any] = json.loads(out)
        assert set(answer) == {"ok", "events", "size", "root", "votes", "problems"}
        assert (code, answer["ok"]) == ((8, False) if answer["problems"] else (0, True))
        return answer

    def refuses(self, archive: bytes, because: str) -> None:
        """Refused, and first of all for this reason."""
        problems = self(archive)["problems"]
        assert problems, "accepted"
        assert because in problems[0]
