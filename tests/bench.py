"""`make bench`: the figures of docs/performance.md, each beside what it is held against, in one
run.

Ratios of medians are what counts: machines are noisy. Nothing here is a test.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import httpx
from sqlalchemy import text

from registry.db import migrate
from registry.db.store import Store, open_engine
from registry.db.versions import Line
from registry.postgres.cluster import Cluster
from registry.proof import notes
from registry.proof.keys import SigningKey
from registry.queries import packs
from registry.rules.actions import Action
from registry.rules.actors import SYSTEM
from registry.sequencer import Sequencer, Witness
from tests.benches import (
    RUNS,
    blobs,
    disks,
    limits,
    paired,
    process,
    pulls,
    registering,
    search,
    tensors,
    timed,
)
from tests.build import install_policies
from tests.checkout import repository
from tests.database import open_databases
from tests.gateway.served import until

# A table without triggers: what PostgreSQL itself asks for one durable row.
PLAIN = text(
    "insert into personal select 'sha256:' || encode(sha256(gen_random_uuid()::text::bytea), "
    "'hex'), 'bench', "
    "'', 'x'"
)
WRITES = 400


def ready() -> None:
    """First start on an empty home, then a second start: seconds until /readyz answers."""
    with tempfile.TemporaryDirectory(prefix="cs") as home:
        for which in ("first start to /readyz, initdb and all", "second start to /readyz"):
            began = time.perf_counter()
            bare = {
                name: value
                for name, value in os.environ.items()
                if not name.startswith("COUNTERSIGN_")
            }
            up = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "registry",
                    "up",
                    "--home",
                    home,
                    "--port",
                    "18999",
                    "--json",
                ],
                cwd=repository(),
                env=bare,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            assert up.stdout is not None
            json.loads(up.stdout.readline())
            print(f"{which:<44}{time.perf_counter() - began:>9.1f} s    bound 15 s")
            if which.startswith("second"):
                _killed(Path(home))
            up.terminate()
            up.wait(60)
            up.stdout.close()


def _killed(home: Path) -> None:
    """Kill PostgreSQL under a running `up`: seconds until /readyz answers again."""
    cluster = Cluster(home)
    pid, url = cluster.pid(), (home / "private" / "url").read_text().strip()
    assert pid is not None
    began = time.perf_counter()
    os.kill(pid, signal.SIGKILL)

    def ready_again() -> bool:
        with suppress(httpx.TransportError):
            return cluster.pid() not in (None, pid) and httpx.get(f"{url}/readyz").is_success
        return False

    until(ready_again, "PostgreSQL is back")
    took = time.perf_counter() - began
    print(f"{'a killed PostgreSQL is back':<44}{took:>9.1f} s    bound 5 s")


def log(store: Store, sequencer: Sequencer) -> None:
    """What the audit costs a write, how fast the sequencer drains, how fast the verifier reads."""

    def line() -> Line:
        return Line(
            id=uuid4(), kind="adapter", team=f"b{uuid4().hex[:12]}", name="x", created_at=moment
        )

    with store.read(SYSTEM) as session:
        moment = session.execute(text("select now()")).scalar_one()

    def audited() -> None:
        for _ in range(WRITES // RUNS):
            with store.write(SYSTEM, Action.VERSION_REGISTER) as tx:
                tx.audit(tx.add(line()).ref)

    def plain() -> None:
        with store.engine.connect() as connection:
            for _ in range(WRITES // RUNS):
                connection.execute(PLAIN)
                connection.commit()

    paired(f"{WRITES // RUNS} audited writes", audited, plain, "as many plain inserts")
    began = time.perf_counter()
    done = 0
    while step := sequencer.step():
        done += step
    print(f"{'sequencer drains':<44}{done / (time.perf_counter() - began):>9.0f} events/s")
    with tempfile.TemporaryDirectory() as folder:
        path, key = Path(folder) / "pack.zip", Path(folder) / "log.pub"
        trusted = notes.verifier_key(sequencer.origin, sequencer.key.public)
        key.write_text(trusted + "\n")
        with path.open("w+b") as out:
            packs.export(store, SYSTEM, trusted, out)
        seconds = timed(process("-m", "registry.verifier", str(path), "--key", str(key)))
        print(f"{'offline verifier':<44}{done / seconds:>9.0f} entries/s, start included")


def main() -> None:
    paired(
        "countersign --help",
        process("-m", "registry", "--help"),
        process("-c", "pass"),
        "bare Python",
    )
    ready()
    tensors.run()
    limits.run()
    blobs.run()
    pulls.run()
    disks.run()
    search.run()
    registering.run()
    with tempfile.TemporaryDirectory(prefix="cs") as home, open_databases(Path(home)) as databases:
        url = databases.create("bench")
        migrate.upgrade(url)
        store, keeper = (
            Store(open_engine(url, f"countersign_{role}")) for role in ("app", "sequencer")
        )
        install_policies(store)
        key = SigningKey.generate()
        sequencer = Sequencer(
            keeper, key, "countersign.local/bench", Witness(Path(home) / "heads.log")
        )
        log(store, sequencer)
        store.engine.dispose()
        keeper.engine.dispose()


if __name__ == "__main__":
    main()
