"""The single writer of the transparency log: numbers pending events, then signs the tree head.

A signature must never cover a tree that a crash can undo, so a head is signed only after the COMMIT
of its leaves. It is signed only when its tree extends the newest one in the witness file, which is
outside of the database, so that a restored backup or a rewritten history is never signed.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from registry import log
from registry.db import sequence
from registry.db.store import Store
from registry.errors import Invalid, Unverified
from registry.proof import merkle, notes
from registry.proof.keys import SigningKey

MAX_BATCH = 5000
"""How many events one transaction numbers at most."""
INTERVAL_SECONDS = 0.25
"""The pause after a batch that was not full."""
END = "\n\n\n"
"""The end of a note in the witness file. A note itself has no two empty lines in a row."""


@dataclass(frozen=True, slots=True)
class Witness:
    """The signed tree heads in an append-only file outside of the database."""

    path: Path

    def newest(self) -> tuple[int, bytes] | None:
        """(size, root) of the last note in the file; None without one.

        A note that a power cut truncated is skipped.
        """
        if not self.path.exists():
            return None
        for block in reversed(self.path.read_text().split(END)):
            with suppress(Invalid):
                _, size, root = notes.parse_checkpoint(block.strip("\n").split("\n\n")[0] + "\n")
                return size, root
        return None

    def add(self, note: str) -> None:
        """Append a note durably. The file only grows."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "r+b") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - len(END)))
            is_truncated = size > 0 and file.read() != END.encode()
            file.write(((END if is_truncated else "") + note.rstrip("\n") + END).encode())
            file.flush()
            os.fsync(file.fileno())


class Sequencer:
    """Numbers events, hashes them into the log, and signs its tree heads.

    A session lock of PostgreSQL ensures that only one runs at a time.
    """

    def __init__(self, store: Store, key: SigningKey, origin: str, witness: Witness) -> None:
        self.store = store
        self.key = key
        self.origin = origin
        self.witness = witness

    def guard(self) -> None:
        """Raise Unverified `log-forked` when the database no longer contains what was signed."""
        signed = self.witness.newest()
        if signed is None:
            return
        size, root = signed
        with self.store.upkeep("guard the log") as session:
            hashes = sequence.leaf_hashes(session, size)
            if len(hashes) < size or merkle.root(hashes) != root:
                raise Unverified(
                    "log-forked",
                    f"The database does not contain the log that was signed at {size} entries "
                    f"(it has {len(hashes)}, or their root differs).",
                    "An older backup was restored or history was changed. Nothing is signed; "
                    f"compare with {self.witness.path}.",
                )

    def step(self) -> int:
        """Number one batch of events, then sign the newest head; how many events were numbered."""
        with self.store.upkeep("sequence events") as session:
            numbered = sequence.number_pending(session, MAX_BATCH)
        self.sign()
        return numbered

    def sign(self) -> None:
        """Sign the newest committed head, unless it is signed.

        The note goes to the witness file first, then into the head's row.
        """
        with self.store.upkeep("sign the tree head") as session:
            head = sequence.newest_head(session)
            if head is None or head.note is not None:
                return
            signed = self.witness.newest()
            root = bytes.fromhex(head.root.removeprefix("sha256:"))
            if signed is not None and (
                signed[0] > head.size or (signed[0] == head.size and signed[1] != root)
            ):
                raise Unverified(
                    "log-forked",
                    "A larger or different tree head was signed before.",
                    f"Nothing is signed; compare with {self.witness.path}.",
                )
            note = notes.sign_note(
                notes.checkpoint_text(self.origin, head.size, root), self.origin, self.key
            )
            if signed is None or signed[0] < head.size:
                self.witness.add(note)
            head.note = note

    def run(self, stop: threading.Event) -> None:
        """Write the log until `stop` is set.

        Errors of the database are retried after a second; Unverified ends it.
        """
        while not stop.is_set():
            try:
                with sequence.leadership(self.store.engine) as leading:
                    if not leading:
                        stop.wait(1.0)
                        continue
                    self.guard()
                    while not stop.is_set():
                        if self.step() < MAX_BATCH:
                            stop.wait(INTERVAL_SECONDS)
            except Unverified:
                log.LOGGER.exception("the log was not continued")
                raise
            except Exception as error:
                log.LOGGER.warning("sequencer waits: %s", error)
                stop.wait(1.0)
