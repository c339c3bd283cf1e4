"""Training runs and the work a trainer leases, as answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID


@dataclass(frozen=True, slots=True)
class TrainingRunView:
    """A training run: inputs, state, meters, and outputs (refs of the versions it registered).

    `curve` is the loss by step while it runs, as [step, loss] of at most 200 steps. `first_row` is
    the first row as the model sees it: `form` with placeholders, its tokens, how many of them are
    learned, and their digest. While the run goes on, `text` shows it in full.
    """

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
    first_row: dict[str, Any]
    mlflow_url: str | None
    error: str | None
    requested_by: str
    trainer: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    curve: list[tuple[int, float]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class WorkView:
    """One leased piece of work; exactly one of `training` and `evaluation` is set.

    The lease ends at `expires_at` unless a heartbeat prolongs it. Every report must state
    `attempt`, so that a worker that lost its lease cannot finish the work of the one that has it
    now. `mlflow_url` is the registry's MLflow server, for workers without a setting of their own.
    """

    id: UUID
    kind: str
    attempt: int
    expires_at: datetime
    training: TrainingWork | None
    evaluation: EvalWork | None
    mlflow_url: str | None = None


@dataclass(frozen=True, slots=True)
class InputView:
    """A version, as a worker needs it: its ref, root, and files by digest."""

    ref: str
    kind: Literal["base", "adapter", "checkpoint"]
    root: str
    files: list[InputFile]


@dataclass(frozen=True, slots=True)
class RowsView:
    """A data set version, as a training worker needs it, with the only rows that it may read.

    `ref` and `root` name the data set version in reports and lineage. `file` has the lines of its
    train split, as they are and in order; `file_root` is the record root over these rows.
    """

    ref: str
    root: str
    file: InputFile
    file_root: str


@dataclass(frozen=True, slots=True)
class InputFile:
    """One input file: its path, the hex SHA-256 of its bytes, its size in bytes."""

    path: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class TrainingWork:
    """What to train.

    `meta` is what the requester stated of the adapter (domain, purpose); each version gets it.
    `published` maps the steps that have a version already to its ref.
    """

    adapter: str
    recipe: dict[str, Any]
    recipe_digest: str
    base: InputView
    dataset: RowsView
    published: dict[str, str]
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EvalWork:
    """What to evaluate: the subject, its base (null if it is a base itself), and the suite."""

    suite: str
    suite_digest: str
    metric: str
    decoding: dict[str, Any]
    items: InputFile
    subject: InputView
    base: InputView | None
