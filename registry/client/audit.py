"""The audit log and lineage: what an auditor asks."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from registry.client.transport import SLOW, Transport, ref_path
from registry.views.audit import EventPage, EventView, LogCheckView, TreeHeadView
from registry.views.lineage import LineageView


class Audit(Transport):
    """Who did what, when, why, and how one knows."""

    def lineage(self, ref: str) -> LineageView:
        """Where a thing comes from and what derives from it."""
        return self._get(f"/lineage/{ref_path(ref)}", LineageView)

    def events(
        self, action: str | None = None, subject: str | None = None, limit: int = 50
    ) -> list[EventView]:
        """The newest entries of the log, at most `limit`."""
        return list(
            islice(self._items("/audit/events", EventPage, action=action, subject=subject), limit)
        )

    def tree_head(self) -> TreeHeadView:
        """The newest signed tree head."""
        return self._get("/audit/tree-head", TreeHeadView)

    def check_log(self) -> LogCheckView:
        """Have the registry recompute its whole log. An auditor who trusts nobody exports it and
        checks offline.
        """
        return self._get("/audit/check", LogCheckView, timeout=SLOW)

    def export(self, dest: str | Path) -> Path:
        """Fetch the evidence pack (zip) to `dest`; it is there whole or not at all."""
        dest = Path(dest)
        part = dest.with_name(f".{dest.name}.part")

        def attempt() -> None:
            with part.open("wb") as out, self._open("GET", "/audit/export", timeout=SLOW) as answer:
                for chunk in answer.iter_bytes():
                    out.write(chunk)

        try:
            self._patiently(attempt)
            return part.replace(dest)
        finally:
            part.unlink(missing_ok=True)
