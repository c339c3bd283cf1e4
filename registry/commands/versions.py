"""Register versions of base models, adapters and checkpoints, in three steps.

Intake reads, in one snapshot, everything that judging depends on. Judging reads the bytes and
holds no session meanwhile. Entering is one transaction, which reads again under lock whatever may
have changed since the intake.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from uuid import uuid4

from registry.artifacts.bundles import companions, judge
from registry.artifacts.bundles.judge import Finding, Inspected
from registry.artifacts.bundles.memory import JUDGING
from registry.artifacts.quantised import quantisations
from registry.artifacts.tokenizers import sandbox
from registry.artifacts.tokenizers.chat_templates import Judge
from registry.artifacts.weights import digests
from registry.artifacts.weights.tensors import File, TensorInfo, Weighed
from registry.blobs.store import Blobs
from registry.db import intake, provenance, quotas, roots, senders, versions, work
from registry.db.intake import Draft as Draft
from registry.db.intake import Intake, Parents
from registry.db.lines import open_line
from registry.db.provenance import Edge
from registry.db.sight import Sighted
from registry.db.store import Store, Tx
from registry.db.versions import Line, Node, Version, VersionFile
from registry.documents import canonical
from registry.errors import BundleRejected, Conflict, NotFound, Refused, Unverified
from registry.rules.actions import Action
from registry.rules.actors import Actor, require
from registry.rules.refs import Ref, parse_line
from registry.views.versions import AddedView, FindingView

LATE = "Tell the reviewers of this version. To have it recorded, register it as another line."


@dataclass(frozen=True, slots=True)
class Judged:
    """A draft with what it depends on and what judging found in its bytes."""

    draft: Draft
    parents: Parents
    inspected: Inspected


def register(store: Store, blobs: Blobs, actor: Actor, draft: Draft) -> AddedView:
    """Give a sound, complete bundle its number; an incomplete one stays a draft.

    The same bytes under the same name return the version that is there. Raises BundleRejected with
    every defect, Unverified for bytes that are not here, Refused for an unfit parent, Conflict when
    the line is of another kind.
    """
    ref = parse_line(draft.name)
    assert ref.team is not None
    with store.judging(actor, Action.VERSION_REGISTER, ref.team), store.read(actor) as session:
        require(actor, Action.VERSION_REGISTER, ref.team, work.clock(session))
        read = intake.load(session, draft)
    parents = _parents(store, blobs, actor, draft, read)
    with store.judging(actor, Action.VERSION_REGISTER, ref.team):
        inspected = _judged(blobs, draft, parents, read.own_templates)
    if not inspected.defects and inspected.rewritten is not None:
        blobs.put([inspected.rewritten])
    try:
        with store.write(actor, Action.VERSION_REGISTER, ref.team) as tx:
            tx.within(ref.team)
            return _entered(tx, blobs, Judged(draft, parents, inspected))
    except Conflict as conflict:
        # Another transaction was first, perhaps with the same bytes.
        if conflict.kind not in ("name-taken", "try-again"):
            raise
        with store.judging(actor, Action.VERSION_REGISTER, ref.team), store.read(actor) as session:
            same = _same(session, ref, draft, inspected)
        if same is None:
            raise
        return same


def _parents(store: Store, blobs: Blobs, actor: Actor, draft: Draft, read: Intake) -> Parents:
    """Check that all bytes are here and the actor may name them, then that the parents are fit.

    A client asks before it sends: defects that file names alone show are reported without the
    bytes.
    """
    team = parse_line(draft.name).team
    try:
        senders.must_be_here(blobs, draft.named, read.strange)
    except Unverified:
        with store.judging(actor, Action.VERSION_REGISTER, team):
            defects = judge.by_name(draft.kind, draft.files)
            defects += companions.undeclared(draft.kind, draft.left_out)
            if defects:
                raise BundleRejected(defects, subject=draft.name) from None
        raise
    with store.judging(actor, Action.VERSION_REGISTER, team):
        return read.fit_parents()


def _judged(
    blobs: Blobs, draft: Draft, parents: Parents, own_templates: tuple[str, ...]
) -> Inspected:
    """Judge the bundle once there is memory for it.

    While its weights are read, it needs less, so others may be judged at the same time.
    """
    base, original = parents.base, parents.original
    reading, kept_bytes = judge.footprint(draft.kind, draft.files, blobs.read)
    base_bytes = 0 if base is None else judge.footprint("base", base.files, blobs.read)[0]
    with JUDGING.take(base_bytes + reading) as room:
        facts = None
        if base is not None:
            facts = judge.base_facts(base.files, blobs.read, base_root=base.base_root)
            facts = replace(
                facts,
                repository=base.repository,
                commit=base.commit,
                quantisations=base.quantisations,
            )
        weigh = digests.weigh(blobs.read)

        def weigh_with_less(file: File, tensors: Sequence[TensorInfo]) -> Weighed:
            room.shrink(base_bytes + kept_bytes)
            return weigh(file, tensors)

        inspector = judge.Inspector(blobs.read, weigh_with_less, Judge(sandbox.look, own_templates))
        inspected = inspector.inspect(draft.kind, draft.files, base=facts, meta=parents.meta)
    inspected.defects.extend(companions.undeclared(draft.kind, draft.left_out))
    left_out = companions.facts(draft.kind, draft.left_out)
    inspected.facts.update(left_out)
    if risks := companions.risks(left_out):
        inspected.facts["risks"] = [*risks, *inspected.facts.get("risks", [])]
    if original is not None and not inspected.defects:
        descent = quantisations.descend(draft.files, original.files, blobs.read)
        inspected.defects.extend(descent.defects)
        inspected.facts["descent"] = descent.facts(original.ref, original.base_root)
    return inspected


def _entered(tx: Tx, blobs: Blobs, judged: Judged) -> AddedView:
    """Write the version, with its number if nothing is missing; or return the one that is there."""
    draft, parents, inspected = judged.draft, judged.parents, judged.inspected
    ref = parse_line(draft.name)
    trained_on = parents.trained_on
    if named := inspected.named_base:
        roots_named = roots.roots_named(tx.session, named.name, named.revision)
        inspected.defects.extend(named.defects(roots_named))
        trained_on = trained_on or named.trained_on(roots_named)
    if parents.base and trained_on is None:
        trained_on = parents.base.quantisations.get(str(parents.meta.get("base_root")))
    if trained_on is not None:
        inspected.facts["trained_on"] = {"ref": trained_on.ref, "grade": "claimed"}
    if inspected.defects:
        # Bytes that a collection took meanwhile must be sent again; they are no defect.
        strange = senders.strange(tx.session, tx.actor, [file.sha256 for file in draft.files])
        senders.must_be_here(blobs, draft.named, strange)
        raise BundleRejected(inspected.defects, subject=draft.name)
    if same := _same(tx.session, ref, draft, inspected):
        tx.unchanged(same.ref)
        return same
    _compare_root(tx.session, draft, parents, inspected)
    line = open_line(tx, ref, draft.kind, parents.meta.get("domain"))
    version, node = _draft(tx, blobs, line, judged)
    if inspected.rewritten is not None:
        # The registry wrote this file from what the actor sent, so the actor may name it.
        rewritten = canonical.sha256_hex(inspected.rewritten)
        senders.note(tx.session, tx.actor, rewritten, whole=True)
    edges = provenance.edges(tx, line, version, draft, parents)
    if trained_on is not None:
        edges.append(Edge(trained_on.id, "derived_from", "claimed"))
    if not any(finding.blocks for finding in inspected.findings):
        _number(tx, line, version, node, edges)
    tx.audit(node.ref, kind=draft.kind, manifest=version.manifest_digest, state=version.state)
    return AddedView(
        ref=node.ref,
        digest=version.manifest_digest,
        root=version.tensor_root,
        status=version.state,
        findings=[
            FindingView(finding.field, finding.detail, finding.fix, finding.blocks)
            for finding in inspected.findings
        ],
    )


def _same(session: Sighted, ref: Ref, draft: Draft, inspected: Inspected) -> AddedView | None:
    """The version of the same bytes under the same name, if there is one.

    Recalled bytes are refused on every base: bound to another one, only their configuration
    differs.
    """
    try:
        line = versions.line(session, ref)
    except NotFound:
        return None
    if line.kind != draft.kind:
        return None
    recalled, same = versions.of_bytes(
        session, line.id, inspected.manifest_digest, inspected.unbound_digest, _sent_digest(draft)
    )
    if recalled is not None:
        raise Refused(
            "recalled",
            f"These bytes are {recalled.ref}, which is recalled.",
            "Register other bytes, without what was wrong.",
            subject=recalled.ref,
        )
    if same is None:
        return None
    version, node = same
    if draft.quantised_of is not None and "descent" not in version.facts:
        raise Conflict(
            "descent-late",
            f"These bytes are {node.ref} already, which was registered without naming the version "
            "that it is a quantisation of.",
        )
    declared = companions.risks(companions.facts(draft.kind, draft.left_out))
    late = [risk for risk in declared if risk not in version.facts.get("risks", [])]
    return AddedView(
        node.ref,
        version.manifest_digest,
        version.tensor_root,
        "found",
        [
            FindingView("left_out", f"{risk}; {node.ref} does not say so", LATE, False)
            for risk in late
        ],
    )


def _compare_root(session: Sighted, draft: Draft, parents: Parents, inspected: Inspected) -> None:
    """Note a checkpoint whose weights are those of a registered model: it changes nothing."""
    if draft.kind != "checkpoint" or inspected.tensor_root is None:
        return
    line = parse_line(draft.name).line
    base = parents.base.ref if parents.base is not None else None
    same = roots.of_tensors(session, inspected.tensor_root, besides=line, first=base)
    inspected.facts["effect"] = {"state": "none" if same else "weights"}
    if same is None:
        return
    inspected.facts["effect"]["same_as"] = same
    detail = (
        f"high: it changes nothing: its weights are exactly those of {same}, so a difference can "
        "only come from its tokenizer or settings"
    )
    inspected.facts["risks"] = [detail, *inspected.facts.get("risks", [])]
    inspected.findings.append(
        Finding(
            "effect",
            detail,
            "Check that the adapter was trained before it was merged, and that the merged weights "
            "were saved.",
            blocks=False,
        )
    )


def _sent_digest(draft: Draft) -> str:
    """The digest of the manifest as it was sent, before the registry rewrote a configuration."""
    return canonical.digest(judge.manifest_of(draft.files))


def _draft(tx: Tx, blobs: Blobs, line: Line, judged: Judged) -> tuple[Version, Node]:
    """The row of the draft with its files: a new one, or an earlier draft with what it lacked.

    A draft that was bound to another base, or to none, is found by the manifest that it would have
    without a base.
    """
    draft, parents, inspected = judged.draft, judged.parents, judged.inspected
    base = parents.base
    try:
        version, node = _earlier_draft(tx, line, inspected, _sent_digest(draft))
        if version.state != "draft":
            raise Conflict(
                "try-again",
                f"{node.ref} became {version.state} at the same moment.",
            )
        if version.manifest_digest != inspected.manifest_digest:
            versions.exchange_files(tx.session, blobs, version.id, inspected.files)
            version.manifest_digest = inspected.manifest_digest
        version.meta = parents.meta
        version.base_version_id = base.id if base else None
        version.base_root = inspected.base_root
        version.facts = companions.declared_before(version.facts, inspected.facts)
        version.training_run_id = draft.training_run or version.training_run_id
        version.step = draft.step or version.step
        tx.session.flush()
        return version, node
    except NotFound:
        pass
    if draft.training_run is not None:
        versions.must_keep_outputs(tx.session, draft.training_run, draft.step)
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
            meta=parents.meta,
            facts=inspected.facts,
            created_by=tx.actor.account,
            created_at=tx.now,
        )
    )
    # In the order of their digests, so that two registrations that share files cannot deadlock.
    for file in sorted(inspected.files, key=lambda file: file.sha256):
        versions.hold_blob(tx.session, blobs, file.sha256, file.size)
        tx.add(VersionFile(id=uuid4(), version_id=identity, path=file.path, blob_id=file.sha256))
    quotas.must_fit(tx.session, line.team)
    return version, node


def _earlier_draft(tx: Tx, line: Line, inspected: Inspected, sent: str) -> tuple[Version, Node]:
    """The version of these bytes, else the draft of these files on any base; NotFound if none."""
    ref = Ref(line.team, line.name, digest=inspected.manifest_digest.removeprefix("sha256:"))
    with suppress(NotFound):
        version, _, node = versions.by_ref(tx.session, ref, lock=True)
        return version, node
    return versions.draft_of(tx.session, line.id, inspected.unbound_digest, sent)


def _number(tx: Tx, line: Line, version: Version, node: Node, edges: list[Edge]) -> None:
    """Give the version the next number of its line, and enter it into lineage.

    No number is used twice: the line is locked, and the row of a version stays when it is deleted.
    The node gets its place in lineage only now, since a draft may be older than parents that it
    lacked.
    """
    provenance.hold(tx, line, version, edges)
    number = versions.highest(tx.session, line.id) + 1
    versions.name_node(tx.session, node, f"{line.ref}@v{number}")
    provenance.record(tx, node, edges)
    version.number, version.state, version.registered_at = number, "registered", tx.now
    tx.session.flush()
