"""Tags: marks on versions by which people find them."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from registry.client.answers import read
from registry.client.transport import Transport, ref_path
from registry.rules.tags import check_key
from registry.views.search import TagsView


class Tags(Transport):
    """The tags of versions. A tag helps to find a version and decides nothing."""

    def tag(self, ref: str, key: str, value: str) -> TagsView:
        """Set the value of one tag of a version."""
        return self._tags("PUT", ref, key, json={"value": value})

    def untag(self, ref: str, key: str) -> TagsView:
        """Remove a tag from a version."""
        return self._tags("DELETE", ref, key)

    def _tags(self, method: str, ref: str, key: str, **body: Any) -> TagsView:
        path = f"/versions/{ref_path(ref)}/tags/{quote(check_key(key), safe='/')}"

        def attempt() -> TagsView:
            with self._open(method, path, **body) as response:
                return read(response, TagsView)

        return self._patiently(attempt, only_unsent=True)
