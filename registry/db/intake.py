"""Load, in one snapshot, what a registration must know before it judges any bytes."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from registry.artifacts.bundles.bases import Quantisation
from registry.artifacts.bundles.judge import Kind
from registry.artifacts.weights.tensors import File
from registry.db import policies, quantisations, senders, training_runs, versions
from registry.db.senders import Named
from registry.db.sight import Sighted
from registry.db.versions import Line, Node, Version
from registry.errors import Invalid, NotFound, Refused, RegistryError
from registry.rules import refs
from registry.rules.refs import parse_line
from registry.rules.versions import usable
from registry.views.imports import LeftOut


@dataclass(frozen=True, slots=True)
class Draft:
    """A bundle to register as a version; the bytes of `files` are published already.

    `left_out` is what was beside them and is not sent.
    """

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
    left_out: tuple[LeftOut, ...] = ()

    @property
    def named(self) -> list[Named]:
        """The files in the form that `senders` takes."""
        return [(file.path, file.sha256, file.size) for file in self.files]


@dataclass(frozen=True, slots=True)
class Parent:
    """A registered base model or checkpoint that the draft derives from."""

    id: UUID
    ref: str
    repository: str
    commit: str
    base_root: str | None
    files: list[File]
    quantisations: dict[str, Quantisation] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Parents:
    """The base, the version that the draft is a quantisation of, and all metadata of the draft.

    `trained_on`: the verified quantisation that the request names as the base of an adapter, which
    is then bound to the original.
    """

    base: Parent | None
    original: Parent | None
    meta: dict[str, Any]
    trained_on: Quantisation | None = None


@dataclass(frozen=True, slots=True)
class Intake:
    """What the intake has read.

    `strange`: the digests that the actor may not name. `own_templates`: the environments in which
    an adapter may bring a chat template. `parents`: the parents, or the refusal if they are unfit.
    The refusal is kept for later, because a client that asks before it sends the bytes must first
    learn whether the bytes are here.
    """

    strange: frozenset[str]
    own_templates: tuple[str, ...]
    parents: Parents | RegistryError

    def fit_parents(self) -> Parents:
        """The parents; raises the error that says why they are unfit."""
        if isinstance(self.parents, RegistryError):
            raise self.parents
        return self.parents


def load(session: Sighted, draft: Draft) -> Intake:
    """Read everything that judging the draft depends on, except bytes.

    Raises Invalid for a malformed digest.
    """
    files = senders.checked(draft.named)
    strange = senders.strange(session, session.actor, [digest for _, digest, _ in files])
    parents: Parents | RegistryError
    try:
        base, trained_on = _base(session, draft)
        parents = Parents(base, _original(session, draft), _meta(session, draft), trained_on)
    except RegistryError as unfit:
        parents = unfit
    return Intake(frozenset(strange), policies.allowing_chat_templates(session), parents)


def _base(session: Sighted, draft: Draft) -> tuple[Parent | None, Quantisation | None]:
    """The base of a draft, and the quantisation of it that was named in its place.

    An adapter of a verified quantisation belongs to the original. A training run names the base
    that it was asked to train on.
    """
    if draft.base is None:
        return None, None
    version, line, node = versions.by_ref(session, draft.base)
    if line.kind == "adapter" or not usable(version.state):
        raise Refused(
            "unfit-base",
            f"{draft.base} is {'an adapter' if line.kind == 'adapter' else version.state}.",
            subject=draft.name,
        )
    original = None
    if draft.kind == "adapter" and draft.training_run is None:
        original = quantisations.original_of(session, version.id)
    if original is None:
        base = _parent(session, version, line, node)
        known = quantisations.of_base(session, version.id)
        return replace(base, quantisations=known), None
    known = quantisations.of_base(session, original)
    original_version, original_line, original_node = versions.by_id(session, original)
    must_be_fit_original(original_line, original_version, original_node, draft.name)
    base = _parent(session, original_version, original_line, original_node)
    trained_on = Quantisation(version.id, node.ref, version.number or 0, verified=True)
    return replace(base, quantisations=known), trained_on


def _original(session: Sighted, draft: Draft) -> Parent | None:
    """The version that a checkpoint is said to be a quantisation of.

    Its descent is later worked out from the bytes of both.
    """
    if draft.quantised_of is None:
        return None
    if draft.kind != "checkpoint":
        raise Invalid(
            "not-quantised",
            f"Only a checkpoint can be a quantisation; this is of kind {draft.kind}.",
        )
    version, line, node = versions.by_ref(session, draft.quantised_of)
    must_be_fit_original(line, version, node, draft.name)
    return _parent(session, version, line, node)


def must_be_fit_original(line: Line, version: Version, node: Node, subject: str) -> None:
    """Raise Refused `unfit-parent` unless a checkpoint may be quantised from this version now."""
    if line.kind == "adapter" or not usable(version.state):
        raise Refused(
            "unfit-parent",
            f"{node.ref} is {'an adapter' if line.kind == 'adapter' else version.state}.",
            "Name the registered base model or checkpoint it was quantised from.",
            subject=subject,
        )


def _parent(session: Sighted, version: Version, line: Line, node: Node) -> Parent:
    return Parent(
        version.id,
        node.ref,
        refs.repository(node.ref),
        refs.commit(version.manifest_digest),
        version.base_root,
        [File(*row) for row in versions.files(session, version.id)],
    )


def _meta(session: Sighted, draft: Draft) -> dict[str, Any]:
    """The metadata of a version.

    It is what its maker says, then what the request for its training says, and the domain of its
    line if neither names one.
    """
    meta = dict(draft.meta)
    if draft.training_run is not None:
        meta |= training_runs.by_id(session, draft.training_run).meta
    domain = draft.domain
    if not (domain or meta.get("domain")):
        with suppress(NotFound):  # this is the first version of its line
            domain = versions.line(session, parse_line(draft.name)).domain
    return {**meta, **({"domain": domain} if domain else {})}
