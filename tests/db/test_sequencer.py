"""The log's single writer: contiguous numbers, signatures only over what is durable, and none over
a changed past.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text

from registry import verifier
from registry.blobs.store import Blobs
from registry.db import sequence
from registry.db.store import Store, open_engine
from registry.errors import Conflict, Fault, Unverified
from registry.proof import notes
from registry.proof.keys import SigningKey
from registry.queries import audit
from registry.rules.actors import SYSTEM
from registry.sequencer import Sequencer, Witness
from tests.build import a_person, a_world, approved
from tests.gateway.served import until

ORIGIN = "countersign.local/sequenced"


@dataclass
class Log:
    """A log of one's own: its store, its key, its witness file, and sequencers on it."""

    store: Store
    url: str
    engine: Engine
    key: SigningKey
    file: Path

    @property
    def trusted(self) -> str:
        return notes.verifier_key(ORIGIN, self.key.public)

    def sequencer(self, witness: Witness | None = None) -> Sequencer:
        return Sequencer(Store(self.engine), self.key, ORIGIN, witness or Witness(self.file))

    def ask(self, statement: str) -> Any:
        with self.store.read(SYSTEM) as session:
            return session.execute(text(statement)).all()

    def tamper(self, *statements: str) -> None:
        """Change the log as its owner can who turns the triggers off: a restored backup, an
        intruder.
        """
        engine = create_engine(self.url)
        with engine.begin() as connection:
            for table in ("event", "leaf", "tree_head", "event_row"):
                connection.execute(text(f"alter table {table} disable trigger user"))
            for statement in statements:
                connection.execute(text(statement))
            for table in ("event", "leaf", "tree_head", "event_row"):
                connection.execute(text(f"alter table {table} enable trigger user"))
        engine.dispose()

    def notes(self) -> list[str]:
        """What the file outside the database holds."""
        return (
            [block + "\n" for block in self.file.read_text().split("\n\n\n") if block.strip()]
            if self.file.exists()
            else []
        )

    def export(self, folder: Path) -> int:
        """Export the log and check it offline; the verifier's exit status."""
        pack, key = folder / "pack.zip", folder / "log.pub"
        out = io.BytesIO()
        audit.export(self.store, SYSTEM, self.trusted, out)
        pack.write_bytes(out.getvalue())
        key.write_text(self.trusted + "\n")
        return verifier.main([str(pack), "--key", str(key)])


@pytest.fixture
def log(fresh_store: Store, fresh_database: str, tmp_path: Path) -> Iterator[Log]:
    """A log with the built-in policies in it and nothing numbered."""
    engine = open_engine(fresh_database, "countersign_sequencer")
    yield Log(
        fresh_store, fresh_database, engine, SigningKey.generate(), tmp_path / "tree-heads.log"
    )
    engine.dispose()


def test_numbers_are_contiguous_while_many_write(log: Log) -> None:
    stop = threading.Event()
    runner = threading.Thread(target=log.sequencer().run, args=(stop,))
    runner.start()
    with ThreadPoolExecutor(8) as pool:
        people = list(pool.map(lambda _: a_person(log.store, "engineer", signs=False), range(64)))
    until(lambda: log.ask("select count(*) from event_pending") == [(0,)])
    until(
        lambda: (
            log.ask("select note is not null from tree_head order by size desc limit 1")
            == [(True,)]
        )
    )
    stop.set()
    runner.join(60)
    assert not runner.is_alive()
    assert len(people) == 64
    (events,) = log.ask("select count(*) from event")[0]
    assert [seq for (seq,) in log.ask("select seq from leaf order by seq")] == list(range(events))
    assert log.ask("select count(distinct event_id) from leaf") == [(events,)]
    checked = audit.check(log.store, SYSTEM, log.trusted)
    assert (checked.problems, checked.size) == ([], events)


