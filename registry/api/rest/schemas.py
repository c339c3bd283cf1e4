"""Inputs of the REST door; answers are views."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(max_length=200)]
Text = Annotated[str, Field(max_length=20_000)]
Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Input(BaseModel):
    """Unknown fields are refused by name: a typing error must not pass in silence."""

    model_config = ConfigDict(extra="forbid")


class NewAccount(Input):
    name: Name
    roles: list[Name]
    team: Name | None = None


class NewToken(Input):
    account: Name
    roles: list[Name]
    team: Name | None = None
    days: int = 30


class NewKey(Input):
    public_key: Name
    label: Name = ""
    proof: Name


class NewFile(Input):
    path: Annotated[str, Field(max_length=1000)]
    sha256: Hex
    size: Annotated[int, Field(ge=0)]


class NewVersion(Input):
    name: Name
    files: Annotated[list[NewFile], Field(max_length=2000)]
    meta: dict[str, Any] = {}
    base: Name | None = None
    domain: Name | None = None
    training_run: UUID | None = None
    attempt: int | None = None
    step: int | None = None


class DatasetFile(Input):
    sha256: Hex
    size: Annotated[int, Field(ge=0)]


class NewDataset(Input):
    name: Name
    file: DatasetFile
    meta: dict[str, Any] = {}


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
    attempt: int
    progress: dict[str, Any] = {}


class GivenBack(Input):
    attempt: int
    reason: Text


class Failed(Input):
    attempt: int
    error: Text


class Finished(Input):
    attempt: int
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
    share_bp: int
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
