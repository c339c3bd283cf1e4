"""Search: find versions by their properties."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from registry.client.transport import Transport
from registry.views.search import VersionHit, VersionPage


class Search(Transport):
    """Find versions."""

    def search(
        self, *, limit: int | None = None, **filters: str | bool | Sequence[str] | None
    ) -> Iterator[VersionHit]:
        """Yield the versions that meet every filter, such as q, name, kind, team, tag and base.

        Pages are fetched as the iterator is read.
        """
        return islice(self._items("/versions", VersionPage, **filters), limit)

    def search_page(self, **filters: Any) -> VersionPage:
        """Return one page with its cursor and, with `facets=True`, its facets."""
        return self._get("/versions", VersionPage, **filters)
