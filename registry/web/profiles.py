"""A serving profile: its parts, its system prompt, its engine's verdict, and a comparison with
another profile.
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
    """One serving profile; `against` names another to compare it with."""
    shown = profiles.profile(here.store, here.actor, name)
    blobs = here.request.app.state.blobs
    prompt: str | None = None
    trouble: RegistryError | None = None
    if shown.document["system_prompt"] is not None:
        try:
            prompt = profiles.system_prompt(here.store, blobs, here.actor, name).text
        except (NotFound, Invalid) as error:
            # The prompt is deleted, or older than the checks of prompts. The page shows the rest.
            trouble = error
    of_version = profiles.profiles(here.store, here.actor, shown.version)
    compared = profiles.compare(here.store, blobs, here.actor, against, name) if against else None
    version = versions.version(here.store, here.actor, shown.version, gone=True)
    return render(
        here,
        "profile.html",
        profile=shown,
        prompt=prompt,
        trouble=trouble,
        others=[each for each in of_version if each.id != shown.id],
        compared=compared,
        against=against,
        verdict=profiles.verdict(here.store, here.actor, shown),
        version_page=version_path(version.kind, shown.version),
        stone=retention.tombstone(here.store, here.actor, version.id),
    )
