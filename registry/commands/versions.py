"""Register versions of base models, adapters and checkpoints: inspect the bytes, then name them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID, uuid4

from registry.artifacts.bundles import judge
from registry.artifacts.bundles.judge import BaseFacts, Inspected, Kind
from registry.artifacts.bundles.memory import JUDGING
from registry.artifacts.quantised import quantisations
from registry.artifacts.tokenizers import sandbox
from registry.artifacts.tokenizers.chat_templates import Judge
from registry.artifacts.weights import digests
from registry.artifacts.weights.tensors import File, TensorInfo, Weighed
from registry.blobs.store import Blobs
from registry.db import datasets, policies, quotas, senders, training_runs, versions
from registry.db.lineage import LineageEdge
from registry.db.store import Store, Tx
from registry.db.training_runs import Lease, TrainingRun
from registry.db.versions import Line, Node, Version, VersionFile
from registry.documents import canonical
from registry.errors import BundleRejected, Conflict, Invalid, NotFound, Refused, Unverified
from registry.rules import refs
from registry.rules.actions import Action
from registry.rules.actors import Actor
from registry.rules.refs import Ref, parse_line
from registry.views.versions import AddedView, FindingView


@dataclass(frozen=True, slots=True)
class Draft:
    """What a door was asked to register; the bytes of `files` are published already."""

    kind: Kind
    name: str
    files: list[File]
    meta: dict[str, Any] = field(default_factory=dict)
    base: str | None = None
    domain: str | None = None
    training_run: UUID | None = None
    attempt: int | None = None
    step: int | None = None
    quantised_of: str | None = None


@dataclass(frozen=True, slots=True)
class _Base:
    id: UUID
    files: list[File]
    root: str | None
    line: str
    commit: str

    def facts(self, blobs: Blobs) -> BaseFacts:
        """What an adapter is held against, read from the bytes."""
        facts = judge.base_facts(self.files, blobs.read, base_root=self.root)
        return replace(facts, line=self.line, commit=self.commit)


def register(store: Store, blobs: Blobs, actor: Actor, draft: Draft) -> AddedView:
    """Give a sound, complete bundle its number; an incomplete one stays a draft; the same bytes are
    found again.

    Raises BundleRejected with every defect, Unverified for bytes that are not here, Refused for an
    unfit parent, Conflict when the name is of another kind.
    """
    ref = parse_line(draft.name)
    assert ref.team is not None
    store.check(actor, Action.VERSION_REGISTER, ref.team)
    try:
        _published(store, blobs, actor, draft.files)
    except Unverified:
        # A client asks before it sends: what is wrong by its name alone is said without the bytes.
        with store.judging(actor, Action.VERSION_REGISTER, ref.team):
            if defects := judge.by_name(draft.kind, draft.files):
                raise BundleRejected(defects, subject=draft.name) from None
        raise
    with store.judging(actor, Action.VERSION_REGISTER, ref.team):
        base = _base(store, actor, draft)
        original = _original(store, actor, draft)
    meta = _meta(store, actor, draft)
    with store.judging(actor, Action.VERSION_REGISTER, ref.team):
        inspected = _inspected(store, blobs, actor, draft, base, meta)
    rewritten = None if inspected.rewritten is None else blobs.put([inspected.rewritten]).sha256
    if original is not None and not inspected.defects:
        descent = quantisations.descend(draft.files, original.files, blobs.read)
        inspected.defects.extend(descent.defects)
        inspected.facts["descent"] = descent.facts(original.ref, original.base_root)
    if not inspected.defects and (found := _found(store, actor, ref, draft, inspected)):
        return found
    if inspected.defects:
        # Bytes that a collection took meanwhile are to be sent again, and no defect.
        _published(store, blobs, actor, draft.files)
    try:
        with store.write(actor, Action.VERSION_REGISTER, ref.team) as tx:
            tx.within(ref.team)
            if inspected.defects:
                raise BundleRejected(inspected.defects, subject=draft.name)
            line = _line(tx, ref, draft, meta.get("domain"))
            version, node = _draft(tx, blobs, line, draft, base, inspected, meta)
            if rewritten is not None:
                senders.note(
                    tx.session, actor, rewritten, whole=True
                )  # made for him, of what he sent
            parents = _provenance(tx, line, version, draft, base)
            if original is not None:
                parents.append((original.id, "quantised_from", inspected.facts["descent"]["grade"]))
            if not inspected.findings:
                _number(tx, line, version, node, parents)
            tx.audit(
                node.ref, kind=draft.kind, manifest=version.manifest_digest, state=version.state
            )
            return AddedView(
                ref=node.ref,
                digest=version.manifest_digest,
                root=version.tensor_root,
                status=version.state,
                findings=[
                    FindingView(one.field, one.detail, one.fix) for one in inspected.findings
                ],
            )
    except Conflict as conflict:
        # Somebody was faster, and perhaps with the very same bytes.
        if conflict.kind in ("name-taken", "try-again") and (
            found := _found(store, actor, ref, draft, inspected)
        ):
            return found
        raise


def _inspected(
    store: Store, blobs: Blobs, actor: Actor, draft: Draft, base: _Base | None, meta: dict[str, Any]
) -> Inspected:
    """Judge the bundle where there is room for it; while its weights are read others may be judged
    beside it.
    """
    reading, kept = judge.footprint(draft.kind, draft.files, blobs.read)
    below = 0 if base is None else judge.footprint("base", base.files, blobs.read)[0]
    with JUDGING.take(below + reading) as held:
        facts = None if base is None else base.facts(blobs)
        weigh = digests.weigh(blobs.read)

        def aside(file: File, tensors: Sequence[TensorInfo]) -> Weighed:
            held.keep(below + kept)
            return weigh(file, tensors)

        return judge.inspect(
            draft.kind,
            draft.files,
            blobs.read,
            base=facts,
            meta=meta,
            weigh=aside,
            named=_named(store, actor),
            judge=_judge(store, actor),
        )


def _judge(store: Store, actor: Actor) -> Judge:
    """Who looks at chat templates; an adapter's own is taken in when some environment might let it
    serve.
    """
    with store.read(actor) as session:
        return Judge(sandbox.look, policies.allowing_chat_templates(session))


def _meta(store: Store, actor: Actor, draft: Draft) -> dict[str, Any]:
    """What is said of a version: by whoever asked for its training, by its maker, and its line's
    domain, said once.
    """
    said = dict(draft.meta)
    with store.read(actor) as session:
        if draft.training_run is not None:
            said |= training_runs.by_id(session, draft.training_run).meta
        domain = draft.domain
        if not (domain or said.get("domain")):
            with suppress(NotFound):  # the first of its line
                domain = versions.line(session, parse_line(draft.name)).domain
    return {**said, **({"domain": domain} if domain else {})}


def _published(store: Store, blobs: Blobs, actor: Actor, files: list[File]) -> None:
    senders.must_have(store, blobs, actor, [(file.path, file.sha256, file.size) for file in files])


def _base(store: Store, actor: Actor, draft: Draft) -> _Base | None:
    if draft.base is None:
        return None
    with store.read(actor) as session:
        version, line, _ = versions.by_ref(session, draft.base, teams=actor.teams())
        if line.kind == "adapter" or version.state not in ("registered", "deprecated"):
            raise Refused(
                "unfit-base",
                f"{draft.base} is {'an adapter' if line.kind == 'adapter' else version.state}.",
                subject=draft.name,
            )
        files = [
            File(path, sha256, size) for path, sha256, size in versions.files(session, version.id)
        ]
        return _Base(
            version.id, files, version.base_root, line.ref, refs.commit(version.manifest_digest)
        )


def _named(store: Store, actor: Actor) -> judge.Named:
    """Look up what an adapter's configuration calls its base, among the bases its uploader may
    see.
    """

    def named(name: str, revision: str | None) -> list[str]:
        with store.read(actor) as session:
            return versions.roots_named(session, name, revision, teams=actor.teams())

    return named


@dataclass(frozen=True, slots=True)
class _Original:
    id: UUID
    ref: str
    base_root: str | None
    files: list[File]


def _original(store: Store, actor: Actor, draft: Draft) -> _Original | None:
    """What a checkpoint is said to be a quantisation of; its descent is worked out from the bytes
    of both.
    """
    if draft.quantised_of is None:
        return None
    if draft.kind != "checkpoint":
        raise Invalid(
            "not-quantised",
            f"A {draft.kind} is no quantisation of anything.",
        )
    with store.read(actor) as session:
        version, line, node = versions.by_ref(session, draft.quantised_of, teams=actor.teams())
        _fit_original(line, version, node, draft.name)
        files = [File(*row) for row in versions.files(session, version.id)]
        return _Original(version.id, node.ref, version.base_root, files)


def _fit_original(line: Line, version: Version, node: Node, subject: str) -> None:
    if line.kind == "adapter" or version.state not in ("registered", "deprecated"):
        raise Refused(
            "unfit-parent",
            f"{node.ref} is {'an adapter' if line.kind == 'adapter' else version.state}.",
            "Name the registered base model or checkpoint it was quantised from.",
            subject=subject,
        )


def _found(
    store: Store, actor: Actor, ref: Ref, draft: Draft, inspected: Inspected
) -> AddedView | None:
    """The same bytes under the same name were registered before: say so, change nothing.

    What was recalled is refused on whichever base it is to be bound this time, for only its
    configuration differs.
    """
    came = _came(draft)
    with store.read(actor) as session:
        try:
            line = versions.line(session, ref)
        except NotFound:
            return None
        if line.kind != draft.kind or not actor.sees(line.team):
            return None
        recalled, same = versions.of_bytes(
            session, line.id, inspected.manifest_digest, inspected.unbound_digest, came
        )
    if recalled is not None:
        store.refuse(
            actor,
            Action.VERSION_REGISTER,
            ref.team,
            Refused(
                "recalled",
                f"These bytes are {recalled.ref}, which is recalled.",
                "Make another version without what was wrong.",
                subject=recalled.ref,
            ),
        )
    if same is None:
        return None
    version, node = same
    if draft.quantised_of is not None and "descent" not in version.facts:
        raise Conflict(
            "descent-late",
            f"These bytes are {node.ref} already, and it was registered without saying of what "
            "it is a quantisation.",
        )
    return AddedView(node.ref, version.manifest_digest, version.tensor_root, "found")


def _came(draft: Draft) -> str:
    """The digest of the manifest as it was sent, before a configuration was written anew."""
    return canonical.digest(judge.manifest_of(draft.files))


def _line(tx: Tx, ref: Ref, draft: Draft, domain: object) -> Line:
    try:
        line = versions.new_or_old(tx.session, ref)
    except NotFound:
        assert ref.team is not None and ref.name is not None
        name = refs.check_new_line(ref.name)
        return tx.add(
            Line(
                id=uuid4(),
                kind=draft.kind,
                team=ref.team,
                name=name,
                domain=refs.line_domain(None, domain),
                created_by=tx.actor.account,
                created_at=tx.now,
            )
        )
    if line.kind != draft.kind:
        raise Conflict(
            "line-kind",
            f"{ref.line} is of kind {line.kind}, not {draft.kind}.",
        )
    line.domain = refs.line_domain(line.domain, domain)
    return line


def _draft(
    tx: Tx,
    blobs: Blobs,
    line: Line,
    draft: Draft,
    base: _Base | None,
    inspected: Inspected,
    meta: dict[str, Any],
) -> tuple[Version, Node]:
    """The draft row with its files, new or taken up again with what it lacked.

    A draft that was bound to another base, or to none, is found by what its manifest would be
    without any.
    """
    try:
        version, node = _taken_up(tx, line, inspected, _came(draft))
        if version.state != "draft":
            raise Conflict(
                "try-again",
                f"{node.ref} is {version.state} since a moment ago.",
            )
        if version.manifest_digest != inspected.manifest_digest:
            versions.exchange_files(tx.session, blobs, version.id, inspected.files)
            version.manifest_digest = inspected.manifest_digest
        version.meta = meta
        version.base_version_id = base.id if base else None
        version.base_root, version.facts = inspected.base_root, inspected.facts
        version.training_run_id = draft.training_run or version.training_run_id
        version.step = draft.step or version.step
        tx.session.flush()
        return version, node
    except NotFound:
        pass
    if draft.training_run is not None:
        versions.must_stand(tx.session, draft.training_run, draft.step)
    identity = uuid4()
    node = tx.add(
        Node(
            id=identity, kind=draft.kind, team=line.team, ref=f"{line.ref}@draft-{identity.hex[:8]}"
        )
    )
    version = tx.add(
        Version(
            id=identity,
            line_id=line.id,
            number=None,
            state="draft",
            manifest_digest=inspected.manifest_digest,
            tensor_root=inspected.tensor_root,
            base_root=inspected.base_root,
            base_version_id=base.id if base else None,
            training_run_id=draft.training_run,
            step=draft.step,
            meta=meta,
            facts=inspected.facts,
            created_by=tx.actor.account,
            created_at=tx.now,
        )
    )
    # In the order of their digests, so that two that share files wait for each other and never in a
    # circle.
    for file in sorted(inspected.files, key=lambda one: one.sha256):
        versions.hold_blob(tx.session, blobs, file.sha256, file.size)
        tx.add(VersionFile(id=uuid4(), version_id=identity, path=file.path, blob_id=file.sha256))
    quotas.must_fit(tx.session, line.team)
    return version, node


def _taken_up(tx: Tx, line: Line, inspected: Inspected, came: str) -> tuple[Version, Node]:
    ref = Ref(line.team, line.name, digest=inspected.manifest_digest.removeprefix("sha256:"))
    with suppress(NotFound):
        version, _, node = versions.by_ref(tx.session, ref, lock=True)
        return version, node
    return versions.draft_of(tx.session, line.id, inspected.unbound_digest, came)


def _provenance(
    tx: Tx, line: Line, version: Version, draft: Draft, base: _Base | None
) -> list[tuple[UUID, str, str]]:
    """What a version stands on, as (parent, relation, grade): its base, and the data it was tuned
    on.
    """
    adapts = [(version.base_version_id, "adapts", "verified")] if version.base_version_id else []
    return [
        *adapts,
        *((data, "tuned_on", grade) for data, grade in _data(tx, line, version, draft, base)),
    ]


def _data(
    tx: Tx, line: Line, version: Version, draft: Draft, base: _Base | None
) -> list[tuple[UUID, str]]:
    """The data a version was tuned on: observed when a training run brought it, else as its maker
    claims.
    """
    if draft.training_run is None and version.training_run_id is not None:
        return [
            (_of_training(tx, training_runs.by_id(tx.session, version.training_run_id)), "observed")
        ]
    if draft.training_run is None:
        claimed = draft.meta.get("datasets", [])
        if not isinstance(claimed, list) or not all(isinstance(one, str) for one in claimed):
            raise Invalid("bad-meta", "meta.datasets must be a list of data set references.")
        return [(_fit_dataset(tx, one), "claimed") for one in claimed]
    run = training_runs.by_id(tx.session, draft.training_run)
    lease = tx.session.get(Lease, run.id)
    if (
        run.state != "running"
        or lease is None
        or (lease.account_id, lease.attempt) != (tx.actor.account, draft.attempt)
    ):
        raise Conflict(
            "lease-lost",
            "This training run is not leased to you now.",
            "Stop this attempt; the run was taken over or has ended.",
            subject=line.ref,
        )
    if run.line_id != line.id or base is None or run.base_version_id != base.id:
        raise Refused(
            "not-this-run",
            "The bundle is not of the adapter and base this training run was asked for.",
            subject=line.ref,
        )
    if draft.step not in run.recipe["publish_at"]:
        raise Refused(
            "step-not-asked",
            f"The recipe does not publish step {draft.step}.",
            f"It publishes {run.recipe['publish_at']}.",
            subject=line.ref,
        )
    return [(_of_training(tx, run), "observed")]


def _of_training(tx: Tx, run: TrainingRun) -> UUID:
    """The training run's data set, which may have been recalled while the training went on."""
    return _fit_dataset(tx, tx.get(Node, run.dataset_version_id).ref.removeprefix("dataset:"))


