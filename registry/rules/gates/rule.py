"""What every rule of the gate is: its fields in a policy, the evidence it reads, its judgement, and
its columns in a review.
"""

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
    """One rule's outcome, in a sentence and in the numbers it rests on (rounded to 6 places)."""

    rule: str
    outcome: Outcome
    detail: str
    numbers: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Columns:
    """What a rule measured, for a table: rates are fractions 0..1, a text stands as it is.

    `gain` is the difference of the two rates with the ends of its interval at `confidence`;
    `tile` is the heading of a large display of `subject` against `base`, empty for none.
    """

    subject: float | str = ""
    n: int | None = None
    base: float | None = None
    gain: tuple[float, float, float] | None = None
    confidence: float | None = None
    tile: str = ""


class Rule(ABC):
    """A rule with the settings of one policy: a frozen dataclass whose attributes are `fields`.

    `reads` is the key of the evidence document that `judge` is given; it is gathered by
    `db.evidence`. Most rules apply where a policy names them under `evidence`; an `always` rule
    applies under every policy, and its fields are optional keys of the policy itself.
    """

    __slots__ = ()
    name: ClassVar[str]
    title: ClassVar[str]
    reads: ClassVar[str]
    fields: ClassVar[Fields]
    always: ClassVar[bool] = False

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Self:
        """The rule with sound settings, defaults filled in; other keys are ignored."""
        whole = filled(settings, cls.fields)
        return cls(**{key: whole[key] for key in cls.fields})

    @abstractmethod
    def judge(self, evidence: Evidence | None) -> RuleResult | None:
        """Hold the evidence against the rule; None evidence is missing, None as answer means that
        there is nothing to judge.

        KeyError, TypeError and AttributeError stand for evidence in another form than expected.
        """

    @classmethod
    def columns(cls, numbers: Mapping[str, Any]) -> Columns:
        """The numbers of a result as columns of the review's table; none by default."""
        return Columns()

    def settings(self) -> dict[str, Any]:
        """What a policy says of this rule, by key; `of` reads it back."""
        return {key: getattr(self, key) for key in self.fields}

    def result(self, outcome: Outcome, detail: str, **numbers: Any) -> RuleResult:
        """A result of this rule."""
        return RuleResult(self.name, outcome, detail, numbers)
