"""Check a proof about the log locally, trusting only the log's public key."""

from __future__ import annotations

from registry.errors import Unverified
from registry.proof import merkle, notes
from registry.views.audit import LogProofView


def check_entry(proof: LogProofView, seq: int, leaf: str | None, log_key: str) -> None:
    """Raise Unverified unless the proof shows the entry with this hash at `seq` of the log."""
    size, root = notes.open_tree_head(proof.note, log_key)
    if not merkle.verify_inclusion(seq, size, _raw(leaf), _hashes(proof), root):
        raise _wrong(f"does not show entry {seq} in the signed log of {size} entries", proof.note)


def check_growth(proof: LogProofView, old_head: str, log_key: str) -> None:
    """Raise Unverified unless the proof shows that the signed log only grew since `old_head`."""
    old_size, old_root = notes.open_tree_head(old_head, log_key)
    size, root = notes.open_tree_head(proof.note, log_key)
    if not merkle.verify_consistency(old_size, size, old_root, root, _hashes(proof)):
        raise _wrong(
            f"does not show that the signed log of {size} entries begins with the {old_size} "
            "entries of the earlier tree head",
            proof.note,
        )


def _hashes(proof: LogProofView) -> list[bytes]:
    return [_raw(text) for text in proof.hashes]


def _raw(text: str | None) -> bytes:
    """The bytes of `sha256:<hex>`; empty for anything else, which no proof accepts as a hash."""
    try:
        return bytes.fromhex((text or "").removeprefix("sha256:"))
    except ValueError:
        return b""


def _wrong(what: str, note: str) -> Unverified:
    return Unverified(
        "proof-wrong",
        f"The proof {what}.",
        "If you passed your own hash or tree head, check it first. Otherwise keep this answer and "
        "export the log at once: the registry contradicts what it signed.",
        note=note,
    )
