"""One world that has been decided on and delivered, with the ids of all its rows, for those who go
around the rules.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import text

from registry.blobs.store import Blobs
from registry.commands import recalls, rollouts, tokens, versions
from registry.db.store import Store
from registry.rules.actors import SYSTEM
from tests.build import (
    World,
    a_person,
    a_world,
    adapter_files,
    approved,
    evaluate,
    register,
    submit,
    train,
    vote,
)


@dataclass
class Rows:
    """A world and the ids of its rows by short names, as parameters of SQL."""

    world: World
    ids: dict[str, Any] = field(default_factory=dict)

    def find(self, name: str, statement: str, **params: Any) -> Any:
        """Look an id up once and keep it under a name."""
        with self.world.store.read(SYSTEM) as session:
            self.ids[name] = session.execute(text(statement), {**self.ids, **params}).scalar_one()
        return self.ids[name]


VERSION = "select id from node where ref = :ref"


@pytest.fixture(scope="package")
def rows(store: Store, blobs: Blobs) -> Rows:
    """v1 registered only; v2 approved and stable after a canary; v3 open with a passing gate; v4
    with a failing one.

    Beside them a draft, a recalled version, an ended and an active rollout, an open review, another
    line.
    """
    world = a_world(store, blobs, f"t{secrets.token_hex(4)}")
    team, engineer = world.team, world.engineer.actor
    second = approved(world)
    closed = world.review
    rollouts.start(
        store, engineer, rollouts.Canary(second, "production", None, 500, "first traffic")
    )
    rollouts.promote(
        store, engineer, rollouts.Place(f"{team}/adapter", "production", None), "it went well"
    )
    train(world, seed=10)
    third, fourth = world.versions[-2:]
    evaluate(world, third, 50)
    evaluate(world, fourth, 3)
    failing = submit(world, fourth)
    opened = submit(world, third)
    train(world, "other", seed=20)
    train(world, "fallen", seed=30)
    fallen, fallen2 = world.versions[-2:]
    for ref in (fallen, fallen2):
        evaluate(world, ref, 50)
    doubtful = submit(world, fallen, "staging")
    submit(world, fallen2, "staging")
    assert vote(world, world.compliance) == "open"
    assert vote(world, world.risk) == "approved"
    recalls.recall(store, engineer, fallen, "half-trained")
    recalls.recall(store, engineer, fallen2, "trained too long")
    kept = approved(world, "staging", seed=40)
    rollouts.start(
        store, engineer, rollouts.Canary(kept, "staging", None, 1000, "a canary that runs")
    )
    draft = versions.Draft(
        "adapter", f"{team}/adapter", adapter_files(blobs, 50), {}, world.base.ref
    )
    drafted = register(store, blobs, engineer, draft)
    assert drafted.status == "draft"
    token = tokens.create(
        store, SYSTEM, tokens.TokenRequest(world.engineer.actor.name, ["engineer"], team, 1)
    )
    tokens.revoke(store, SYSTEM, token.id)
    found = Rows(
        world,
        {
            "team": team,
            "token": token.id,
            "closed": closed,
            "opened": opened,
            "failing": failing,
            "compliance": world.compliance.id,
            "engineer": world.engineer.id,
            "risk": world.risk.id,
            "owner": world.data_owner.id,
            "trainer": world.trainer.id,
        },
    )
    for name, ref in {
        "base": world.base.ref,
        "v1": world.versions[0],
        "v2": second,
        "v3": third,
        "v4": fourth,
        "draft": drafted.ref,
        "fallen": fallen,
        "fallen2": fallen2,
        "kept": kept,
        "other": f"{team}/other@v1",
        "dataset": f"dataset:{world.dataset.ref}",
        "suite": f"suite:{world.suite}@v1",
    }.items():
        found.find(name, VERSION, ref=ref)
    found.find("line", "select line_id from version where id = :v2")
    for name in ("closed", "opened", "failing"):
        found.find(f"{name}_review", f"select id from review where number = :{name}")
    found.find("doubtful_review", "select id from review where number = :number", number=doubtful)
    found.find("kept_review", "select id from review where version_id = :kept")
    found.find("policy", "select policy_version_id from review where id = :closed_review")
    found.find(
        "use_case",
        "select u.use_case_id from review r join use_case_version u "
        "on u.id = r.use_case_version_id where r.id = :closed_review",
    )
    found.find("vote", "select id from vote where review_id = :closed_review limit 1")
    found.find(
        "channel", "select id from channel where line_id = :line and environment = 'production'"
    )
    found.find(
        "staging", "select id from channel where line_id = :line and environment = 'staging'"
    )
    found.find("ended", "select id from rollout where channel_id = :channel")
    found.find("active", "select id from rollout where channel_id = :staging")
    for generation in (1, 2):
        found.find(
            f"generation{generation}",
            "select id from route_generation where channel_id = :channel and generation = :number",
            number=generation,
        )
    found.find("opened_range", "select id from route_generation where channel_id = :staging")
    found.find("run", "select training_run_id from version where id = :v2")
    found.find("eval_run", "select id from eval_run where subject_id = :v2")
    found.find("file", "select id from version_file where version_id = :v2 order by path limit 1")
    found.find(
        "drafted_file",
        "select id from version_file where version_id = :draft order by path limit 1",
    )
    found.find("edge", "select id from lineage_edge where child_id = :v2 and relation = 'adapts'")
    found.find("key", "select id from signing_key where account_id = :compliance")
    found.find("blob", "select blob_id from version_file where id = :drafted_file")
    found.find("grant", "select id from role_grant where account_id = :compliance")
    found.find("metric", "select id from eval_metric where eval_run_id = :eval_run")
    colleague = a_person(store, "reviewer", team="compliance")
    found.ids["colleague"] = colleague.id
    return found