def test_a_signature_covers_only_what_is_durable(log: Log) -> None:
    """Asked over another connection at the moment of signing: leaves and head are there, and their
    note is not yet.
    """
    seen: list[tuple[int, int, bool]] = []

    class Asking(Witness):
        def add(self, note: str) -> None:
            size = notes.parse_checkpoint(note.split("\n\n")[0] + "\n")[1]
            [(leaves,)] = log.ask("select count(*) from leaf")
            [(unsigned,)] = log.ask(f"select note is null from tree_head where size = {size}")
            seen.append((size, leaves, unsigned))
            super().add(note)

    sequencer = log.sequencer(Asking(log.file))
    sequencer.step()
    a_person(log.store, "engineer")
    sequencer.step()
    assert len(seen) == 2
    assert all(size == leaves and unsigned for size, leaves, unsigned in seen)


def test_the_file_outside_only_grows(log: Log) -> None:
    sequencer = log.sequencer()
    assert sequencer.step() == 3  # the three built-in policies
    before = log.file.read_bytes()
    assert sequencer.step() == 0
    assert log.file.read_bytes() == before
    a_person(log.store, "engineer")
    assert sequencer.step() == 2
    assert log.file.read_bytes().startswith(before)
    sizes = [notes.open_tree_head(note, log.trusted)[0] for note in log.notes()]
    assert sizes == [3, 5]
    assert log.file.stat().st_mode & 0o777 == 0o600
    assert [note for (note,) in log.ask("select note from tree_head order by size")] == log.notes()


def test_a_crash_before_the_signature_is_made_good(log: Log) -> None:
    with Store(log.engine).upkeep("number, then crash") as session:
        assert sequence.number_pending(session, 100) == 3
    assert log.ask("select size, note from tree_head") == [(3, None)]
    sequencer = log.sequencer()
    sequencer.guard()
    assert sequencer.step() == 0
    [(note,)] = log.ask("select note from tree_head")
    assert notes.open_tree_head(note, log.trusted)[0] == 3
    assert log.notes() == [note]


def test_a_crash_after_the_file_was_written_is_made_good(log: Log) -> None:
    class Crashing(Witness):
        def add(self, note: str) -> None:
            super().add(note)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        log.sequencer(Crashing(log.file)).step()
    assert log.ask("select size, note from tree_head") == [(3, None)]
    again = log.sequencer()
    again.guard()
    again.step()
    [(note,)] = log.ask("select note from tree_head")
    assert log.notes() == [note]


def test_a_torn_last_line_of_the_file_is_no_lie(log: Log) -> None:
    """A power cut in the middle of the write: what is whole in the file still guards, and signing
    goes on.
    """
    sequencer = log.sequencer()
    sequencer.step()
    with log.file.open("ab") as file:
        file.write(log.file.read_bytes()[:40])
    a_person(log.store, "engineer")
    again = log.sequencer()
    again.guard()
    again.step()
    again.guard()
    assert audit.check(log.store, SYSTEM, log.trusted).problems == []


RESTORED = (
    "delete from leaf",
    "delete from tree_head",
    "delete from event_row",
    "delete from event_pending",
    "delete from event where place > 2",
    "insert into event_pending select place, id from event",
)
PAST: dict[str, tuple[str, ...]] = {
    "an older backup": RESTORED,
    "an event rewritten": (
        "update event set entry = convert_to(replace(convert_from(entry, 'UTF8'), 'system', "
        "'nobody'), 'UTF8') "
        "where place = 1",
    ),
    "two events swapped": (
        "delete from leaf where seq in (0, 1)",
        "insert into leaf select 0, id, sha256('') from event where place = 2",
        "insert into leaf select 1, id, sha256('') from event where place = 1",
    ),
    "an empty database": (
        "delete from leaf",
        "delete from tree_head",
        "delete from event_row",
        "delete from event_pending",
        "delete from event",
    ),
}


@pytest.mark.parametrize("what", PAST)
def test_a_changed_past_is_never_signed(log: Log, what: str) -> None:
    log.sequencer().step()
    log.tamper(*PAST[what])
    before = log.file.read_bytes()
    a_person(log.store, "engineer")
    sequencer = log.sequencer()
    with pytest.raises(Unverified) as refusal:
        sequencer.guard()
    assert refusal.value.kind == "log-forked"
    with pytest.raises(Unverified):
        sequencer.run(threading.Event())
    assert log.file.read_bytes() == before
    assert log.ask("select count(*) from event_pending") != [(0,)]


