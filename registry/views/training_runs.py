"""Training runs and the work a trainer leases, as answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True)
class TrainingRunView:
    """A recipe executed: inputs, state, meters, outputs (refs of the versions it registered)."""

    id: UUID
    adapter: str
    base: str
    dataset: str
    recipe: dict[str, Any]
    recipe_digest: str
    state: str
    attempt: int
    progress: dict[str, Any]
    outputs: list[str]
    meters: dict[str, Any]
    environment: dict[str, Any]
    mlflow_url: str | None
    error: str | None
    requested_by: str
    trainer: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class WorkView:
    """One leased piece of work; exactly one of `training` and `evaluation` is set.

    The lease ends at `expires_at` unless beaten; `attempt` must come back with every report, so
    that a worker which lost its lease cannot finish the work of the one that holds it now.
    """

    id: UUID
    kind: str
    attempt: int
    expires_at: datetime
    training: TrainingWork | None
    evaluation: EvalWork | None


@dataclass(frozen=True, slots=True)
class InputView:
    """A version or data set version as a worker needs it: its ref, root, and files by digest."""

    ref: str
    kind: str
    root: str
    files: list[InputFile]


@dataclass(frozen=True, slots=True)
class InputFile:
    """One input file: path, hex SHA-256, size in bytes."""

    path: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class TrainingWork:
    """What to train; `meta` is what the requester said of the adapter (domain, purpose) and goes
    with each version.
    """

    adapter: str
    recipe: dict[str, Any]
    recipe_digest: str
    base: InputView
    dataset: InputView
    published: dict[str, str]
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EvalWork:
    """What to evaluate: the subject, the base it stands on (null when the subject is a base), and
    the frozen suite.
    """

    suite: str
    suite_digest: str
    metric: str
    decoding: dict[str, Any]
    items: InputFile
    subject: InputView
    base: InputView | None
