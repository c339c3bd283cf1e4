"""Retention classes, legal holds, deletions, collections of bytes, and quotas."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from urllib.parse import quote

from registry.client.transport import SLOW, Transport
from registry.rules.retention import Terms
from registry.views.retention import (
    ClassView,
    CollectionView,
    DuePage,
    DueView,
    HoldPage,
    HoldView,
    KeepingView,
    QuotaView,
    SettingView,
    TombstoneView,
)


class Retention(Transport):
    """What is kept, why, and until when.

    Write `dataset:` before the reference of a data set where an adapter could have the same name.
    """

    def retention_classes(self) -> list[ClassView]:
        """Return every retention class, the shortest first."""
        return self._get("/retention/classes", list[ClassView])

    def define_retention(self, terms: Terms, reason: str) -> ClassView:
        """Define a retention class. Its terms never change."""
        body = {
            "name": terms.name,
            "keep_days": terms.keep_days,
            "counted_from": terms.counted_from,
            "after": terms.after,
            "draft_days": terms.draft_days,
            "reason": reason,
        }
        return self._post("/retention/classes", ClassView, body)

    def retain(self, name: str, retention: str, reason: str) -> SettingView:
        """Assign a retention class to a line, a data set or a team."""
        return self._post(
            "/retention/settings",
            SettingView,
            {"name": name, "retention": retention, "reason": reason},
        )

    def due(self, limit: int | None = None) -> Iterator[DueView]:
        """Yield what is due for deletion, oldest first. Pages are fetched as they are read."""
        return islice(self._items("/retention/due", DuePage), limit)

    def keeping(self, ref: str) -> KeepingView:
        """Return what keeps a version or data set version, or its tombstone."""
        return self._get(f"/keeping/{quote(ref, safe='/@:')}", KeepingView)

    def holds(
        self, over: str | None = None, *, standing: bool = True, limit: int | None = None
    ) -> Iterator[HoldView]:
        """Yield the legal holds, newest first. Pages are fetched as they are read.

        `over` selects those that keep one version; `standing=False` includes lifted ones.
        """
        return islice(self._items("/holds", HoldPage, over=over, standing=standing), limit)

    def hold(self, over: str, case: str, reason: str) -> HoldView:
        """Place a legal hold over a version, a line, a data set or one of its versions."""
        return self._post("/holds", HoldView, {"over": over, "case": case, "reason": reason})

    def lift(self, number: int, reason: str) -> HoldView:
        """Lift a legal hold that another person placed."""
        return self._post(f"/holds/{number}/lift", HoldView, {"reason": reason})

    def delete(self, ref: str, reason: str) -> TombstoneView:
        """Delete a version or data set version.

        Refused while a legal hold, a retention class or another version keeps it.
        """
        return self._post("/deletions", TombstoneView, {"ref": ref, "reason": reason})

    def discard(self, ref: str, reason: str) -> TombstoneView:
        """Discard a draft."""
        return self._post("/discards", TombstoneView, {"ref": ref, "reason": reason})

    def planned_collection(self, grace_hours: int = 24) -> CollectionView:
        """Return what a collection of bytes would remove now."""
        return self._get("/collections", CollectionView, grace_hours=grace_hours, timeout=SLOW)

    def collect(self, grace_hours: int = 24) -> CollectionView:
        """Remove the bytes that no row needs."""
        return self._post(
            "/collections", CollectionView, {"grace_hours": grace_hours}, timeout=SLOW
        )

    def quotas(self) -> list[QuotaView]:
        """Return the quota and the use of every team that you may see."""
        return self._get("/quotas", list[QuotaView])

    def quota(self, team: str) -> QuotaView:
        """Return the quota and the use of one team."""
        return self._get(f"/quotas/{quote(team, safe='')}", QuotaView)

    def set_quota(
        self, team: str, max_bytes: int | None, max_versions: int | None, reason: str
    ) -> QuotaView:
        """Set a team's quota. None means unlimited."""
        body = {
            "team": team,
            "max_bytes": max_bytes,
            "max_versions": max_versions,
            "reason": reason,
        }
        return self._post("/quotas", QuotaView, body)