def test_an_older_backup_is_not_signed_even_without_the_guard(log: Log) -> None:
    sequencer = log.sequencer()
    a_person(log.store, "engineer")
    sequencer.step()
    log.tamper(*RESTORED)
    a_person(log.store, "engineer", signs=False)
    with pytest.raises(Unverified) as refusal:
        sequencer.step()
    assert refusal.value.kind == "log-forked"
    assert len(log.notes()) == 1


def test_one_leads(log: Log) -> None:
    with sequence.leadership(log.engine) as first, sequence.leadership(log.engine) as second:
        assert (first, second) == (True, False)
    with sequence.leadership(log.engine) as later:
        assert later


def test_a_second_sequencer_waits_and_takes_over(log: Log) -> None:
    stop = threading.Event()
    with sequence.leadership(log.engine) as leading:
        assert leading
        runner = threading.Thread(target=log.sequencer().run, args=(stop,))
        runner.start()
        time.sleep(0.5)
        assert log.ask("select count(*) from event_pending") == [(3,)]
    until(lambda: log.ask("select count(*) from event_pending") == [(0,)])
    stop.set()
    runner.join(60)
    assert not runner.is_alive()


def test_two_that_both_believe_to_lead_fork_nothing(log: Log) -> None:
    """Should the lock be lost unnoticed, the numbers' own keys make one of them fail."""

    def steps(sequencer: Sequencer) -> None:
        for _ in range(12):
            with suppress(Fault, Conflict):
                sequencer.step()

    with ThreadPoolExecutor(3) as pool:
        two = [pool.submit(steps, log.sequencer()) for _ in range(2)]
        writer = pool.submit(
            lambda: [a_person(log.store, "engineer", signs=False) for _ in range(20)]
        )
        for one in (*two, writer):
            one.result()
    log.sequencer().step()
    assert audit.check(log.store, SYSTEM, log.trusted).problems == []


def test_the_sequencer_waits_for_a_database_that_went_away(log: Log) -> None:
    stop = threading.Event()
    runner = threading.Thread(target=log.sequencer().run, args=(stop,))
    runner.start()
    until(lambda: log.ask("select count(*) from leaf") == [(3,)])
    engine = create_engine(log.url)
    with engine.connect() as connection:
        connection.execute(
            text(
                "select pg_terminate_backend(pid) from pg_stat_activity where datname = "
                "current_database() "
                "and application_name = 'countersign_sequencer'"
            )
        )
    engine.dispose()
    a_person(log.store, "engineer", signs=False)
    until(lambda: log.ask("select count(*) from leaf") == [(4,)])
    stop.set()
    runner.join(60)
    assert not runner.is_alive()


def test_a_rewritten_event_is_told_online_and_offline(
    log: Log, blobs: Blobs, tmp_path: Path
) -> None:
    approved(a_world(log.store, blobs, "offline"))
    sequencer = log.sequencer()
    sequencer.step()
    assert audit.check(log.store, SYSTEM, log.trusted).ok
    assert log.export(tmp_path) == 0
    log.tamper(
        "update event set entry = convert_to(replace(convert_from(entry, 'UTF8'), "
        '\'"verdict":"approve"\', '
        "'\"verdict\":\"reject\"'), 'UTF8') where action = 'review:vote'"
    )
    checked = audit.check(log.store, SYSTEM, log.trusted)
    assert any("is not the hash of event" in problem for problem in checked.problems)
    assert log.export(tmp_path) == 8


def test_a_log_signed_anew_with_another_key_convinces_nobody(log: Log, tmp_path: Path) -> None:
    log.sequencer().step()
    log.tamper(
        "update event set entry = convert_to(replace(convert_from(entry, 'UTF8'), 'system', "
        "'nobody'), 'UTF8')",
        "delete from leaf",
        "delete from tree_head",
        "insert into event_pending select place, id from event",
    )
    forged = Sequencer(
        Store(log.engine), SigningKey.generate(), ORIGIN, Witness(tmp_path / "forged")
    )
    forged.step()
    assert any(
        "no signature by the given key" in one
        for one in audit.check(log.store, SYSTEM, log.trusted).problems
    )
    with pytest.raises(Unverified):
        log.export(tmp_path)
