"""The audit log and lineage: what an auditor asks."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from registry.client import log_proofs
from registry.client.transport import SLOW, Transport, ref_path
from registry.proof import notes
from registry.views.audit import EventPage, EventView, LogCheckView, LogProofView, TreeHeadView
from registry.views.lineage import LineageView


class Audit(Transport):
    """Who did what, when, why, and how one knows."""

    def lineage(self, ref: str) -> LineageView:
        """Where a thing comes from and what derives from it."""
        return self._get(f"/lineage/{ref_path(ref)}", LineageView)

    def events(
        self, action: str | None = None, subject: str | None = None, limit: int = 50
    ) -> list[EventView]:
        """The newest entries of the log, at most `limit`."""
        return list(
            islice(self._items("/audit/events", EventPage, action=action, subject=subject), limit)
        )

    def tree_head(self) -> TreeHeadView:
        """The newest signed tree head."""
        return self._get("/audit/tree-head", TreeHeadView)

    def prove_entry(
        self, seq: int, log_key: str, *, leaf: str | None = None, size: int | None = None
    ) -> LogProofView:
        """The proof that entry `seq` is in the log, checked here with the log's public key.

        `leaf` is the hash of the entry as you hold it (`sha256:<hex>`); without it the proof is of
        the hash that the registry names. `size` is that of a signed tree head, the newest by
        default. Raises Unverified, of which `proof-wrong` means that the registry contradicts what
        it signed.
        """
        proof = self._get("/log/proof", LogProofView, seq=seq, size=size)
        log_proofs.check_entry(proof, seq, leaf or proof.leaf, log_key)
        return proof

    def prove_growth(self, old_head: str, log_key: str, *, size: int | None = None) -> LogProofView:
        """The proof that the log has only grown since the signed tree head `old_head`, checked here
        with the log's public key.

        `old_head` is the note of a tree head that you kept. Raises as `prove_entry` does.
        """
        old_size, _ = notes.open_tree_head(old_head, log_key)
        proof = self._get("/log/proof", LogProofView, old_size=old_size, size=size)
        log_proofs.check_growth(proof, old_head, log_key)
        return proof

    def check_log(self) -> LogCheckView:
        """Have the registry recompute its whole log. An auditor who trusts nobody exports it and
        checks offline.
        """
        return self._get("/audit/check", LogCheckView, timeout=SLOW)

    def export(self, dest: str | Path) -> Path:
        """Fetch the evidence pack (zip) to `dest`; it is there whole or not at all."""
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
