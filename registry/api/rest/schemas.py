"""Request bodies of the REST API. Answers are views."""

from __future__ import annotations

import json
from math import isfinite
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from registry.api.rest.forms import (
    Case,
    Channel,
    Days,
    Decision,
    Decoding,
    DraftDays,
    Environment,
    Hex,
    KeepDays,
    Keeper,
    Kept,
    KeyId,
    Line,
    Metric,
    Name,
    NewLine,
    PolicyText,
    ProfileParts,
    PublicKey,
    Reasoned,
    RecipeKeys,
    Ref,
    RiskTier,
    Roles,
    Salt,
    Share,
    Short,
    Signature,
    Subject,
    TagValue,
    Text,
    Title,
    Words,
)

Int = Annotated[int, Field(strict=True, ge=0, le=2**31 - 1)]
"""A count that fits PostgreSQL's integer; strict, because `true` and 1.0 are not counts."""
Size = Annotated[int, Field(strict=True, ge=0, le=2**53 - 1)]
"""A number of bytes, up to the largest whole number that JSON carries exactly."""

MAX_DEPTH = 32
"""Levels of nesting in a request."""
MAX_META_BYTES = 64 << 10
"""Bytes of a version's metadata, as JSON."""
MAX_META_DEPTH = 8
"""Levels of nesting in a version's metadata."""


def _modest(meta: dict[str, Any]) -> dict[str, Any]:
    """Bound a version's metadata: people read it, and every event about the version copies it."""
    size = len(json.dumps(meta))
    if size > MAX_META_BYTES:
        raise ValueError(
            f"it has {size} bytes as JSON, and at most {MAX_META_BYTES} are accepted; put long "
            "texts into README.md"
        )
    level: list[Any] = [meta]
    for _ in range(MAX_META_DEPTH):
        level = [
            value
            for node in level
            for value in (node.values() if isinstance(node, dict) else node)
            if isinstance(value, dict | list)
        ]
    if level:
        raise ValueError(f"it nests deeper than {MAX_META_DEPTH} levels")
    return meta


Meta = Annotated[dict[str, Any], AfterValidator(_modest)]


class Input(BaseModel):
    """A request body. Unknown fields are refused by name, so that a typing error is noticed."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def storable(cls, body: Any) -> Any:
        """Refuse values that no row and no canonical document can hold, anywhere in the body.

        The walk goes level by level, because a recursive one would fail on the very depth that it
        must detect.
        """
        level = [body]
        for _ in range(MAX_DEPTH):
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
                        raise ValueError("NaN and Infinity are not JSON numbers")
            level = inner
        if any(isinstance(value, dict | list) for value in level):
            raise ValueError(f"it nests deeper than {MAX_DEPTH} levels")
        return body


def _whole(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text)


class NewAccount(Input):
    name: Name
    roles: Roles
    team: Name | None = None


class NewToken(Input):
    """A token to create; only a gateway's has an environment."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "if": {"required": ["environment"], "properties": {"environment": {"type": "string"}}},
            "then": {"properties": {"roles": {"items": {"const": "gateway"}}}},
        },
    )

    account: Name
    roles: Roles
    team: Name | None = None
    days: Days = 30
    environment: Environment | None = None


class NewKey(Input):
    public_key: PublicKey
    label: Short = ""
    proof: Signature


class NewFile(Input):
    path: Annotated[str, Field(max_length=1000)]
    sha256: Hex
    size: Size


class LeftOutFile(Input):
    """A file that was beside the bundle and is not sent; `asked` accepts to go without it."""

    path: Annotated[str, Field(max_length=1000)]
    size: Size = 0
    why: Short = ""
    asked: bool = False


class NewVersion(Input):
    name: NewLine
    files: Annotated[list[NewFile], Field(max_length=2000)]
    meta: Meta = {}
    base: Ref | None = None
    domain: Short | None = None
    training_run: UUID | None = None
    attempt: Int | None = None
    step: Int | None = None
    quantised_of: Ref | None = None
    left_out: Annotated[list[LeftOutFile], Field(max_length=2000)] = []


class DatasetFile(Input):
    sha256: Hex
    size: Size


class NewDataset(Input):
    name: Line
    file: DatasetFile
    meta: dict[str, Any] = {}


class NewProfile(Input):
    ref: Ref
    profile: ProfileParts
    served_base: Ref | None = None


class NewUseCase(Input):
    name: Line
    purpose: Words
    owner: Title
    risk_tier: RiskTier
    suite: Ref
    details: dict[str, Any] = {}


class ChangedUseCase(Input):
    reason: Reasoned
    purpose: Words | None = None
    owner: Title | None = None
    risk_tier: RiskTier | None = None
    suite: Ref | None = None
    details: dict[str, Any] | None = None


class NewSuite(Input):
    name: Line
    dataset: Ref
    split: Short
    metric: Metric = "exact_match"
    decoding: Decoding | None = None


class NewTrainingRun(Input):
    adapter: NewLine
    base: Ref
    dataset: Ref
    recipe: RecipeKeys
    domain: Short | None = None
    meta: dict[str, Any] | None = None


class NewEvalRun(Input):
    subject: Ref
    suite: Ref


class Worker(Input):
    worker: Short
    identity: Short | None = None


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
    key: KeyId
    signature: Signature


class NewPolicy(Input):
    text: PolicyText


class NewReview(Input):
    ref: Ref
    environment: Environment
    use_case: Line
    note: Words


class NewVote(Input):
    decision: Decision
    reason: Reasoned
    salt: Salt
    key: KeyId
    signature: Signature


class Reason(Input):
    reason: Words


class NewCanary(Input):
    ref: Ref
    environment: Environment
    share_bp: Share
    channel: Channel | None = None
    reason: Text = ""


class NewPromotion(Input):
    name: Ref
    environment: Environment
    channel: Channel | None = None
    reason: Text = ""


class NewRollback(Input):
    name: Line
    environment: Environment
    channel: Channel | None = None
    reason: Words


class NewRecall(Input):
    ref: Subject
    reason: Reasoned


class NewDeprecation(Input):
    ref: Subject
    reason: Words


class NewTag(Input):
    """The value of a version's tag."""

    value: TagValue


class NewClass(Input):
    name: Name
    keep_days: KeepDays
    counted_from: Literal["registration", "service"] = "service"
    after: Literal["may-go", "due"] = "may-go"
    draft_days: DraftDays = 30
    reason: Words


class NewSetting(Input):
    name: Keeper
    retention: Name
    reason: Words


class NewHold(Input):
    over: Kept
    case: Case
    reason: Words


class NewDeletion(Input):
    ref: Subject
    reason: Words


class NewCollection(Input):
    grace_hours: Annotated[int, Field(strict=True, ge=0, le=8760)] = 24


class NewQuota(Input):
    """A team's quota; null means no limit."""

    team: Name
    max_bytes: Size | None = None
    max_versions: Int | None = None
    reason: Words
