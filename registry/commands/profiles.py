"""Define serving profiles: what a version may be served as."""

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
from registry.rules.engines import Setup, Subject, judge
from registry.rules.versions import usable
from registry.views.profiles import DefinedView


@dataclass(frozen=True, slots=True)
class ProfileRequest:
    """A way to serve the version `ref`; `served_base` replaces its base by a quantisation of it."""

    ref: str
    parts: dict[str, Any]
    served_base: str | None = None


def define(store: Store, blobs: Blobs, actor: Actor, request: ProfileRequest) -> DefinedView:
    """Freeze one way to serve a version; the same document again returns the existing profile.

    Raises Invalid with every fault of the document or for a prompt that is not text, Refused with
    every rule by which the engine cannot serve it, Unverified when the bytes of the system prompt
    are not here.
    """
    parsed = profiles.parse(request.parts)
    parts = parsed.parts
    prompt: str | None = parts["system_prompt"] and parts["system_prompt"].removeprefix("sha256:")
    if prompt:
        senders.must_have(store, blobs, actor, [("The system prompt", prompt, None)])
        profiles.check_prompt(prompt, blobs.read(prompt, 0, profiles.MAX_PROMPT + 1))
    with store.write(actor, Action.PROFILE_DEFINE) as tx:
        # The lock makes two equal definitions run one after the other: the second finds the
        # profile of the first.
        version, line, node = versions.by_ref(tx.session, request.ref, lock=True)
        tx.within(line.team)
        if version.state != "registered":
            raise Refused(
                "not-servable",
                f"{node.ref} is {version.state}; a serving profile needs a registered version.",
                "Complete the draft, or define the profile for a registered version.",
                subject=node.ref,
            )
        base = None
        if version.base_version_id is not None:
            base = versions.by_id(tx.session, version.base_version_id, share=True)[0]
        if request.served_base is not None:
            served = versions.by_ref(tx.session, request.served_base, share=True)[0]
            if base is None or not (
                served.id == base.id or table.verified_quantisation(tx.session, served.id, base.id)
            ):
                raise Refused(
                    "unfit-base",
                    f"{request.served_base} is neither the base of {node.ref} nor a verified "
                    "quantisation of it.",
                    "Leave out the served base, or name a verified quantisation of its own base.",
                    subject=node.ref,
                )
            base = served
        if base is not None and not usable(base.state):
            raise Refused(
                "unfit-base",
                f"The base of {node.ref} is {base.state}.",
                "Define the profile for a version whose base is registered.",
                subject=node.ref,
            )
        quantisation = parts["quantisation"] or (
            base.facts.get("quantisation") if base is not None else None
        )
        verdict = judge(
            parts["engine"],
            Subject(line.kind, version.state, version.facts),
            Setup(build=parts["build"], dtype=parts["dtype"], quantisation=quantisation),
        )
        if verdict.verdict == "no":
            reasons = "; ".join(f"{reason.detail} ({reason.rule})" for reason in verdict.reasons)
            fixes = " ".join(dict.fromkeys(reason.fix for reason in verdict.reasons))
            raise Refused(
                "engine-unfit",
                f"{verdict.engine} cannot serve {node.ref}: {reasons}.",
                fixes,
                subject=node.ref,
            )
        document = parsed.document(version.manifest_digest, base.manifest_digest if base else None)
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
