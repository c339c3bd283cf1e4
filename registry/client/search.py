"""Search and tags: find versions, mark them so that others find them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any
from urllib.parse import quote

from registry.client.answers import read
from registry.client.transport import Transport, ref_path
from registry.rules.tags import check_key
from registry.views.search import TagsView, VersionHit, VersionPage


class Search(Transport):
    """Versions by what is known of them."""

    def search(
        self, *, limit: int | None = None, **filters: str | bool | Sequence[str] | None
    ) -> Iterator[VersionHit]:
        """Versions that meet every filter (q, name, kind, team, tag, base, ...), page after page as
        they are read.
        """
        return islice(self._items("/versions", VersionPage, **filters), limit)

    def search_page(self, **filters: Any) -> VersionPage:
        """One page with its cursor and, if asked for, its facets."""
        return self._get("/versions", VersionPage, **filters)

    def tag(self, ref: str, key: str, value: str) -> TagsView:
        """Give a version's key a value."""
        return self._tags("PUT", ref, key, json={"value": value})

    def untag(self, ref: str, key: str) -> TagsView:
        """Take a tag off a version."""
        return self._tags("DELETE", ref, key)

    def _tags(self, method: str, ref: str, key: str, **body: Any) -> TagsView:
        path = f"/versions/{ref_path(ref)}/tags/{quote(check_key(key), safe='/')}"

        def attempt() -> TagsView:
            with self._open(method, path, **body) as response:
                return read(response, TagsView)

        return self._patiently(attempt, only_unsent=True)
