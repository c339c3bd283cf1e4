"""What may name something in MLflow: a run, a logged model, or a registered model's version."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from registry.errors import Invalid

PREFIXES = ("mlflow:", "models:/", "runs:/")
MODEL_ID = re.compile(r"m-[A-Za-z0-9_-]{1,64}")
RUN = re.compile(r"(?:mlflow:|runs:/)([A-Za-z0-9_-]{1,64})(?:/(.+))?")
MODEL = re.compile(r"(?:mlflow:|models:/)(m-[A-Za-z0-9_-]{1,64})(?:/(.+))?")
VERSION = re.compile(r"models:/([^/:@]{1,256})/([1-9][0-9]{0,8})(?:/(.+))?")
ALIAS = re.compile(r"models:/([^/:@]{1,256})@([A-Za-z0-9._-]{1,255})(?:/(.+))?")


@dataclass(frozen=True, slots=True)
class Stored:
    """Something that has artifacts: a run, or a logged model of MLflow 3; `path` is under them."""

    kind: Literal["run", "model"]
    id: str
    path: str | None = None

    def __str__(self) -> str:
        root = f"mlflow:{self.id}" if self.kind == "run" else f"models:/{self.id}"
        return root if self.path in (None, ".") else f"{root}/{self.path}"


@dataclass(frozen=True, slots=True)
class Registered:
    """A version of a registered model, by its number or by an alias."""

    name: str
    version: str | None
    alias: str | None
    path: str | None = None


def parse(source: str) -> Stored | Registered | None:
    """Read `mlflow:RUN[/path]` or any address that MLflow itself prints; None for other sources.

    `runs:/RUN/path`, `models:/m-ID`, `models:/NAME/VERSION` and `models:/NAME@ALIAS` are MLflow's
    own. Raises Invalid `bad-mlflow-run` for what only begins like one.
    """
    if not source.startswith(PREFIXES):
        return None
    address: Stored | Registered | None = None
    if match := MODEL.fullmatch(source):
        address = Stored("model", match[1], match[2])
    elif match := RUN.fullmatch(source):
        address = Stored("run", match[1], match[2])
    elif match := VERSION.fullmatch(source):
        address = Registered(match[1], match[2], None, match[3])
    elif match := ALIAS.fullmatch(source):
        address = Registered(match[1], None, match[2], match[3])
    path = address.path if address is not None else None
    if address is None or (path and any(part in ("", ".", "..") for part in path.split("/"))):
        raise Invalid(
            "bad-mlflow-run",
            f"'{source[:120]}' names no MLflow run, logged model or version of a registered model.",
        )
    return address
