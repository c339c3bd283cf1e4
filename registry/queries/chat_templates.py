"""A version's chat template compared with its base's: by line, and on the same conversations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

from sqlalchemy.orm import Session

from registry.artifacts.bundles.texts import documents_of
from registry.artifacts.tokenizers import chat_templates as rules
from registry.artifacts.tokenizers import sandbox
from registry.artifacts.tokenizers.chat_templates import Templates
from registry.artifacts.weights.tensors import File
from registry.blobs.store import Blobs
from registry.db import policies, versions
from registry.db.store import Store
from registry.documents import canonical
from registry.rules.actors import Actor
from registry.views.chat_templates import ChatTemplateView, GoldenView, TemplateDiffView

Comparison = tuple[list[TemplateDiffView], list[GoldenView]]


def chat_template(store: Store, blobs: Blobs, actor: Actor, ref: str) -> ChatTemplateView:
    """A version's chat template; without one of its own, its base's counts.

    Raises NotFound without such a version, Unverified if its bytes are missing, Unavailable if
    nothing can be rendered.
    """
    with store.read(actor) as session:
        version, _, node = versions.by_ref(session, ref)
        files = _documents(session, blobs, version.id)
        base_files, base_ref = {}, None
        if version.base_version_id is not None:
            base_files = _documents(session, blobs, version.base_version_id)
            base_ref = versions.by_id(session, version.base_version_id)[2].ref
        allowed = list(policies.allowing_chat_templates(session))
        facts = version.facts.get("chat_template") or {}
    own, base = rules.templates_of(files), rules.templates_of(base_files)
    diffs, conversations = _compare(own, base, rules.tokens_of(base_files or files))
    return ChatTemplateView(
        ref=node.ref,
        base=base_ref,
        own=rules.own_of(version.facts) is not None,
        source=own.source if own else None,
        digest=own.digest if own else None,
        base_source=base.source if base else None,
        base_digest=base.digest if base else None,
        allowed_in=allowed,
        concerns=list(facts.get("concerns", ())),
        templates=diffs,
        conversations=conversations,
    )


def _documents(session: Session, blobs: Blobs, version_id: Any) -> dict[str, Any]:
    return documents_of((File(*row) for row in versions.files(session, version_id)), blobs.read)


def _compare(own: Templates | None, base: Templates | None, tokens: dict[str, str]) -> Comparison:
    """Compare two templates; equal ones are rendered once, for both sides.

    The same templates and tokens always give the same comparison, so it is cached.
    """
    first = own or base
    if first is None:
        return [], []
    is_single = own is None or base is None or own.texts == base.texts
    comparison = _cached(_Templates(first, None if is_single else base, tokens))
    diffs, goldens = comparison
    if any(side and side.failed for golden in goldens for side in (golden.own, golden.base)):
        _cached.cache_clear()  # the machine may be the cause
    if not is_single or base is None:
        return comparison
    in_version = own is not None
    return (
        [replace(diff, in_version=in_version, in_base=True, diff=[]) for diff in diffs],
        [
            replace(golden, own=golden.own if in_version else None, base=golden.own)
            for golden in goldens
        ],
    )


class _Templates:
    """The templates of a comparison, as a key of the cache by content."""

    def __init__(self, own: Templates, base: Templates | None, tokens: dict[str, str]) -> None:
        self.compare: Callable[[], Comparison] = lambda: sandbox.compare(own, base, tokens)
        self.key = canonical.encode([own.texts, base.texts if base else None, tokens])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Templates) and other.key == self.key

    def __hash__(self) -> int:
        return hash(self.key)


@lru_cache(maxsize=64)
def _cached(templates: _Templates) -> Comparison:
    return templates.compare()
