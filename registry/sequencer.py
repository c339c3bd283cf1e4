"""The transparency log's single writer: pending events -> leaves -> tree head, and only after
COMMIT a signature.

A signature must never cover a tree that a crash can undo, so the note is made when the leaves are
durable; and it is made only for a tree that extends the newest one held outside the database, so
that a restored backup or a rewritten history is never signed.
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

BATCH = 5000
INTERVAL = 0.25
END = "\n\n\n"
"""What ends a note in the witness file: a note itself holds no two empty lines in a row."""


@dataclass(frozen=True, slots=True)
class Witness:
    """The newest signed tree heads, kept in an append-only file outside the database."""

    path: Path

    def newest(self) -> tuple[int, bytes] | None:
        """(size, root) of the last note in the file; what a power cut tore off is no note, and is
        passed over.
        """
        if not self.path.exists():
            return None
        for block in reversed(self.path.read_text().split(END)):
            with suppress(Invalid):
                _, size, root = notes.parse_checkpoint(block.strip("\n").split("\n\n")[0] + "\n")
                return size, root
        return None

    def add(self, note: str) -> None:
        """Append a note durably; the file only ever grows."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "r+b") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - len(END)))
            torn = size > 0 and file.read() != END.encode()
            file.write(((END if torn else "") + note.rstrip("\n") + END).encode())
            file.flush()
            os.fsync(file.fileno())


class Sequencer:
    """Numbers events, hashes them into the log, and signs its heads; one at a time, by a session
    lock.
    """

    def __init__(self, store: Store, key: SigningKey, origin: str, witness: Witness) -> None:
        self.store = store
        self.key = key
        self.origin = origin
        self.witness = witness

    def guard(self) -> None:
        """Refuse to go on when the database no longer contains what was signed: Unverified
        `log-forked`.
        """
        known = self.witness.newest()
        if known is None:
            return
        size, root = known
        with self.store.upkeep("guard the log") as session:
            held = sequence.leaf_hashes(session, size)
            if len(held) < size or merkle.root(held) != root:
                raise Unverified(
                    "log-forked",
                    f"The database does not contain the log that was signed at {size} entries "
                    f"(it holds {len(held)}, or their root differs).",
                    "An older backup was restored or history was changed. Nothing is signed; "
                    f"compare with {self.witness.path}.",
                )

    def step(self) -> int:
        """Sequence one batch, then sign the newest head that is not signed yet; how many events
        were numbered.
        """
        with self.store.upkeep("sequence events") as session:
            done = sequence.number_pending(session, BATCH)
        self.sign()
        return done

    def sign(self) -> None:
        """Sign the newest committed head, publish it outside the database first, then note it in
        its row.
        """
        with self.store.upkeep("sign the tree head") as session:
            head = sequence.newest_head(session)
            if head is None or head.note is not None:
                return
            known = self.witness.newest()
            root = bytes.fromhex(head.root.removeprefix("sha256:"))
            if known is not None and (
                known[0] > head.size or (known[0] == head.size and known[1] != root)
            ):
                raise Unverified(
                    "log-forked",
                    "A larger or different tree head was signed before.",
                    f"Nothing is signed; compare with {self.witness.path}.",
                )
            note = notes.sign_note(
                notes.checkpoint_text(self.origin, head.size, root), self.origin, self.key
            )
            if known is None or known[0] < head.size:
                self.witness.add(note)
            head.note = note

    def run(self, stop: threading.Event) -> None:
        """Lead until told to stop; database trouble is waited out, a fork is not survived."""
        while not stop.is_set():
            try:
                with sequence.leadership(self.store.engine) as leading:
                    if not leading:
                        stop.wait(1.0)
                        continue
                    self.guard()
                    while not stop.is_set():
                        if self.step() < BATCH:
                            stop.wait(INTERVAL)
            except Unverified:
                log.LOGGER.exception("the log was not continued")
                raise
            except Exception as error:
                log.LOGGER.warning("sequencer waits: %s", error)
                stop.wait(1.0)
