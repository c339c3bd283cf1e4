"""A rule of the gate: its fields in a policy, its evidence, its judgement, its columns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

from registry.fields import Fields, filled

Outcome = Literal["pass", "fail", "inconclusive"]
SEVERITY: tuple[Outcome, ...] = ("pass", "inconclusive", "fail")
Evidence = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RuleResult:
    """One rule's outcome, as a sentence and as the numbers behind it (rounded to 6 places)."""

    rule: str
    outcome: Outcome
    detail: str
    numbers: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Columns:
    """What a rule measured, for a table: rates are fractions 0..1, a text is shown as it is.

    `gain` is the difference of the two rates with the ends of its interval at `confidence`. `tile`
    is the heading of a large display of `subject` against `base`, empty for none.
    """

    subject: float | str = ""
    n: int | None = None
    base: float | None = None
    gain: tuple[float, float, float] | None = None
    confidence: float | None = None
    tile: str = ""


class Rule(ABC):
    """A rule with the settings of one policy: a frozen dataclass whose attributes are `fields`.

    `reads` is the key of the evidence document that `judge` receives; `db.evidence` gathers it.
    Most rules apply where a policy names them under `evidence`; an `always` rule applies under
    every policy, and its fields are optional keys of the policy itself.
    """

    __slots__ = ()
    name: ClassVar[str]
    title: ClassVar[str]
    reads: ClassVar[str]
    fields: ClassVar[Fields]
    always: ClassVar[bool] = False

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Self:
        """The rule with valid settings and its defaults; other keys are ignored."""
        whole = filled(settings, cls.fields)
        return cls(**{key: whole[key] for key in cls.fields})

    @abstractmethod
    def judge(self, evidence: Evidence | None) -> RuleResult | None:
        """Judge the evidence, which is None when it is missing.

        The result is None when there is nothing to judge. KeyError, TypeError and AttributeError
        mean that the evidence does not have the expected form.
        """

    @classmethod
    def columns(cls, numbers: Mapping[str, Any]) -> Columns:
        """The numbers of a result as columns of the review's table; empty by default."""
        return Columns()

    def settings(self) -> dict[str, Any]:
        """The settings of this rule in a policy, by key; `of` reads them back.

        A setting that has its default is left out: an option that is added to a rule later changes
        no digest of a published policy.
        """
        values = {key: getattr(self, key) for key in self.fields}
        return {key: value for key, value in values.items() if value != self.fields[key].default}

    def result(self, outcome: Outcome, detail: str, **numbers: Any) -> RuleResult:
        """A result of this rule."""
        return RuleResult(self.name, outcome, detail, numbers)
