"""The routes of a gateway: they only get newer, are kept on disk, and apply once loaded."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from registry.client import Countersign
from registry.errors import Fault, NotFound, RegistryError, Unavailable
from registry.gateway.threads import run_in_thread
from registry.proof.private_files import write_private
from registry.views.rollouts import ArmView, RoutingEntry, RoutingView

log = logging.getLogger("registry.gateway")


@dataclass(slots=True)
class Route:
    """One channel: its newest generation, and the one that traffic follows until that is loaded."""

    newest: RoutingEntry
    current: RoutingEntry | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """The file on disk: the address of its registry, and the newest entry of every channel."""

    registry: str
    view: RoutingView


KEPT = TypeAdapter(Kept)


@dataclass(slots=True)
class Routes:
    """Every channel of one environment.

    `confirmed` is when the registry last confirmed them, in seconds since the epoch.
    """

    registry: str
    environment: str
    file: Path
    etag: str | None = None
    confirmed: float | None = None
    trouble: RegistryError | None = None
    routes: dict[str, Route] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def restore(self) -> None:
        """Load the last good document, if there is one of this registry and environment."""
        try:
            kept = KEPT.validate_json(self.file.read_bytes())
        except FileNotFoundError:
            return
        except ValidationError:
            log.warning("routing.json cannot be read; waiting for the registry instead")
            return
        if (kept.registry, kept.view.environment) != (self.registry, self.environment):
            log.warning("routing.json is of %s %s; not used", kept.registry, kept.view.environment)
            return
        self.etag = kept.view.etag
        self.confirmed = self.file.stat().st_mtime
        self.routes = {name(entry): Route(entry) for entry in kept.view.entries}
        self.changed.set()

    def confirm(self, view: RoutingView | None) -> None:
        """Take in an answer of the registry: nothing new (None), or a document.

        Of a document only those entries count that are newer than the known ones.
        """
        self.trouble = None
        if view is not None:
            self._absorb(view)
        elif self.file.exists():
            os.utime(self.file)
        self.confirmed = time.time()

    def _absorb(self, view: RoutingView) -> None:
        for entry in view.entries:
            route = self.routes.get(name(entry))
            if route is None:
                self.routes[name(entry)] = Route(entry)
            elif entry.generation > route.newest.generation:
                route.newest = entry
                # A version that a rollback or a recall has ended stops serving now; the new arms
                # load meanwhile.
                if entry.killed or (
                    route.current is not None and route.current.generation < entry.urgent
                ):
                    route.current = entry
            elif entry.generation < route.newest.generation:
                log.warning(
                    "%s: generation %d of the registry is older than our %d; not applied",
                    name(entry),
                    entry.generation,
                    route.newest.generation,
                )
        self.etag = view.etag
        merged = replace(view, entries=[route.newest for route in self.routes.values()])
        try:
            write_private(self.file, KEPT.dump_json(Kept(self.registry, merged)))
        except OSError as error:
            # The gateway keeps serving from memory; only a restart without the registry needs it.
            log.error("routing.json cannot be written: %s", error.strerror)
        self.changed.set()

    def settle(self, is_decided: Callable[[ArmView, ArmView, bool], bool]) -> None:
        """Apply the newest generation of each channel whose arms are loaded or have failed.

        In `is_decided(version, base, serving)`, `serving` says whether the channel has an older
        route that it can keep.
        """
        for route in self.routes.values():
            entry, serving = route.newest, route.current is not None
            if route.current is not entry and (
                entry.killed
                or all(is_decided(version, entry.base, serving) for version in versions(entry))
            ):
                route.current = entry
                log.info("%s: generation %d applied", name(entry), entry.generation)

    def find(self, model: str) -> RoutingEntry:
        """The route of `team/name@channel`. Without a channel it is the environment's default.

        Raises NotFound `unknown-model`, Unavailable `starting`.
        """
        route = self.routes.get(model if "@" in model else f"{model}@{self.environment}")
        if route is None:
            raise NotFound(
                "unknown-model", f"There is no channel '{model[:120]}' in {self.environment}."
            )
        if route.current is None:
            raise Unavailable("starting", f"{name(route.newest)} is not loaded yet.", retry_after=1)
        return route.current

    def age(self) -> float | None:
        """Seconds since the registry last confirmed these routes; None when it never did."""
        return None if self.confirmed is None else max(0.0, time.time() - self.confirmed)

    def named(self) -> Iterator[tuple[ArmView, ArmView]]:
        """Every version that a route names, with its base."""
        for route in self.routes.values():
            for entry in (route.newest, route.current):
                if entry is not None:
                    yield from ((version, entry.base) for version in versions(entry))


def name(entry: RoutingEntry) -> str:
    """`team/name@channel`."""
    return f"{entry.model}@{entry.channel}"


def versions(entry: RoutingEntry) -> list[ArmView]:
    """The versions that a route names."""
    return [version for version in (entry.stable, entry.candidate) if version is not None]


async def poll(registry: Countersign, routes: Routes, every: tuple[float, float]) -> None:
    """Ask the registry for its routes for ever.

    The pauses are random between the two bounds in seconds, so that many gateways do not ask at the
    same time.
    """
    while True:
        try:
            routes.confirm(
                await run_in_thread(lambda: registry.routing(routes.environment, routes.etag))
            )
        except Exception as raised:
            if routes.trouble is None:
                log.warning("no routes from the registry; keeping the last ones: %s", raised)
            if not isinstance(raised, RegistryError):
                raised = Fault("poll-failed", f"Polling failed: {type(raised).__name__}.")
            routes.trouble = raised
        await asyncio.sleep(random.uniform(*every))
