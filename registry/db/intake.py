"""What a registration must know before any byte is judged, loaded in one snapshot."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from registry.artifacts.bundles.judge import Kind
from registry.artifacts.weights.tensors import File
from registry.db import policies, senders, training_runs, versions
from registry.db.senders import Named
from registry.db.sight import Sighted
from registry.db.versions import Line, Node, Version
from registry.errors import Invalid, NotFound, Refused, RegistryError
from registry.rules import refs
from registry.rules.refs import parse_line
from registry.rules.versions import usable


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

    @property
    def named(self) -> list[Named]:
        """The files as `senders` asks for them."""
        return [(file.path, file.sha256, file.size) for file in self.files]


@dataclass(frozen=True, slots=True)
class Parent:
    """A registered base model or checkpoint on which the draft stands."""

    id: UUID
    ref: str
    line: str
    commit: str
    base_root: str | None
    files: list[File]


@dataclass(frozen=True, slots=True)
class Parents:
    """The base, the version it is a quantisation of, and all that is said of the draft."""

    base: Parent | None
    original: Parent | None
    meta: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Intake:
    """`strange` are the digests that are not the actor's to name; `own_templates` the environments
    in which an adapter may bring a chat template.

    A draft that can come to nothing has its refusal in place of its parents: whoever asks before
    sending the bytes hears first whether the bytes are here.
    """

    strange: frozenset[str]
    own_templates: tuple[str, ...]
    parents: Parents | RegistryError

    def must_stand(self) -> Parents:
        """The parents, or the error that says why they are unfit."""
        if isinstance(self.parents, RegistryError):
            raise self.parents
        return self.parents


def load(session: Sighted, draft: Draft) -> Intake:
    """Read everything that judging the draft depends on; no byte is touched.

    Raises Invalid for a malformed digest.
    """
    files = senders.checked(draft.named)
    strange = senders.strange(session, session.actor, [digest for _, digest, _ in files])
    parents: Parents | RegistryError
    try:
        parents = Parents(_base(session, draft), _original(session, draft), _meta(session, draft))
    except RegistryError as unfit:
        parents = unfit
    return Intake(frozenset(strange), policies.allowing_chat_templates(session), parents)


def _base(session: Sighted, draft: Draft) -> Parent | None:
    if draft.base is None:
        return None
    version, line, node = versions.by_ref(session, draft.base)
    if line.kind == "adapter" or not usable(version.state):
        raise Refused(
            "unfit-base",
            f"{draft.base} is {'an adapter' if line.kind == 'adapter' else version.state}.",
            subject=draft.name,
        )
    return _parent(session, version, line, node)


def _original(session: Sighted, draft: Draft) -> Parent | None:
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
    version, line, node = versions.by_ref(session, draft.quantised_of)
    must_be_fit_original(line, version, node, draft.name)
    return _parent(session, version, line, node)


def must_be_fit_original(line: Line, version: Version, node: Node, subject: str) -> None:
    """Refused `unfit-parent` unless a checkpoint may be quantised from this version now."""
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
        line.ref,
        refs.commit(version.manifest_digest),
        version.base_root,
        [File(*row) for row in versions.files(session, version.id)],
    )


def _meta(session: Sighted, draft: Draft) -> dict[str, Any]:
    """What is said of a version by its maker, then by whoever asked for its training, and the
    domain of its line where neither names one.
    """
    meta = dict(draft.meta)
    if draft.training_run is not None:
        meta |= training_runs.by_id(session, draft.training_run).meta
    domain = draft.domain
    if not (domain or meta.get("domain")):
        with suppress(NotFound):  # the first of its line
            domain = versions.line(session, parse_line(draft.name)).domain
    return {**meta, **({"domain": domain} if domain else {})}
