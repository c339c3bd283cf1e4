"""Inputs of the REST door; answers are views."""

from __future__ import annotations

import json
from math import isfinite
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

Name = Annotated[str, Field(max_length=200)]
Text = Annotated[str, Field(max_length=20_000)]
Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


Int = Annotated[int, Field(strict=True, ge=0, le=2**31 - 1)]
"""What fits PostgreSQL's integer; strict, since `true` and 1.0 are no counts."""
Size = Annotated[int, Field(strict=True, ge=0, le=2**53 - 1)]
"""Bytes, as far as JSON carries whole numbers."""

DEEPEST = 32
META_BYTES = 64 << 10
META_DEPTH = 8


def _modest(meta: dict[str, Any]) -> dict[str, Any]:
    """What a maker says of a version is read by people and copied into every event about it: no
    place for bulk.
    """
    size = len(json.dumps(meta))
    if size > META_BYTES:
        raise ValueError(
            f"it takes {size} bytes as JSON, at most {META_BYTES} are accepted; put long texts "
            "into README.md"
        )
    level: list[Any] = [meta]
    for _ in range(META_DEPTH):
        level = [
            one
            for node in level
            for one in (node.values() if isinstance(node, dict) else node)
            if isinstance(one, dict | list)
        ]
    if level:
        raise ValueError(f"it nests deeper than {META_DEPTH} levels")
    return meta


Meta = Annotated[dict[str, Any], AfterValidator(_modest)]


class Input(BaseModel):
    """Unknown fields are refused by name: a typing error must not pass in silence."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def storable(cls, given: Any) -> Any:
        """Refuse what no row and no canonical document can hold, wherever it hides in the free-form
        parts.

        Walked level by level: a recursive walk would fall over the very depth it is to catch.
        """
        level = [given]
        for _ in range(DEEPEST):
            inner: list[Any] = []
            for value in level:
                match value:
                    case dict():
                        inner += [*value, *value.values()]
                    case list():
                        inner += value
                    case str() if "\0" in value or not _whole(value):
                        raise ValueError("a text holds a NUL character or half a surrogate pair")
                    case bool():
                        pass
                    case int() if abs(value) >= 2**53:
                        raise ValueError("a whole number is beyond 2**53 - 1; write it as text")
                    case float() if not isfinite(value):
                        raise ValueError("NaN and Infinity are no JSON numbers")
            level = inner
        if any(isinstance(value, dict | list) for value in level):
            raise ValueError(f"it nests deeper than {DEEPEST} levels")
        return given


def _whole(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text)


class NewAccount(Input):
    name: Name
    roles: list[Name]
    team: Name | None = None


class NewToken(Input):
    account: Name
    roles: list[Name]
    team: Name | None = None
    days: Int = 30
    environment: Name | None = None


class NewKey(Input):
    public_key: Name
    label: Name = ""
    proof: Name


class NewFile(Input):
    path: Annotated[str, Field(max_length=1000)]
    sha256: Hex
    size: Size


class NewVersion(Input):
    name: Name
    files: Annotated[list[NewFile], Field(max_length=2000)]
    meta: Meta = {}
    base: Name | None = None
    domain: Name | None = None
    training_run: UUID | None = None
    attempt: Int | None = None
    step: Int | None = None
    quantised_of: Name | None = None


class DatasetFile(Input):
    sha256: Hex
    size: Size


class NewDataset(Input):
    name: Name
    file: DatasetFile
    meta: dict[str, Any] = {}


class NewProfile(Input):
    ref: Name
    profile: dict[str, Any]
    served_base: Name | None = None


class NewUseCase(Input):
    name: Name
    purpose: Text
    owner: Name
    risk_tier: Name
    suite: Name
    details: dict[str, Any] = {}


class NewSuite(Input):
    name: Name
    dataset: Name
    split: Name
    metric: Name = "exact_match"
    decoding: dict[str, Any] | None = None


class NewTrainingRun(Input):
    adapter: Name
    base: Name
    dataset: Name
    recipe: dict[str, Any]
    domain: Name | None = None
    meta: dict[str, Any] | None = None


class NewEvalRun(Input):
    subject: Name
    suite: Name


class Worker(Input):
    worker: Name


class Beat(Input):
    attempt: Int
    progress: dict[str, Any] = {}


class GivenBack(Input):
    attempt: Int
    reason: Text


class Failed(Input):
    attempt: Int
    error: Text


class Finished(Input):
    attempt: Int
    report: dict[str, Any]
    key: Name
    signature: Name


class NewPolicy(Input):
    text: Annotated[str, Field(max_length=100_000)]


class NewReview(Input):
    ref: Name
    environment: Name
    use_case: Name
    note: Text


class NewVote(Input):
    decision: dict[str, Any]
    reason: Text
    salt: Name
    key: Name
    signature: Name


class Reason(Input):
    reason: Text


class NewCanary(Input):
    ref: Name
    environment: Name
    share_bp: Annotated[int, Field(strict=True, ge=-(2**31), lt=2**31)]
    channel: Name | None = None
    reason: Text = ""


class NewPromotion(Input):
    name: Name
    environment: Name
    channel: Name | None = None
    reason: Text = ""


class NewRollback(Input):
    name: Name
    environment: Name
    channel: Name | None = None
    reason: Text


class NewRecall(Input):
    ref: Name
    reason: Text


class NewDeprecation(Input):
    ref: Name
    reason: Text


class NewTag(Input):
    """The value a version's tag is given."""

    value: str = Field(min_length=1, max_length=256)


class NewClass(Input):
    name: Name
    keep_days: Int
    counted_from: Literal["registration", "service"] = "service"
    after: Literal["may-go", "due"] = "may-go"
    draft_days: Int = 30
    reason: Text


class NewSetting(Input):
    name: Name
    retention: Name
    reason: Text


class NewHold(Input):
    over: Name
    case: Name
    reason: Text


class NewDeletion(Input):
    ref: Name
    reason: Text


class NewCollection(Input):
    grace_hours: Annotated[int, Field(strict=True, ge=0, le=8760)] = 24


class NewQuota(Input):
    """Null is unlimited."""

    team: Name
    max_bytes: Size | None = None
    max_versions: Int | None = None
    reason: Text
