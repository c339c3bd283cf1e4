"""A process that dies at every step of a registration: `python -m tests.registering URL BLOBS
ACCOUNT TEAM BASE STRIDE`.

From the first byte sent to the commit of the row, every change of the blob folder, every SQL
statement and every COMMIT is a step. A fork dies just before its n-th (so just after the one
before); another fork then looks at what is to be seen, and runs the same command again. With a
stride only some of them are tried, but always those around the COMMIT of a change: PostgreSQL takes
back all statements of one transaction alike, and `tests.crashes` dies at all of the folder's.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import event, text

from registry.artifacts.weights.tensors import File
from registry.blobs import drafts
from registry.blobs.store import Blobs
from registry.blobs.uploads import Uploads
from registry.commands import blobs as sending
from registry.commands import versions
from registry.db.store import Store, open_engine
from registry.errors import NotFound
from registry.rules.actors import SYSTEM, Actor, Grant, Role
from tests.build import ADAPTER_META, adapter_files, put
from tests.crashes import CHANGES, alone

LIMIT = 1 << 20


class Steps:
    """Counts what a process does; before the step it is told to, it dies there. `kinds` says what
    each step was.
    """

    def __init__(self, last: int | None = None) -> None:
        self.last, self.kinds, self._changes = last, list[str](), False

    def take(self, kind: str) -> None:
        self.kinds.append(kind)
        if len(self.kinds) == self.last:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self, store: Store) -> None:
        event.listen(store.engine, "before_cursor_execute", self.state)
        event.listen(store.engine, "commit", self.commit)
        drafts.os = _Counted(self)  # type: ignore[attr-defined]

    def state(self, *given: Any) -> None:
        self._changes = self._changes or given[2].startswith(("INSERT", "UPDATE", "DELETE"))
        self.take("statement")

    def commit(self, _: Any) -> None:
        changes, self._changes = self._changes, False
        self.take("commit" if changes else "end")


class _Counted:
    def __init__(self, steps: Steps) -> None:
        self.steps = steps

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in CHANGES - {"mkdir"}:  # made or not, by what lies there already
            return real

        def call(*given: Any, **named: Any) -> Any:
            self.steps.take("folder")
            return real(*given, **named)

        return call


class Registration:
    """One adapter, sent and registered as a client does it: a resumable upload, a PUT, then the
    row.
    """

    def __init__(self, url: str, blobs: str, account: str, team: str, base: str) -> None:
        self.url, self.folder, self.team, self.base = url, Path(blobs), team, base
        self.actor = Actor(
            UUID(account), "killed", frozenset({Grant(Role.ENGINEER, team)}), via="test"
        )

    def open(self) -> tuple[Store, Blobs]:
        return Store(open_engine(self.url, "countersign_app", size=2)), Blobs(self.folder)

    def bundle(self, number: int) -> tuple[str, dict[str, bytes], list[File]]:
        """Its name, bytes and files, no byte of which another has: so each takes the same steps."""
        memory = Blobs("memory:///")
        weights, config = adapter_files(memory, number)
        alpha = memory.read(config.sha256, 0, config.size).replace(
            b'"lora_alpha": 4', b'"lora_alpha": %d' % (number + 5)
        )
        files = [weights, put(memory, config.path, alpha)]
        data = {one.sha256: memory.read(one.sha256, 0, one.size) for one in files}
        return f"{self.team}/killed-{number}", data, files

    def send(self, store: Store, blobs: Blobs, digest: str, data: bytes, *, whole: bool) -> None:
        if sending.usable(store, blobs, self.actor, digest):
            return

        def proven(whole: str) -> None:
            sending.sent(store, self.actor, whole)

        if whole:
            with blobs.incoming(digest, LIMIT) as incoming:
                incoming.write(data)
                incoming.finish(proven)
            return
        uploads, account = Uploads(blobs, LIMIT), str(self.actor.account)
        try:
            start = uploads.offset(account, digest)
        except NotFound:
            start = 0
        for end in (len(data) // 2, len(data)):
            if start < end or end == len(data):
                with uploads.sending(account, digest, start, LIMIT) as one:
                    one.write(data[start:end])
                    if end == len(data):
                        one.finish(proven)
                start = end

    def run(self, number: int, store: Store, blobs: Blobs) -> str:
        name, data, files = self.bundle(number)
        for file in files:
            self.send(
                store, blobs, file.sha256, data[file.sha256], whole=file.path.endswith(".json")
            )
        draft = versions.Draft("adapter", name, files, {**ADAPTER_META, "domain": "x"}, self.base)
        return versions.register(store, blobs, self.actor, draft).ref

    def die(self, number: int) -> None:
        store, blobs = self.open()
        Steps(number).watch(store)
        self.run(number, store, blobs)

    def look(self, number: int) -> None:
        """Nothing of it is to be seen, or all of it; and the same command again makes it whole."""
        store, blobs = self.open()
        name, _, files = self.bundle(number)
        seen = self.seen(store, name)
        assert seen in ([], [("registered", 1, len(files))]), seen
        assert self.run(number, store, blobs) == f"{name}@v1"
        assert self.seen(store, name) == [("registered", 1, len(files))]
        assert self.told(store, name) == 1
        assert all(blobs.verify(file.sha256) for file in files)
        assert (
            list((self.folder / drafts.INCOMING / str(self.actor.account)).iterdir()) == []
        )  # no upload is left

    def seen(self, store: Store, name: str) -> list[tuple[Any, ...]]:
        with store.read(SYSTEM) as session:
            lines = session.execute(
                text("select count(*) from line where name = :name"), {"name": name.split("/")[1]}
            )
            rows = session.execute(
                text(
                    "select v.state, v.number, (select count(*) from version_file f where "
                    "f.version_id = v.id) as files "
                    "from node n join version v on v.id = n.id where n.ref like :ref"
                ),
                {"ref": f"{name}@%"},
            )
            found = [tuple(row) for row in rows]
            assert lines.scalar_one() == len(found)
        return found

    def told(self, store: Store, name: str) -> int:
        statement = text(
            "select count(*) from event where action = 'version:register' and subject like :ref"
        )
        with store.read(SYSTEM) as session:
            return int(session.execute(statement, {"ref": f"{name}@%"}).scalar_one())

    def count(self, into: Path) -> None:
        """The steps of one that nobody kills, to a file: a fork hands nothing back but its
        status.
        """
        store, blobs = self.open()
        steps = Steps()
        steps.watch(store)
        self.run(0, store, blobs)
        into.write_text(" ".join(steps.kinds))


def main(url: str, blobs: str, account: str, team: str, base: str, stride: str) -> None:
    registration = Registration(url, blobs, account, team, base)
    told = Path(blobs).with_suffix(".steps")
    assert alone(lambda: registration.count(told)) == 0
    kinds = told.read_text().split()
    tried = 0
    for number in range(1, len(kinds) + 1):
        if "commit" not in kinds[max(0, number - 2) : number] and number % int(stride):
            continue
        tried += 1
        died = alone(lambda number=number: registration.die(number))  # type: ignore[misc]
        assert os.WIFSIGNALED(died) and os.WTERMSIG(died) == signal.SIGKILL, (
            f"step {number} was not reached: {died}"
        )
        assert alone(lambda number=number: registration.look(number)) == 0, (
            f"before step {number}, {kinds[number - 1]}"
        )  # type: ignore[misc]
    print(tried, len(kinds), kinds.count("commit"), kinds.count("folder"))


if __name__ == "__main__":
    main(*sys.argv[1:])
