"""Turn responses into views, and refusals into errors."""

from __future__ import annotations

from collections.abc import Hashable
from functools import cache
from typing import Any, TypeVar, cast

import httpx
from pydantic import TypeAdapter, ValidationError

from registry.errors import FAMILIES, BundleRejected, Defect, Fault, RegistryError, problem

T = TypeVar("T")

UNEXPLAINED = {
    401: "unauthenticated",
    403: "forbidden",
    404: "not-found",
    502: "unavailable",
    503: "unavailable",
    504: "unavailable",
}
"""Status -> kind for responses without a problem document; a response to HEAD has no body."""


def error_of(response: httpx.Response) -> RegistryError:
    """Return the error that a response describes, by its problem document or else by its status.

    A response with neither does not come from a registry: Fault (`not-a-registry`).
    """
    retry_after = response.headers.get("Retry-After", "")
    facts: dict[str, Any] = {"retry_after": int(retry_after)} if retry_after.isdecimal() else {}
    document = _document(response)
    if document is None:
        status = (
            f"{response.request.method} {response.request.url} answered "
            f"{response.status_code} without saying why."
        )
        kind = UNEXPLAINED.get(response.status_code)
        if kind and (response.request.method == "HEAD" or kind == "unavailable"):
            return problem(kind, status, **facts)
        return Fault("not-a-registry", status)
    facts |= {**document.get("facts", {}), "request_id": document.get("request_id")}
    if document["family"] == BundleRejected.family:
        defects = _adapter(list[Defect]).validate_python(document.get("defects", []))
        return BundleRejected(defects, **facts)
    return FAMILIES.get(document["family"], Fault).received(
        document["kind"],
        document.get("title", ""),
        document["detail"],
        document.get("fix", ""),
        facts,
    )


def _document(response: httpx.Response) -> dict[str, Any] | None:
    """The RFC 9457 document of a refusal, if the response contains one of ours."""
    if not response.headers.get("Content-Type", "").startswith("application/problem+json"):
        return None
    try:
        document = response.json()
    except ValueError:
        return None
    ours = isinstance(document, dict) and {"family", "kind", "detail"} <= document.keys()
    return document if ours else None


def read(response: httpx.Response, into: type[T]) -> T:
    """Parse the body as a view.

    Unknown members are ignored, so that an older client can read a newer registry. Raises Fault for
    a body that is not of this form.
    """
    response.read()
    try:
        value: T = _adapter(cast(Hashable, into)).validate_json(response.content)
    except ValidationError as error:
        first = error.errors()[0]["msg"]
        raise Fault(
            "unexpected-answer",
            f"{response.request.url} did not answer in the expected form: {first}.",
        ) from error
    return value


@cache
def _adapter(into: Any) -> TypeAdapter[Any]:
    return TypeAdapter(into)
