"""Answers into views, refusals into errors."""

from __future__ import annotations

from collections.abc import Hashable
from functools import cache
from typing import Any, TypeVar, cast

import httpx
from pydantic import TypeAdapter, ValidationError

from registry.errors import (
    FAMILIES,
    BundleRejected,
    Defect,
    Fault,
    Forbidden,
    NotFound,
    RegistryError,
    Unauthenticated,
    Unavailable,
)

T = TypeVar("T")


# What a bare status means where no problem document can come with it: an answer to HEAD has no
# body.
STATUSES: dict[int, type[RegistryError]] = {
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}


def error_of(response: httpx.Response) -> RegistryError:
    """The error a problem document tells of, or what the bare status says; anything else is no
    registry's answer.
    """
    retry_after = response.headers.get("Retry-After", "")
    facts: dict[str, Any] = {"retry_after": int(retry_after)} if retry_after.isdecimal() else {}
    problem = _problem(response)
    if problem is None:
        status = (
            f"{response.request.method} {response.request.url} answered "
            f"{response.status_code} without saying why."
        )
        if response.request.method == "HEAD" or response.status_code in (502, 503, 504):
            family = STATUSES.get(response.status_code, Fault)
            return family(
                family.family, status, "Check the URL and the token, then try again.", **facts
            )
        return Fault(
            "not-a-registry", status, "Check that the URL is that of a Countersign registry."
        )
    facts |= {**problem.get("facts", {}), "request_id": problem.get("request_id")}
    if problem["family"] == BundleRejected.family:
        rejected = BundleRejected(
            _adapter(list[Defect]).validate_python(problem.get("defects", []))
        )
        rejected.facts = facts
        return rejected
    error = FAMILIES.get(problem["family"], Fault)(
        problem["kind"], problem["detail"], problem.get("fix", "")
    )
    error.facts = facts
    return error


def _problem(response: httpx.Response) -> dict[str, Any] | None:
    """The RFC 9457 document of a refusal, if this answer carries one of ours."""
    if not response.headers.get("Content-Type", "").startswith("application/problem+json"):
        return None
    try:
        problem = response.json()
    except ValueError:
        return None
    ours = isinstance(problem, dict) and {"family", "kind", "detail"} <= problem.keys()
    return problem if ours else None


def read(response: httpx.Response, into: type[T]) -> T:
    """The body as its view; unknown keys are ignored, so that an older client reads a newer
    registry.
    """
    response.read()
    try:
        value: T = _adapter(cast(Hashable, into)).validate_json(response.content)
    except ValidationError as error:
        first = error.errors()[0]["msg"]
        raise Fault(
            "unexpected-answer",
            f"{response.request.url} answered something else than expected: {first}.",
            "Check that client and registry are of the same version.",
        ) from error
    return value


@cache
def _adapter(into: Any) -> TypeAdapter[Any]:
    return TypeAdapter(into)
