"""What serves where: canaries, promotions, rollbacks, recalls, and the routing document."""

from __future__ import annotations

from datetime import datetime

import httpx

from registry.client.answers import read
from registry.client.transport import Transport
from registry.views.rollouts import (
    AsOfView,
    ChannelView,
    GenerationView,
    RecallView,
    RouteView,
    RoutingView,
)


class Rollouts(Transport):
    """Channels and their generations. `channel=None` means the environment's default channel."""

    def start_canary(
        self,
        ref: str,
        environment: str,
        share_bp: int,
        channel: str | None = None,
        reason: str = "",
    ) -> RouteView:
        """Give an approved version a share of the traffic, in basis points (500 is 5 %)."""
        body = {
            "ref": ref,
            "environment": environment,
            "channel": channel,
            "share_bp": share_bp,
            "reason": reason,
        }
        return self._post("/canaries", RouteView, body)

    def promote(
        self, name: str, environment: str, channel: str | None = None, reason: str = ""
    ) -> RouteView:
        """Make the canary the stable version."""
        return self._move("/promotions", name, environment, channel, reason)

    def roll_back(
        self, name: str, environment: str, reason: str, channel: str | None = None
    ) -> RouteView:
        """Undo the latest step: end the canary, or return to the stored rollback target."""
        return self._move("/rollbacks", name, environment, channel, reason)

    def recall(self, ref: str, reason: str) -> RecallView:
        """Order a thing and all that derives from it out of service everywhere, for good."""
        return self._post("/recalls", RecallView, {"ref": ref, "reason": reason})

    def channels(self, environment: str | None = None) -> list[ChannelView]:
        """Return what every channel serves now."""
        return self._get("/channels", list[ChannelView], environment=environment)

    def history(
        self, name: str, environment: str, channel: str | None = None
    ) -> list[GenerationView]:
        """Return every generation of one channel."""
        return self._get(
            "/history", list[GenerationView], name=name, environment=environment, channel=channel
        )

    def as_of(self, at: datetime | str, environment: str) -> list[AsOfView]:
        """Return what every channel of an environment served at a moment (ISO 8601)."""
        moment = at.isoformat() if isinstance(at, datetime) else at
        return self._get("/as-of", list[AsOfView], at=moment, environment=environment)

    def routing(self, environment: str, etag: str | None = None) -> RoutingView | None:
        """Return all routes of an environment, or None when they are still those of `etag`."""

        def attempt() -> RoutingView | None:
            headers = {"If-None-Match": f'"{etag}"'} if etag else {}
            with self._open(
                "GET", "/routing", params={"environment": environment}, headers=headers
            ) as answer:
                if answer.status_code == httpx.codes.NOT_MODIFIED:
                    return None
                return read(answer, RoutingView)

        return self._patiently(attempt)

    def _move(
        self, path: str, name: str, environment: str, channel: str | None, reason: str
    ) -> RouteView:
        body = {"name": name, "environment": environment, "channel": channel, "reason": reason}
        return self._post(path, RouteView, body)
