"""The audit log: events, tree heads, proofs and the evidence pack."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from registry.client import log_proofs
from registry.client.transport import SLOW, Transport
from registry.proof import notes
from registry.views.audit import EventPage, EventView, LogCheckView, LogProofView, TreeHeadView


class Audit(Transport):
    """Who did what, when and why, and how that is proven."""

    def events(
        self, action: str | None = None, subject: str | None = None, limit: int = 50
    ) -> list[EventView]:
        """Return the newest entries of the log, at most `limit`."""
        return list(
            islice(self._items("/audit/events", EventPage, action=action, subject=subject), limit)
        )

    def tree_head(self) -> TreeHeadView:
        """Return the newest signed tree head."""
        return self._get("/audit/tree-head", TreeHeadView)

    def prove_entry(
        self, seq: int, log_key: str, *, leaf: str | None = None, size: int | None = None
    ) -> LogProofView:
        """Fetch the proof that entry `seq` is in the log, and check it with the log's public key.

        `leaf` is the hash of the entry as you hold it (`sha256:<hex>`); without it, the proof is
        about the hash that the registry names. `size` is the size of a signed tree head, by default
        the newest. Raises Unverified; its kind `proof-wrong` means that the registry contradicts
        what it signed.
        """
        proof = self._get("/log/proof", LogProofView, seq=seq, size=size)
        log_proofs.check_entry(proof, seq, leaf or proof.leaf, log_key)
        return proof

    def prove_growth(self, old_head: str, log_key: str, *, size: int | None = None) -> LogProofView:
        """Fetch and check the proof that the log has only grown since a tree head that you kept.

        `old_head` is the note of that signed tree head. Raises the same errors as `prove_entry`.
        """
        old_size, _ = notes.open_tree_head(old_head, log_key)
        proof = self._get("/log/proof", LogProofView, old_size=old_size, size=size)
        log_proofs.check_growth(proof, old_head, log_key)
        return proof

    def check_log(self) -> LogCheckView:
        """Have the registry recompute its whole log.

        An auditor who does not trust the registry exports the log and checks it offline.
        """
        return self._get("/audit/check", LogCheckView, timeout=SLOW)

    def export(self, dest: str | Path) -> Path:
        """Fetch the evidence pack (zip) to `dest`, which appears whole or not at all."""
        dest = Path(dest)
        part = dest.with_name(f".{dest.name}.part")

        def attempt() -> None:
            with part.open("wb") as out, self._open("GET", "/audit/export", timeout=SLOW) as answer:
                for chunk in answer.iter_bytes():
                    out.write(chunk)

        try:
            self._patiently(attempt)
            return part.replace(dest)
        finally:
            part.unlink(missing_ok=True)
