"""Use cases, frozen eval suites, eval runs and gates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from registry.client.transport import SLOW, Transport
from registry.views.evals import EvalRunView, SuiteView, VerdictView
from registry.views.use_cases import UseCaseView


class Evals(Transport):
    """What a version is for, how it is measured, and whether that suffices."""

    def add_use_case(self, name: str, **fields: Any) -> UseCaseView:
        """State why something will serve: purpose, owner, risk_tier, suite, details."""
        return self._post("/use-cases", UseCaseView, {"name": name, **fields})

    def use_cases(self) -> list[UseCaseView]:
        """Every use case."""
        return self._get("/use-cases", list[UseCaseView])

    def freeze_suite(
        self,
        name: str,
        dataset: str,
        split: str,
        metric: str = "exact_match",
        decoding: Mapping[str, Any] | None = None,
    ) -> SuiteView:
        """Freeze one split of a data set version as an eval suite version: items, metric and
        decoding.
        """
        body = {
            "name": name,
            "dataset": dataset,
            "split": split,
            "metric": metric,
            "decoding": dict(decoding) if decoding is not None else None,
        }
        return self._post("/eval-suites", SuiteView, body, timeout=SLOW)

    def suites(self) -> list[SuiteView]:
        """Every eval suite version."""
        return self._get("/eval-suites", list[SuiteView])

    def evaluate(self, subject: str, suite: str) -> EvalRunView:
        """Queue an eval run of a version on a suite; a worker takes it up."""
        return self._post("/eval-runs", EvalRunView, {"subject": subject, "suite": suite})

    def eval_run(self, run_id: UUID | str) -> EvalRunView:
        """One eval run with its metrics."""
        return self._get(f"/eval-runs/{run_id}", EvalRunView)

    def eval_runs(self, subject: str | None = None) -> list[EvalRunView]:
        """Eval runs, of one version or all."""
        return self._get("/eval-runs", list[EvalRunView], subject=subject)

    def gate(self, ref: str, environment: str, use_case: str) -> VerdictView:
        """What the environment's policy says of this version's evidence now, rule by rule."""
        return self._get("/gates", VerdictView, ref=ref, environment=environment, use_case=use_case)
