"""One serving profile whole: its parts, its system prompt, its engine's verdict, and what another
one has otherwise.
"""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response

from registry.errors import Invalid, NotFound, RegistryError
from registry.queries import profiles, retention, versions
from registry.web.pages import Page, render
from registry.web.shelves import version_path
from registry.web.visits import Here

router = APIRouter(route_class=Page, include_in_schema=False)


@router.get("/profiles/{name}")
def profile(here: Here, name: str, against: str = "") -> Response:
    """What a profile binds; `against` names another one to hold beside it."""
    one = profiles.profile(here.store, here.actor, name)
    blobs = here.request.app.state.blobs
    prompt: str | None = None
    trouble: RegistryError | None = None
    if one.document["system_prompt"] is not None:
        try:
            prompt = profiles.system_prompt(here.store, blobs, here.actor, name).text
        except (
            NotFound,
            Invalid,
        ) as error:  # gone, or from before prompts were looked at: the page shows the rest
            trouble = error
    others = [
        each for each in profiles.profiles(here.store, here.actor, one.version) if each.id != one.id
    ]
    compared = profiles.compare(here.store, blobs, here.actor, against, name) if against else None
    version = versions.version(here.store, here.actor, one.version, gone=True)
    return render(
        here,
        "profile.html",
        one=one,
        prompt=prompt,
        trouble=trouble,
        others=others,
        compared=compared,
        against=against,
        verdict=profiles.verdict(here.store, here.actor, one),
        version_page=version_path(version.kind, one.version),
        stone=retention.tombstone(here.store, here.actor, version.id),
    )
