"""How a registration uses the database: few transactions, and none while bytes are read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save
from sqlalchemy import event

from registry.blobs.store import Blobs
from registry.commands import recalls, versions
from registry.db.store import Store, open_engine
from registry.errors import BundleRejected, Forbidden, Refused, RegistryError, Unverified
from registry.rules.actors import SYSTEM, Actor
from registry.views.versions import AddedView
from tests.build import (
    ADAPTER_META,
    BASE_META,
    MODULE,
    World,
    a_person,
    a_world,
    adapter_files,
    put,
    safetensors,
    sent,
)

DOMAIN = {**ADAPTER_META, "domain": "legal"}


class Watched(Blobs):
    """The blob store, which notes how many transactions are open whenever bytes are read or
    written.
    """

    def __init__(self, place: str, used: Used) -> None:
        super().__init__(place)
        self.used = used

    def read(self, digest: str, start: int, length: int) -> bytes:
        self.used.open_while_reading.append(self.used.open)
        return super().read(digest, start, length)

    def stream(self, *given: Any, **named: Any) -> Iterator[bytes]:
        self.used.open_while_reading.append(self.used.open)
        return super().stream(*given, **named)

    def put(self, *given: Any, **named: Any) -> Any:
        self.used.open_while_reading.append(self.used.open)
        return super().put(*given, **named)


@dataclass
class Used:
    """Transactions begun, how many are open now, and how many were while bytes were read."""

    begun: int = 0
    open: int = 0
    open_while_reading: list[int] = field(default_factory=list)

    def begin(self, _: object) -> None:
        self.begun += 1
        self.open += 1

    def end(self, _: object) -> None:
        self.open -= 1


@dataclass
class Bench:
    """A world on an engine of its own, whose transactions are counted."""

    world: World
    engine: Store
    place: str

    @contextmanager
    def counted(self) -> Iterator[tuple[Used, Watched]]:
        used = Used()
        heard = [("begin", used.begin), ("commit", used.end), ("rollback", used.end)]
        for name, note in heard:
            event.listen(self.engine.engine, name, note)
        try:
            yield used, Watched(self.place, used)
        finally:
            for name, note in heard:
                event.remove(self.engine.engine, name, note)
        assert used.open == 0
        assert set(used.open_while_reading) <= {0}

    def register(self, draft: versions.Draft, actor: Actor | None = None) -> tuple[AddedView, Used]:
        """What registering these bytes answers once they were sent, and what it took."""
        who = actor or self.world.engineer.actor
        sent(self.world.store, who, *(file.sha256 for file in draft.files))
        with self.counted() as (used, blobs):
            added = versions.register(self.engine, blobs, who, draft)
        assert used.open_while_reading
        return added, used

    def refused(
        self, error: type[RegistryError], draft: versions.Draft, actor: Actor | None = None
    ) -> int:
        """How many transactions a refusal takes, that of its own event included."""
        with self.counted() as (used, blobs), pytest.raises(error):
            versions.register(self.engine, blobs, actor or self.world.engineer.actor, draft)
        return used.begun


@pytest.fixture(scope="module")
def bench(store: Store, database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    place = tmp_path_factory.mktemp("registering").as_uri()
    engine = Store(open_engine(database, "countersign_app"))
    yield Bench(a_world(store, Blobs(place), "registering"), engine, place)
    engine.engine.dispose()


def a_base(bench: Bench, name: str, seed: int) -> versions.Draft:
    weights = safetensors({f"{MODULE}.weight": (8, 8), "model.norm.weight": (8,)}, seed)
    config = b'{"model_type":"llama","architectures":["LlamaForCausalLM"],"hidden_size":8}'
    blobs = bench.world.blobs
    files = [
        put(blobs, "model.safetensors", weights),
        put(blobs, "config.json", config),
        put(blobs, "tokenizer.json", b'{"version":"1.0","model":{}}'),
    ]
    return versions.Draft("base", f"registering/{name}", files, BASE_META)


def an_adapter(bench: Bench, name: str, seed: int) -> versions.Draft:
    files = adapter_files(bench.world.blobs, seed)
    return versions.Draft("adapter", f"registering/{name}", files, DOMAIN, bench.world.base.ref)


def a_quantised_checkpoint(bench: Bench, name: str) -> versions.Draft:
    base = a_base(bench, "unused", 0)  # the bytes of the world's base
    weights = base.files[0]
    arrays = load(bench.world.blobs.read(weights.sha256, 0, weights.size))
    halved = save({name: array.astype(np.float16) for name, array in arrays.items()})
    files = [put(bench.world.blobs, "model.safetensors", halved), *base.files[1:]]
    return versions.Draft(
        "checkpoint",
        f"registering/{name}",
        files,
        {"licence": "apache-2.0", "purpose": "to be tested"},
        quantised_of=bench.world.base.ref,
    )


def test_a_registration_takes_a_snapshot_and_a_transaction(bench: Bench) -> None:
    for draft in (
        a_base(bench, "own", 500),
        an_adapter(bench, "adapter", 501),
        a_quantised_checkpoint(bench, "half"),
    ):
        added, used = bench.register(draft)
        assert (added.status, used.begun) == ("registered", 2), draft.kind
        again, used = bench.register(draft)
        assert (again.ref, again.status, used.begun) == (added.ref, "found", 2), draft.kind


def test_what_is_found_again_leaves_no_event(bench: Bench) -> None:
    from sqlalchemy import text

    draft = an_adapter(bench, "told-once", 510)
    ref = bench.register(draft)[0].ref
    bench.register(draft)
    with bench.world.store.read(SYSTEM) as session:
        told = session.execute(
            text("select count(*) from event where subject = :ref"), {"ref": ref}
        )
        assert told.scalar_one() == 1


def test_a_refusal_takes_one_more(bench: Bench, tmp_path: Path) -> None:
    draft = an_adapter(bench, "refused", 520)
    unsent = replace(draft, files=[replace(draft.files[0], sha256="0" * 64), draft.files[1]])
    assert bench.refused(Unverified, unsent) == 1  # no rule, gate or role said no
    stranger = a_person(bench.world.store, "auditor", signs=False)
    assert bench.refused(Forbidden, draft, stranger.actor) == 2
    sent(bench.world.store, bench.world.engineer.actor, *(file.sha256 for file in draft.files))
    assert bench.refused(BundleRejected, replace(draft, kind="base")) == 3
    odd = replace(draft, files=[replace(draft.files[0], path="adapter_model.bin"), draft.files[1]])
    assert bench.refused(BundleRejected, odd) == 3
    recalled = bench.register(an_adapter(bench, "recalled", 521))[0].ref
    recalls.recall(bench.world.store, bench.world.engineer.actor, recalled, "unfit for use")
    assert bench.refused(Refused, an_adapter(bench, "recalled", 521)) == 3
    assert bench.refused(Refused, replace(draft, base=recalled)) == 2
