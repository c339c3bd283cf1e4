"""Lines (base models, adapters, checkpoints) and their versions, as answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from registry.errors import Defect


@dataclass(frozen=True, slots=True)
class FindingView:
    """Something that a person must know; if it `blocks`, the version is a draft without it."""

    field: str
    detail: str
    fix: str
    blocks: bool = True


@dataclass(frozen=True, slots=True)
class AddedView:
    """The result of `add`; `status` is draft, registered, or found if the same bytes existed."""

    ref: str
    digest: str
    root: str | None
    status: str
    findings: list[FindingView] = field(default_factory=list)
    defects: list[Defect] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class FileView:
    """One file of a bundle: its path, the hex SHA-256 of its bytes, its size in bytes."""

    path: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class ApprovalView:
    """A review of a version in one environment, or its approval, in force or not."""

    review: int
    environment: str
    state: str
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class LeftOutView:
    """A file that was beside the bundle and was left out: why, and its size in bytes.

    `companion` says what it holds if that may belong to the model; a person then asked for it to
    be left out.
    """

    path: str
    why: str
    size: int = 0
    companion: str | None = None


@dataclass(frozen=True, slots=True)
class MeasuredView:
    """The difference of the logits with and without the adapter, by one eval run's probe."""

    run: UUID
    largest: float
    mean: float
    prompts: int


@dataclass(frozen=True, slots=True)
class EffectView:
    """Whether a version changes anything: `none`, by its `weights`, or `measured`.

    `parts` is how many parts of the base an adapter adapts, `idle` how many of them it leaves as
    they were. `same_as` is the version whose very weights a checkpoint has.
    """

    state: str
    parts: int | None = None
    idle: int | None = None
    idle_examples: list[str] = field(default_factory=list)
    same_as: str | None = None
    measured: MeasuredView | None = None


@dataclass(frozen=True, slots=True)
class VersionView:
    """One version of a base model, adapter or checkpoint; roots and digests are `sha256:<hex>`.

    `base_kind` is base or checkpoint: both can be adapted.
    `risks` are what a reviewer should know of it, each beginning with high or low.
    """

    id: UUID
    ref: str
    line: str
    kind: str
    number: int | None
    state: str
    manifest_digest: str
    tensor_root: str | None
    base_root: str | None
    base: str | None
    base_kind: str | None
    meta: dict[str, Any]
    facts: dict[str, Any]
    files: list[FileView]
    training_run: UUID | None
    created_by: str
    created_at: datetime
    approvals: list[ApprovalView]
    serves: list[str]
    reviews: list[ApprovalView] = field(default_factory=list)
    risks: list[str] = field(default_factory=list)
    left_out: list[LeftOutView] = field(default_factory=list)
    effect: EffectView | None = None
    recall_reason: str | None = None
    deprecation_reason: str | None = None


@dataclass(frozen=True, slots=True)
class LineView:
    """A line: its name, kind, business domain, and newest version."""

    id: UUID
    name: str
    team: str
    kind: str
    domain: str | None
    versions: int
    newest: str | None
    newest_state: str | None
    serves: list[str]
    created_at: datetime


@dataclass(frozen=True, slots=True)
class LinePage:
    """One page of lines; pass `next` as cursor, it is null on the last page."""

    items: list[LineView]
    next: str | None


@dataclass(frozen=True, slots=True)
class CheckView:
    """One check of `verify`.

    `outcome` is ok, fault, or skipped if something that the check needs is at fault itself.
    """

    check: str
    outcome: str
    detail: str


@dataclass(frozen=True, slots=True)
class VerifiedView:
    """What `verify` recomputed from the bytes; `ok` if no check found a fault.

    `problems` are the faults in words; `checks` lists everything that was checked.
    """

    ref: str
    ok: bool
    files: int
    bytes: int
    manifest_digest: str
    root: str | None
    problems: list[str]
    checks: list[CheckView] = field(default_factory=list)
