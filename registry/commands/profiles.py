"""Define what a version may be served as."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from registry.blobs.store import Blobs
from registry.db import profiles as table
from registry.db import senders, versions
from registry.db.profiles import ServingProfile
from registry.db.store import Store
from registry.documents import canonical
from registry.errors import Refused
from registry.rules import profiles
from registry.rules.actions import Action
from registry.rules.actors import Actor
from registry.rules.engines import judge
from registry.rules.versions import usable
from registry.views.profiles import DefinedView


@dataclass(frozen=True, slots=True)
class ProfileRequest:
    """A way to serve the version `ref`; `served_base` replaces its base by a quantisation of it."""

    ref: str
    parts: dict[str, Any]
    served_base: str | None = None


def define(store: Store, blobs: Blobs, actor: Actor, request: ProfileRequest) -> DefinedView:
    """Freeze one way to serve a version; the same document again answers the profile that is there.

    Raises Invalid with every fault of the document or for a prompt that is no text, Refused with
    every rule of an engine that says no, Unverified when the system prompt's bytes are not here.
    """
    asked = profiles.parse(request.parts)
    prompt: str | None = asked.parts["system_prompt"] and asked.parts["system_prompt"].removeprefix(
        "sha256:"
    )
    if prompt:
        senders.must_have(store, blobs, actor, [("The system prompt", prompt, None)])
        profiles.check_prompt(prompt, blobs.read(prompt, 0, profiles.MAX_PROMPT + 1))
    with store.write(actor, Action.PROFILE_DEFINE) as tx:
        # Locked whole: two equal definitions at once come one after the other, and the second finds
        # the first.
        version, line, node = versions.by_ref(tx.session, request.ref, lock=True)
        tx.within(line.team)
        if version.state != "registered":
            raise Refused(
                "not-servable",
                f"{node.ref} is {version.state}; only a registered version has profiles.",
                "Complete a draft, or take another version.",
                subject=node.ref,
            )
        base = None
        if version.base_version_id is not None:
            base = versions.by_id(tx.session, version.base_version_id, share=True)[0]
        if request.served_base is not None:
            other = versions.by_ref(tx.session, request.served_base, share=True)[0]
            if base is None or not (
                other.id == base.id or table.verified_quantisation(tx.session, other.id, base.id)
            ):
                raise Refused(
                    "unfit-base",
                    f"{request.served_base} is neither the base of {node.ref} nor a verified "
                    "quantisation of it.",
                    "Serve it on its own base.",
                    subject=node.ref,
                )
            base = other
        if base is not None and not usable(base.state):
            raise Refused(
                "unfit-base",
                f"The base is {base.state}.",
                "Take another version.",
                subject=node.ref,
            )
        kept = asked.parts["quantisation"] or (
            base.facts.get("quantisation") if base is not None else None
        )
        verdict = judge(
            asked.parts["engine"],
            kind=line.kind,
            state=version.state,
            facts=version.facts,
            build=asked.parts["build"],
            dtype=asked.parts["dtype"],
            quantisation=kept,
        )
        if verdict.verdict == "no":
            told = "; ".join(f"{reason.detail} ({reason.rule})" for reason in verdict.reasons)
            fixes = " ".join(dict.fromkeys(reason.fix for reason in verdict.reasons))
            raise Refused(
                "engine-unfit",
                f"{verdict.engine} cannot serve {node.ref}: {told}.",
                fixes,
                subject=node.ref,
            )
        document = asked.document(version.manifest_digest, base.manifest_digest if base else None)
        digest = canonical.digest(document)
        profile = table.same(tx.session, version.id, digest)
        status = "found" if profile else "defined"
        if profile is None:
            if prompt:
                versions.hold_blob(tx.session, blobs, prompt, blobs.size(prompt))
            profile = tx.add(
                ServingProfile(
                    id=uuid4(),
                    version_id=version.id,
                    base_version_id=base.id if base else None,
                    system_prompt_id=prompt,
                    engine=verdict.engine,
                    digest=digest,
                    document=document,
                    created_by=actor.account,
                    created_at=tx.now,
                )
            )
        tx.audit(node.ref, profile=digest, engine=verdict.engine, status=status)
        return DefinedView(profile.id, digest, node.ref, status)
