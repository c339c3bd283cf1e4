"""The find box: from a number, a name, a digest or a run's id to its page."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import urlencode

from fastapi import APIRouter
from fastapi.responses import Response

from registry.errors import Invalid, NotFound
from registry.queries import datasets as dataset_queries
from registry.queries import digests, evals, use_cases
from registry.rules.refs import parse_ref
from registry.web.pages import Page, sent
from registry.web.shelves import path_of, ref_path
from registry.web.visits import Here, Visit

router = APIRouter(route_class=Page, include_in_schema=False)
SHORTENED = re.compile(r"(?:sha256:)?([0-9a-f]{6})(?:…|\.\.\.?)([0-9a-f]{4})")
"""A digest as the console prints it."""
BARE = re.compile(r"(?:sha256:)?([0-9a-f]{8,64})")
RUN = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@router.get("/find")
def find(here: Here, q: str = "") -> Response:
    """Go to what the text names; search for any other text."""
    text = q.strip()
    if text.isdecimal() and len(text) < 8:
        return sent(f"/reviews/{text}")
    for look in (_digest, _run, _version, _data_set, _suite, _use_case):
        if path := look(here, text):
            return sent(path)
    return sent(f"/search?{urlencode({'q': text})}")


def _digest(here: Visit, text: str) -> str:
    """The one thing with that digest, whole, by its first digits, or as the console prints it."""
    if short := SHORTENED.fullmatch(text):
        start, end = short.groups()
    elif bare := BARE.fullmatch(text):
        start, end = bare[1], ""
    else:
        return ""
    matches = digests.by_digest(here.store, here.actor, start, end)
    if len(matches) > 1:
        raise Invalid(
            "ambiguous-reference",
            f"Several things have a digest like {text[:80]}: "
            f"{', '.join(match.ref for match in matches)}.",
            "Name one of them, or give more digits.",
        )
    return _path(here, matches[0]) if matches else ""


def _run(here: Visit, text: str) -> str:
    """A training run or eval run by its id, or by the first eight digits that a list shows."""
    start = text.lower()
    if not RUN.fullmatch(start) and not re.fullmatch(r"[0-9a-f]{8}", start):
        return ""
    matches = digests.by_run(here.store, here.actor, start)
    return _path(here, matches[0]) if len(matches) == 1 else ""


def _path(here: Visit, thing: digests.Match) -> str:
    match thing.kind:
        case "review":
            return f"/reviews/{thing.ref}"
        case "training" | "eval":
            return f"/runs/{thing.kind}/{thing.ref}"
        case "dataset":
            return ref_path("datasets", thing.ref)
        case "suite":
            return ref_path("suites", thing.ref)
        case "policy":
            return f"/policies#{thing.ref}"
        case "key":
            return f"/audit?{urlencode({'subject': f'key:{thing.ref}'})}"
        case _:
            return path_of(here, thing.ref)


def _attempt(look: Callable[[], str]) -> str:
    try:
        return look()
    except NotFound:
        return ""
    except Invalid as error:
        if error.kind != "bad-reference":  # an ambiguous digest is reported, not searched for
            raise
        return ""


def _version(here: Visit, text: str) -> str:
    return _attempt(lambda: path_of(here, text) if "@" in text or parse_ref(text).digest else "")


def _data_set(here: Visit, text: str) -> str:
    name = text.removeprefix("dataset:")
    return _attempt(
        lambda: ref_path("datasets", dataset_queries.dataset(here.store, here.actor, name).ref)
    )


def _suite(here: Visit, text: str) -> str:
    name = text.removeprefix("suite:")
    ref = _attempt(lambda: evals.suite(here.store, here.actor, name).ref)
    # A suite has no channels and no digests, so these name none.
    return ref_path("suites", ref) if ref and name in (ref, ref.partition("@")[0]) else ""


def _use_case(here: Visit, text: str) -> str:
    name = text.removeprefix("use-case:")
    return _attempt(lambda: f"/use-cases/{use_cases.use_case(here.store, here.actor, name).name}")