def _fit_dataset(tx: Tx, ref: str) -> UUID:
    dataset, _ = datasets.by_ref(tx.session, ref, share=True, teams=tx.actor.teams())
    if dataset.state not in ("registered", "deprecated"):
        raise Refused(
            "unfit-parent",
            f"{ref} is {dataset.state}.",
            "Complete it or name another.",
            subject=ref,
        )
    return dataset.id


def _edge(tx: Tx, child: Node, parent_id: UUID, relation: str, grade: str) -> None:
    parent = tx.get(Node, parent_id)
    tx.add(
        LineageEdge(
            id=uuid4(),
            child_id=child.id,
            child_seq=child.seq,
            parent_id=parent.id,
            parent_seq=parent.seq,
            relation=relation,
            grade=grade,
            created_at=tx.now,
        )
    )


def _number(
    tx: Tx, line: Line, version: Version, node: Node, parents: list[tuple[UUID, str, str]]
) -> None:
    """The next number, never used before: the line is locked, and rows of versions never go, not
    even when deleted.

    Only now it is born into lineage: a draft may be older than the parents it was lacking.
    """
    if version.base_version_id is not None:
        base, _, _ = versions.by_id(tx.session, version.base_version_id, share=True)
        if base.state not in ("registered", "deprecated"):
            raise Refused(
                "unfit-base", f"The base is {base.state}.", "Name another base.", subject=line.ref
            )
    for parent, relation, _ in parents:
        if (
            relation == "quantised_from"
        ):  # held, so that no recall comes between the look and the birth
            original, its_line, its_node = versions.by_id(tx.session, parent, share=True)
            _fit_original(its_line, original, its_node, line.ref)
    number = versions.highest(tx.session, line.id) + 1
    versions.bear(tx.session, node, f"{line.ref}@v{number}")
    for parent, relation, grade in parents:
        _edge(tx, node, parent, relation, grade)
    version.number, version.state, version.registered_at = number, "registered", tx.now
    tx.session.flush()
