"""Serving profiles: define and compare them, and ask which engines can serve a version."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from registry.client.blobs import Blobs
from registry.client.transport import ref_path
from registry.views.profiles import (
    ComparisonView,
    DefinedView,
    ProfileView,
    PromptView,
    VerdictView,
)


class Profiles(Blobs):
    """Serving profiles and the engines' verdicts."""

    def define_profile(
        self, ref: str, profile: Mapping[str, Any], served_base: str | None = None
    ) -> DefinedView:
        """Freeze one way to serve a version.

        Send the system prompt's bytes first, with `put_file`.
        """
        body = {"ref": ref, "profile": dict(profile), "served_base": served_base}
        return self._post("/profiles", DefinedView, body)

    def profiles(self, ref: str) -> list[ProfileView]:
        """Return the serving profiles of a version, oldest first."""
        return self._get("/profiles", list[ProfileView], version=ref)

    def profile(self, name: str) -> ProfileView:
        """Return one serving profile by id or digest."""
        return self._get(f"/profiles/{quote(name, safe='')}", ProfileView)

    def system_prompt(self, name: str) -> PromptView:
        """Return the text that a profile puts before every conversation."""
        return self._get(f"/profiles/{quote(name, safe='')}/system-prompt", PromptView)

    def compare_profiles(self, before: str, after: str) -> ComparisonView:
        """Compare two profiles part by part."""
        path = f"/profiles/{quote(before, safe='')}/compared-with/{quote(after, safe='')}"
        return self._get(path, ComparisonView)

    def engines(self, ref: str) -> list[VerdictView]:
        """Return which engines can serve a version, and why others cannot."""
        return self._get(f"/engines/{ref_path(ref)}", list[VerdictView])
