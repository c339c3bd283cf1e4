"""Frozen eval suites and eval runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from registry.client.transport import SLOW, Transport
from registry.views.evals import EvalRunView, SuiteView


class Evals(Transport):
    """How versions are measured, and with what result."""

    def freeze_suite(
        self,
        name: str,
        dataset: str,
        split: str,
        metric: str = "exact_match",
        decoding: Mapping[str, Any] | None = None,
    ) -> SuiteView:
        """Freeze one split of a data set version as an eval suite, with its metric and decoding."""
        body = {
            "name": name,
            "dataset": dataset,
            "split": split,
            "metric": metric,
            "decoding": dict(decoding) if decoding is not None else None,
        }
        return self._post("/eval-suites", SuiteView, body, timeout=SLOW)

    def suites(self) -> list[SuiteView]:
        """Return every eval suite version."""
        return self._get("/eval-suites", list[SuiteView])

    def evaluate(self, subject: str, suite: str) -> EvalRunView:
        """Queue an eval run of a version on a suite; a trainer leases it."""
        return self._post("/eval-runs", EvalRunView, {"subject": subject, "suite": suite})

    def eval_run(self, run_id: UUID | str) -> EvalRunView:
        """Return one eval run with its metrics."""
        return self._get(f"/eval-runs/{run_id}", EvalRunView)

    def eval_runs(self, subject: str | None = None) -> list[EvalRunView]:
        """Return the eval runs of one version, or all."""
        return self._get("/eval-runs", list[EvalRunView], subject=subject)
