"""Eval suites, eval runs and gate verdicts, as answers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True)
class SuiteView:
    """A frozen eval suite version; `digest` covers items, metric and decoding."""

    id: UUID
    ref: str
    number: int
    digest: str
    dataset: str
    split: str
    metric: str
    decoding: dict[str, Any]
    normalisation: str
    items: int
    items_sha256: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class MetricView:
    """One number of an eval run with its count and 95 % interval; rates are fractions 0..1."""

    name: str
    value: float
    n: int
    ci_low: float
    ci_high: float
    higher_is_better: bool


@dataclass(frozen=True, slots=True)
class EvalRunView:
    """A suite executed on one version."""

    id: UUID
    subject: str
    suite: str
    state: str
    attempt: int
    progress: dict[str, Any]
    metrics: list[MetricView]
    samples_sha256: str | None
    error: str | None
    created_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class RuleView:
    """The outcome of one rule of a policy on the evidence: pass, fail or inconclusive.

    `numbers` are those that the outcome rests on.
    """

    rule: str
    outcome: str
    detail: str
    numbers: dict[str, Any]


@dataclass(frozen=True, slots=True)
class VerdictView:
    """The verdict of a gate; `outcome` is the worst of its rules: fail, inconclusive, then pass."""

    outcome: str
    policy: str
    policy_digest: str
    rules: list[RuleView]
