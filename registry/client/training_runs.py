"""Training runs, and the work that a trainer leases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any
from uuid import UUID

from registry.client.accounts import Sign
from registry.client.transport import Transport
from registry.views.training_runs import TrainingRunView, WorkView


@dataclass(frozen=True, slots=True)
class NewTrainingRun:
    """What to train: the adapter's line, the base and data set versions, and the recipe.

    `domain` and `meta` go to the versions that the run makes.
    """

    adapter: str
    base: str
    dataset: str
    recipe: Mapping[str, Any]
    domain: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)


class TrainingRuns(Transport):
    """Queue training runs; for trainers: lease work, keep the lease, and report."""

    def train(self, run: NewTrainingRun) -> TrainingRunView:
        """Queue a training run; a trainer leases it. Its recipe is frozen with it."""
        return self._post("/training-runs", TrainingRunView, asdict(run))

    def training_run(self, run_id: UUID | str) -> TrainingRunView:
        """Return one training run: state, progress, meters, outputs."""
        return self._get(f"/training-runs/{run_id}", TrainingRunView)

    def training_runs(self) -> list[TrainingRunView]:
        """Return the training runs, newest first."""
        return self._get("/training-runs", list[TrainingRunView])

    def cancel_training(self, run_id: UUID | str) -> TrainingRunView:
        """Cancel a queued or running training run; its trainer learns of it at the next beat."""
        return self._post(f"/training-runs/{run_id}/cancel", TrainingRunView, {})

    def lease(self, worker: str, identity: str | None = None) -> WorkView | None:
        """Lease the oldest piece of waiting work; None when nothing waits.

        A process that takes over from a dead one gives the same `identity`, and gets its work back
        at once. No two processes that live at the same time may give the same.
        """
        body = {"worker": worker, "identity": identity}
        return self._post_or_none("/work/lease", WorkView, body)

    def beat(self, work_id: UUID | str, attempt: int, progress: Mapping[str, Any]) -> bool:
        """Prolong the lease and report progress. True means that the work was cancelled: stop.

        Raises Conflict when another trainer holds the lease now.
        """
        body = {"attempt": attempt, "progress": dict(progress)}
        return self._post(f"/work/{work_id}/beat", dict[str, bool], body)["cancelled"]

    def requeue(self, work_id: UUID | str, attempt: int, reason: str) -> None:
        """Give the work back, so that another trainer resumes it from its save point."""
        self._change(f"/work/{work_id}/requeue", {"attempt": attempt, "reason": reason})

    def fail(self, work_id: UUID | str, attempt: int, error: str) -> None:
        """Report that the work cannot be done, and why."""
        self._change(f"/work/{work_id}/fail", {"attempt": attempt, "error": error})

    def finish(
        self, work_id: UUID | str, attempt: int, report: Mapping[str, Any], sign: Sign
    ) -> None:
        """Hand in the signed report.

        `sign` is bound to the context of the report: training-report or eval-report.
        """
        key, signature = sign(dict(report))
        body = {"attempt": attempt, "report": dict(report), "key": key, "signature": signature}
        self._change(f"/work/{work_id}/finish", body)
