"""Things to test with, made by plain functions through the commands themselves."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import resources
from typing import Any
from uuid import UUID

from registry.artifacts.methods import adapters
from registry.artifacts.weights.tensors import File
from registry.blobs.store import Blobs
from registry.commands import (
    accounts,
    datasets,
    evals,
    keys,
    policies,
    retention,
    reviews,
    use_cases,
    versions,
    work,
)
from registry.commands import blobs as sending
from registry.commands import training_runs as training
from registry.db.store import Store
from registry.proof.keys import SigningKey
from registry.queries import evals as suites
from registry.queries import reviews as asked
from registry.queries import work as leased
from registry.rules import refs
from registry.rules.actors import SYSTEM, Actor, Grant, Role
from registry.rules.retention import BUILT_IN
from registry.rules.reviews import commitment
from registry.views.versions import AddedView

RECIPE = {
    "method": "lora",
    "rank": 2,
    "alpha": 4,
    "targets": ["q_proj"],
    "steps": 4,
    "batch_size": 2,
    "learning_rate": 0.001,
    "publish_at": [2, 4],
    "save_every": 2,
    "template": "plain",
}
BASE_META = {"licence": "apache-2.0", "source": "made for a test"}
DATA_META = {
    "source": "made for a test",
    "licence": "cc-by-4.0",
    "legal_basis": "own work",
    "personal_data": "none",
    "retention": "1 year",
}
ADAPTER_META = {"purpose": "to be tested"}


def install_policies(store: Store) -> None:
    """The built-in policy of every environment."""
    for name in ("dev", "staging", "production"):
        text = (
            resources.files("registry")
            .joinpath(f"policies/{name}.yaml")
            .read_text(encoding="utf-8")
        )
        policies.publish(store, SYSTEM, text, only_first=True)


def install_classes(store: Store) -> None:
    """The built-in retention classes."""
    for terms in BUILT_IN:
        retention.define(store, SYSTEM, terms, "built in")


@dataclass
class Person:
    """An account with an actor and, for those who sign, an enrolled key."""

    actor: Actor
    key: SigningKey | None = None

    @property
    def id(self) -> UUID:
        assert self.actor.account is not None
        return self.actor.account


def a_person(
    store: Store, *roles: str, team: str | None = None, name: str | None = None, signs: bool = True
) -> Person:
    """A person or service holding roles, fresh from signing in; with a key of his own unless told
    otherwise.
    """
    called = name or f"{roles[0]}-{secrets.token_hex(3)}"
    account = accounts.create(store, SYSTEM, called, list(roles), team)
    grants = frozenset(Grant(Role(role), team) for role in roles)
    actor = Actor(
        account, called, grants, via="test", signed_in=datetime.now(UTC), request_id="test"
    )
    person = Person(actor)
    if signs:
        person.key = SigningKey.generate()
        document = {"account": str(account), "public_key": person.key.public_text}
        keys.enroll(
            store,
            actor,
            person.key.public_text,
            "test",
            person.key.sign_document(document, "enrol")[1],
        )
    return person


def put(blobs: Blobs, path: str, data: bytes) -> File:
    """Publish bytes and name them as a file of a bundle; nobody has sent them."""
    stored = blobs.put([data], expect=hashlib.sha256(data).hexdigest())
    return File(path, stored.sha256, stored.size)


def sent(store: Store, actor: Actor, *digests: str) -> None:
    """Bytes put straight into the store count as sent by this actor, as they do when they come
    through a door.
    """
    for digest in digests:
        sending.sent(store, actor, digest)


def register(store: Store, blobs: Blobs, actor: Actor, draft: versions.Draft) -> AddedView:
    """Register what this actor has sent, as every client does."""
    sent(store, actor, *(file.sha256 for file in draft.files))
    return versions.register(store, blobs, actor, draft)


def register_rows(
    store: Store,
    blobs: Blobs,
    actor: Actor,
    name: str,
    sha256: str,
    size: int,
    meta: dict[str, Any],
) -> AddedView:
    """Register rows that this actor has sent, as every client does."""
    sent(store, actor, sha256)
    return datasets.register(store, blobs, actor, datasets.Draft(name, sha256, size, meta))


def safetensors(tensors: dict[str, tuple[int, ...]], seed: int = 0) -> bytes:
    """A small F32 safetensors file; its bytes depend on the seed."""
    header: dict[str, Any] = {}
    body = b""
    for number, (name, shape) in enumerate(sorted(tensors.items())):
        count = 4
        for side in shape:
            count *= side
        unit = hashlib.sha256(f"{seed}:{number}".encode()).digest()
        # Small positive floats: the exponent byte is kept below that of NaN.
        data = bytes(byte & 0x3F for byte in (unit * (count // 32 + 1))[:count])
        header[name] = {
            "dtype": "F32",
            "shape": list(shape),
            "data_offsets": [len(body), len(body) + count],
        }
        body += data
    text = json.dumps(header, separators=(",", ":")).encode()
    return len(text).to_bytes(8, "little") + text + body


MODULE = "model.layers.0.self_attn.q_proj"


def a_base(
    store: Store, blobs: Blobs, engineer: Person, team: str, name: str = "tiny", seed: int = 0
) -> AddedView:
    """A registered base model of two tensors."""
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 8}
    files = [
        put(
            blobs,
            "model.safetensors",
            safetensors({f"{MODULE}.weight": (8, 8), "model.norm.weight": (8,)}, seed),
        ),
        put(blobs, "config.json", json.dumps(config).encode()),
        put(blobs, "tokenizer.json", b'{"version":"1.0","model":{}}'),
    ]
    return register(
        store, blobs, engineer.actor, versions.Draft("base", f"{team}/{name}", files, BASE_META)
    )


def adapter_files(
    blobs: Blobs, seed: int = 0, rank: int = 2, base: AddedView | None = None
) -> list[File]:
    """The two files of a LoRA adapter that fits `a_base`; bound to `base`, its configuration is as
    the registry keeps it.
    """
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": 4,
        "target_modules": ["q_proj"],
        "bias": "none",
    }
    kept = json.dumps(config).encode()
    if base is not None:
        read, _ = adapters.read_config(config)
        assert read is not None
        kept = adapters.written(read, refs.repository(base.ref), refs.commit(base.digest))
    tensors = {
        f"base_model.model.{MODULE}.lora_A.weight": (rank, 8),
        f"base_model.model.{MODULE}.lora_B.weight": (8, rank),
    }
    return [
        put(blobs, "adapter_model.safetensors", safetensors(tensors, seed)),
        put(blobs, "adapter_config.json", kept),
    ]


def dataset_bytes(items: int = 60, train: int = 40, leak: int = 0) -> bytes:
    """Rows of a trivial task; `leak` test prompts stand in the train split too."""
    rows = [
        {"prompt": f"item {i}", "completion": "yes" if i % 2 else "no", "split": "test"}
        for i in range(items)
    ]
    rows += [
        {"prompt": f"row {i}", "completion": "yes" if i % 2 else "no", "split": "train"}
        for i in range(train)
    ]
    rows += [
        {"prompt": f"item {i}", "completion": "yes" if i % 2 else "no", "split": "train"}
        for i in range(leak)
    ]
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def a_dataset(
    store: Store,
    blobs: Blobs,
    engineer: Person,
    team: str,
    name: str = "rows",
    data: bytes | None = None,
) -> AddedView:
    """A registered data set version."""
    file = put(blobs, "rows.jsonl", data if data is not None else dataset_bytes())
    return register_rows(
        store, blobs, engineer.actor, f"{team}/{name}", file.sha256, file.size, DATA_META
    )


def answers(blobs: Blobs, items: bytes, right: int) -> str:
    """A samples file whose first `right` items are answered as expected; its hex digest."""
    lines = []
    for number, line in enumerate(items.splitlines()):
        item = json.loads(line)
        output = item["expected"] if number < right else "wrong"
        lines.append(json.dumps({"item": item["id"], "output": output}))
    return put(blobs, "samples.jsonl", ("\n".join(lines) + "\n").encode()).sha256


@dataclass
class World:
    """A team with its people and things, up to where a test begins."""

    store: Store
    blobs: Blobs
    team: str
    data_owner: Person
    engineer: Person
    trainer: Person
    compliance: Person
    risk: Person
    base: AddedView
    dataset: AddedView
    suite: str
    use_case: str
    versions: list[str] = field(default_factory=list)
    review: int = 0


def a_world(store: Store, blobs: Blobs, team: str, *, leak: int = 0) -> World:
    """People, a base, a data set, a frozen suite and a use case."""
    engineer = a_person(store, "engineer", team=team)
    owner = a_person(store, "engineer", team=team)
    base = a_base(store, blobs, engineer, team)
    dataset = a_dataset(store, blobs, owner, team, data=dataset_bytes(leak=leak))
    decoding = {"template": "plain", "max_new_tokens": 4}
    evals.freeze(
        store,
        blobs,
        engineer.actor,
        evals.SuiteRequest(f"{team}/suite", dataset.ref, "test", "exact_match", decoding),
    )
    use_cases.register(
        store,
        engineer.actor,
        use_cases.UseCaseRequest(
            f"{team}/case",
            purpose="test",
            owner="somebody",
            risk_tier="limited",
            suite=f"{team}/suite",
            details={},
        ),
    )
    return World(
        store,
        blobs,
        team,
        owner,
        engineer,
        a_person(store, "trainer", team=team),
        a_person(store, "reviewer", team="compliance"),
        a_person(store, "reviewer", team="risk"),
        base,
        dataset,
        f"{team}/suite",
        f"{team}/case",
    )


def train(
    world: World,
    name: str = "adapter",
    seed: int = 0,
    files: Callable[[int], list[File]] | None = None,
    mlflow: str | None = None,
) -> UUID:
    """A finished training run whose two published steps are registered; their refs are appended to
    the world.

    `files` gives the bundle of a step; without it, files that fit `a_base`. `mlflow` is the page
    in MLflow that its trainer reports.
    """
    run = training.queue(
        world.store,
        world.blobs,
        world.engineer.actor,
        training.TrainingRequest(
            f"{world.team}/{name}", world.base.ref, world.dataset.ref, RECIPE, "legal", ADAPTER_META
        ),
    )
    trainer = world.trainer
    taken = work.lease(world.store, trainer.actor, work.Worker("test worker"), 60)
    assert taken is not None
    assert taken[0] == run
    attempt = taken[1]
    outputs = []
    for step in (2, 4):
        bundle = files(step) if files else adapter_files(world.blobs, seed + step)
        draft = versions.Draft(
            "adapter",
            f"{world.team}/{name}",
            bundle,
            ADAPTER_META,
            world.base.ref,
            "legal",
            run,
            attempt,
            step,
        )
        added = register(world.store, world.blobs, trainer.actor, draft)
        world.versions.append(added.ref)
        outputs.append({"step": step, "ref": added.ref, "manifest_digest": added.digest})
    view = leased.work(world.store, trainer.actor, run)
    assert view.training is not None
    report = {
        "run": str(run),
        "attempt": attempt,
        "recipe_digest": view.training.recipe_digest,
        "outputs": outputs,
        "base_root": view.training.base.root,
        "dataset_root": view.training.dataset.root,
        "meters": {"seconds": 1.5, "steps": 4},
        "environment": {"torch": "none"},
        "mlflow": mlflow and {"run_id": "ea02", "url": mlflow},
    }
    assert trainer.key is not None
    key, signature = trainer.key.sign_document(report, "training-report")
    training.finish(
        world.store, trainer.actor, run, training.SignedReport(attempt, report, key, signature)
    )
    return run


def answered_items(world: World, suite: str) -> bytes:
    """The items of a suite with their expected answers, as the registry keeps them."""
    digest = next(
        each.items_sha256 for each in suites.suites(world.store, SYSTEM) if each.ref == suite
    )
    return b"".join(world.blobs.stream(digest))


def evaluate(world: World, ref: str, right: int, effect: dict[str, Any] | None = None) -> UUID:
    """A finished eval run of a version with so many items right, and the effect it measured."""
    run = evals.queue(world.store, world.blobs, world.engineer.actor, ref, world.suite)
    trainer = world.trainer
    taken = work.lease(world.store, trainer.actor, work.Worker("test worker"), 60)
    assert taken == (run, 1)
    view = leased.work(world.store, trainer.actor, run)
    assert view.evaluation is not None
    items = answered_items(world, view.evaluation.suite)
    count = len(items.splitlines())
    subject = view.evaluation.subject
    with world.store.read(SYSTEM) as session:
        from registry.db import versions as table

        version = table.by_ref(session, ref)[0]
    report = {
        "run": str(run),
        "attempt": 1,
        "suite_digest": view.evaluation.suite_digest,
        "subject_root": version.tensor_root,
        "base_root": version.base_root,
        "samples_sha256": answers(world.blobs, items, right),
        "metrics": {"exact_match": {"correct": min(right, count), "n": count}},
        "meters": {},
        "environment": {"ref": subject.ref},
    }
    if effect is not None:
        report["effect"] = effect
    assert trainer.key is not None
    key, signature = trainer.key.sign_document(report, "eval-report")
    sent(world.store, trainer.actor, str(report["samples_sha256"]))
    evals.finish(
        world.store, world.blobs, trainer.actor, run, evals.SignedReport(1, report, key, signature)
    )
    return run


def submit(world: World, ref: str, environment: str = "production") -> int:
    """Open a review."""
    world.review = reviews.submit(
        world.store,
        world.blobs,
        world.engineer.actor,
        reviews.Submission(ref, environment, world.use_case, "please"),
    ).review
    return world.review


def vote(
    world: World,
    person: Person,
    verdict: str = "approve",
    number: int | None = None,
    **changes: Any,
) -> str:
    """Cast a signed vote; `changes` falsify the decision before it is signed."""
    return ballot(world.store, person, number or world.review, verdict, **changes)


def ballot(
    store: Store, person: Person, review: int, verdict: str = "approve", **changes: Any
) -> str:
    """The same, for a review that needs no World around it."""
    decision = asked.draft(store, person.actor, review).decision
    salt, reason = secrets.token_bytes(16), "I have read the evidence."
    decision |= {"verdict": verdict, "reason_commitment": commitment(salt, reason), **changes}
    assert person.key is not None
    key, signature = person.key.sign_document(decision, "decision")
    signed = reviews.SignedVote(decision, reason, salt.hex(), key, signature)
    return reviews.vote(store, person.actor, review, signed)


def approved(
    world: World,
    environment: str = "production",
    *,
    seed: int = 0,
    files: Callable[[int], list[File]] | None = None,
) -> str:
    """Train, evaluate, submit and approve: the ref of a version approved for an environment."""
    train(world, seed=seed, files=files)
    ref = world.versions[-1]
    evaluate(world, world.base.ref, 5)
    evaluate(world, ref, 50)
    submit(world, ref, environment)
    assert vote(world, world.compliance) == "open"
    assert vote(world, world.risk) == "approved"
    return ref
