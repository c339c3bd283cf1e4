"""A version's chat template: against its base's, line by line and on the same conversations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

from sqlalchemy.orm import Session

from registry.artifacts.bundles.names import MAX_TEXT_BYTES
from registry.artifacts.tokenizers import chat_templates as rules
from registry.artifacts.tokenizers import sandbox
from registry.artifacts.tokenizers.chat_templates import Templates
from registry.blobs.store import Blobs
from registry.db import policies, versions
from registry.db.store import Store
from registry.documents import canonical
from registry.documents.strict_json import loads
from registry.errors import RegistryError
from registry.rules.actors import Actor
from registry.views.chat_templates import ChatTemplateView, GoldenView, TemplateDiffView

READ = (rules.FILE, rules.SETTINGS, "special_tokens_map.json")
Compared = tuple[list[TemplateDiffView], list[GoldenView]]


def chat_template(store: Store, blobs: Blobs, actor: Actor, ref: str) -> ChatTemplateView:
    """What a version's chat template says; without one of its own, its base's is what counts.

    Raises NotFound for no such version, Unverified when its bytes are gone, Unavailable when
    nothing can be rendered.
    """
    with store.read(actor) as session:
        version, _, node = versions.by_ref(session, ref)
        own = _documents(session, blobs, version.id)
        base, base_ref = {}, None
        if version.base_version_id is not None:
            found, _, base_node = versions.by_id(session, version.base_version_id)
            base, base_ref = _documents(session, blobs, found.id), base_node.ref
        allowed = list(policies.allowing_chat_templates(session))
        facts = version.facts.get("chat_template") or {}
    mine, theirs = rules.templates_of(own), rules.templates_of(base)
    diffs, conversations = _compared(mine, theirs, rules.tokens_of(base or own))
    return ChatTemplateView(
        ref=node.ref,
        base=base_ref,
        own=rules.own_of(version.facts) is not None,
        source=mine.source if mine else None,
        digest=mine.digest if mine else None,
        base_source=theirs.source if theirs else None,
        base_digest=theirs.digest if theirs else None,
        allowed_in=allowed,
        concerns=list(facts.get("concerns", ())),
        templates=diffs,
        conversations=conversations,
    )


def _documents(session: Session, blobs: Blobs, version_id: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path, sha256, size in versions.files(session, version_id):
        if path in READ and size <= MAX_TEXT_BYTES:
            data = blobs.read(sha256, 0, size)
            try:
                found[path] = loads(data) if path.endswith(".json") else data.decode()
            except (
                RegistryError,
                UnicodeDecodeError,
            ):  # `verify` says what is wrong with damaged bytes
                continue
    return found


def _compared(own: Templates | None, base: Templates | None, tokens: dict[str, str]) -> Compared:
    """The same templates and tokens always say the same, so it is worked out once; what is the same
    on both sides, too.
    """
    stands = own or base
    if stands is None:
        return [], []
    alone = own is None or base is None or own.texts == base.texts
    diffs, goldens = made = _once(_Asked(stands, None if alone else base, tokens))
    if any(side is not None and side.failed for one in goldens for side in (one.own, one.base)):
        _once.cache_clear()  # it may have been the machine's fault
    if not alone or base is None:
        return made
    return [replace(one, in_version=own is not None, in_base=True, diff=[]) for one in diffs], [
        replace(one, own=one.own if own is not None else None, base=one.own) for one in goldens
    ]


class _Asked:
    """What is compared, as a key by content."""

    def __init__(self, own: Templates, base: Templates | None, tokens: dict[str, str]) -> None:
        self.work: Callable[[], Compared] = lambda: sandbox.compare(own, base, tokens)
        self.key = canonical.encode([own.texts, base.texts if base else None, tokens])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Asked) and other.key == self.key

    def __hash__(self) -> int:
        return hash(self.key)


@lru_cache(maxsize=64)
def _once(asked: _Asked) -> Compared:
    return asked.work()
