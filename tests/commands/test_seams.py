"""What no part alone can see: bytes that come again by another road, at another time, or after an
upgrade.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import psycopg
import pytest

from registry.artifacts.bundles import judge
from registry.artifacts.weights.tensors import File
from registry.blobs.store import Blobs
from registry.commands import blobs as collecting
from registry.commands import datasets, recalls, versions, work
from registry.commands import training_runs as training
from registry.db.store import Store
from registry.documents import canonical
from registry.errors import NotFound, Refused
from registry.queries import pulls, search
from registry.queries import versions as asked
from registry.rules import searches
from registry.rules.actors import SYSTEM
from registry.rules.refs import commit
from tests.build import (
    ADAPTER_META,
    DATA_META,
    RECIPE,
    World,
    a_base,
    a_person,
    adapter_files,
    put,
    register,
    register_rows,
)
from tests.commands.test_deletions import an_adapter, delete, loose
from tests.db.around import plain_url

WHOLE = {**ADAPTER_META, "domain": "legal"}


@pytest.fixture
def world(store: Store, blobs: Blobs, team: str) -> World:
    return loose(store, blobs, team)


def add(world: World, files: Sequence[File], meta: dict[str, Any], base: str | None = None) -> Any:
    draft = versions.Draft("adapter", f"{world.team}/adapter", list(files), meta, base)
    return register(world.store, world.blobs, world.engineer.actor, draft)


def from_before(world: World, ref: str, files: Sequence[File]) -> None:
    """Makes a version what one was before configurations were written anew: known by its manifest
    as it came.
    """
    with psycopg.connect(plain_url(world.store)) as connection:
        connection.execute("alter table version disable trigger user")
        done = connection.execute(
            "update version set manifest_digest = %s, facts = facts - 'unbound_manifest' - "
            "'uploaded_config' "
            "where id = (select id from node where ref = %s)",
            [canonical.digest(judge.manifest_of(files)), ref],
        )
        assert done.rowcount == 1
        connection.execute("alter table version enable trigger user")


def refused(call: Any, *arguments: Any) -> str:
    with pytest.raises(Refused) as told:
        call(*arguments)
    return told.value.kind


def test_a_commit_id_names_the_bytes_that_stand_again(store: Store, world: World) -> None:
    """A client resolves a channel or tag to its commit first and asks for every file by that."""
    engineer = world.engineer.actor
    delete(world, an_adapter(world, 1))
    again = asked.version(store, engineer, an_adapter(world, 1))
    assert (
        pulls.revision(store, engineer, world.team, "adapter", commit(again.manifest_digest)).number
        == 2
    )
    delete(world, again.ref)
    with pytest.raises(NotFound) as told:
        pulls.revision(store, engineer, world.team, "adapter", commit(again.manifest_digest))
    assert "this version was deleted" in told.value.detail


def test_recalled_bytes_do_not_come_back_on_a_twin_of_their_base(
    store: Store, world: World
) -> None:
    """Only their configuration differs then, and that the registry wrote."""
    twin = a_base(store, world.blobs, world.engineer, world.team, "twin")
    files = adapter_files(world.blobs, 1)
    ref = add(world, files, WHOLE, world.base.ref).ref
    drafted = add(world, files, {}, twin.ref)
    assert drafted.status == "draft"
    recalls.recall(store, world.engineer.actor, ref, "poisoned for use")
    assert refused(add, world, files, WHOLE, twin.ref) == "recalled"
    with (
        psycopg.connect(plain_url(store)) as connection,
        pytest.raises(psycopg.Error, match="these bytes were recalled"),
    ):
        connection.execute(
            "update version set number = 2, state = 'registered' from node n where n.id = "
            "version.id "
            "and n.ref = %s",
            [drafted.ref],
        )


def test_what_was_registered_before_an_upgrade_is_found_again_and_stays_recalled(
    store: Store, world: World
) -> None:
    files = adapter_files(world.blobs, 1)
    ref = an_adapter(world, 1)
    from_before(world, ref, files)
    assert add(world, files, WHOLE, world.base.ref).ref == ref
    recalls.recall(store, world.engineer.actor, ref, "poisoned for use")
    assert refused(add, world, files, WHOLE, world.base.ref) == "recalled"


def test_a_draft_from_before_an_upgrade_is_taken_up(world: World) -> None:
    files = adapter_files(world.blobs, 1)
    ref = add(world, files, {}, world.base.ref).ref
    from_before(world, ref, files)
    assert add(world, files, {}, world.base.ref).ref == ref
    assert add(world, files, WHOLE, world.base.ref).ref == f"{world.team}/adapter@v1"


def test_another_team_hears_nothing_of_a_deleted_base(
    store: Store, blobs: Blobs, world: World
) -> None:
    delete(world, a_base(store, blobs, world.engineer, world.team, "gone", seed=7).ref)
    other = a_person(store, "engineer", team=f"other-{world.team}")
    draft = versions.Draft(
        "adapter", f"other-{world.team}/x", adapter_files(blobs, 1), WHOLE, f"{world.team}/gone@v1"
    )
    with pytest.raises(NotFound) as told:
        register(store, blobs, other.actor, draft)
    assert told.value.kind == "version-unknown"


def test_recalled_rows_are_refused_by_name_whether_they_were_numbered_or_a_draft(
    store: Store, world: World
) -> None:
    owner = world.data_owner.actor
    whole = put(world.blobs, "rows.jsonl", b'{"prompt": "a", "completion": "b"}\n')
    drafted = put(world.blobs, "rows.jsonl", b'{"prompt": "c", "completion": "d"}\n')
    for file, meta in ((whole, DATA_META), (drafted, {})):
        ref = register_rows(
            store, world.blobs, owner, f"{world.team}/mail", file.sha256, file.size, meta
        ).ref
        recalls.recall(store, world.engineer.actor, f"dataset:{ref}", "consent withdrawn")
        again = datasets.Draft(f"{world.team}/mail", file.sha256, file.size, DATA_META)
        assert refused(datasets.register, store, world.blobs, owner, again) == "recalled"


def test_a_collection_without_any_grace_lets_an_upload_go_on(
    store: Store, world: World, tmp_path: Path
) -> None:
    blobs = Blobs(tmp_path)
    data = b"what is being sent at this moment"
    with blobs.incoming(sha256(data).hexdigest()) as incoming:
        incoming.write(data)
        collecting.collect(store, blobs, SYSTEM, timedelta(0))
        assert incoming.finish().size == len(data)


def test_search_rows_made_anew_still_forget_what_was_deleted(store: Store, world: World) -> None:
    delete(world, an_adapter(world, 1))
    kept = an_adapter(world, 2)
    with psycopg.connect(plain_url(store)) as connection:
        connection.execute("delete from version_search where team = %s", [world.team])
        connection.execute(
            "select search_refresh(v.id) from version v join line l on l.id = v.line_id where "
            "l.team = %s",
            [world.team],
        )
    found = search.search(
        store, SYSTEM, searches.parse(searches.Filters(name=f"{world.team}/adapter"))
    )
    assert [one.ref for one in found.items] == [kept]


def test_what_a_training_run_published_stays_until_the_run_has_ended(
    store: Store, world: World
) -> None:
    """Its next attempt, on another machine, goes on from what is registered already."""
    run = training.queue(
        store,
        world.blobs,
        world.engineer.actor,
        training.TrainingRequest(
            f"{world.team}/adapter",
            world.base.ref,
            world.dataset.ref,
            RECIPE,
            "legal",
            ADAPTER_META,
        ),
    )
    taken = work.lease(store, world.trainer.actor, work.Worker("test worker"), 60)
    assert taken is not None and taken[0] == run
    draft = versions.Draft(
        "adapter",
        f"{world.team}/adapter",
        adapter_files(world.blobs, 5),
        ADAPTER_META,
        world.base.ref,
        "legal",
        run,
        taken[1],
        2,
    )
    ref = register(store, world.blobs, world.trainer.actor, draft).ref
    assert refused(delete, world, ref) == "needed"
    training.cancel(store, world.engineer.actor, run)
    assert delete(world, ref).how == "deleted"
