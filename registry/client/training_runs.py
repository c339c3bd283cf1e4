"""Training runs, and the work a trainer leases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from registry.client.accounts import Sign
from registry.client.transport import Transport
from registry.views.training_runs import TrainingRunView, WorkView


class TrainingRuns(Transport):
    """Queue training; and, for workers, lease it, keep the lease, and report."""

    def train(
        self,
        adapter: str,
        base: str,
        dataset: str,
        recipe: Mapping[str, Any],
        domain: str | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> TrainingRunView:
        """Queue a training run; a worker takes it up. Its recipe is frozen with it."""
        body = {
            "adapter": adapter,
            "base": base,
            "dataset": dataset,
            "recipe": dict(recipe),
            "domain": domain,
            "meta": dict(meta or {}),
        }
        return self._post("/training-runs", TrainingRunView, body)

    def training_run(self, run_id: UUID | str) -> TrainingRunView:
        """One training run: state, progress, meters, outputs."""
        return self._get(f"/training-runs/{run_id}", TrainingRunView)

    def training_runs(self) -> list[TrainingRunView]:
        """Training runs, newest first."""
        return self._get("/training-runs", list[TrainingRunView])

    def cancel_training(self, run_id: UUID | str) -> TrainingRunView:
        """Cancel a queued or running training run; its worker hears of it at the next beat."""
        return self._post(f"/training-runs/{run_id}/cancel", TrainingRunView, {})

    def lease(self, worker: str) -> WorkView | None:
        """Take the oldest piece of waiting work, or None when there is none."""
        return self._post_or_none("/work/lease", WorkView, {"worker": worker})

    def beat(self, work_id: UUID | str, attempt: int, progress: Mapping[str, Any]) -> bool:
        """Keep the lease and say how far the work is; True means: stop, it was cancelled.

        Raises Conflict when another worker holds the lease by now.
        """
        body = {"attempt": attempt, "progress": dict(progress)}
        return self._post(f"/work/{work_id}/beat", dict[str, bool], body)["cancelled"]

    def requeue(self, work_id: UUID | str, attempt: int, reason: str) -> None:
        """Give the work back for another to resume from its save point."""
        self._tell(f"/work/{work_id}/requeue", {"attempt": attempt, "reason": reason})

    def fail(self, work_id: UUID | str, attempt: int, error: str) -> None:
        """Say that the work cannot be done, and why."""
        self._tell(f"/work/{work_id}/fail", {"attempt": attempt, "error": error})

    def finish(
        self, work_id: UUID | str, attempt: int, report: Mapping[str, Any], sign: Sign
    ) -> None:
        """Hand in the signed report; `sign` is bound to the report's context (training-report or
        eval-report).
        """
        key, signature = sign(dict(report))
        body = {"attempt": attempt, "report": dict(report), "key": key, "signature": signature}
        self._tell(f"/work/{work_id}/finish", body)
