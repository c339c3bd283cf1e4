"""What the engine holds, kept equal to what the routes name: pull, load, notice a restart, unload
after a while.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from registry.client import Countersign
from registry.errors import RegistryError, Unavailable, Unverified
from registry.gateway.aside import aside
from registry.gateway.cache import Cache
from registry.gateway.engine import Engine, Model
from registry.gateway.routing import Routes
from registry.views.rollouts import ArmView

log = logging.getLogger("registry.gateway")

PULLS = 4
SOAK = 600.0
"""Seconds an adapter stays loaded after no route names it any more, so that going back to it needs
no load.
"""
BACKOFF = (1.0, 30.0)
"""Seconds before a refused adapter is tried again: doubled from the first to the second."""


@dataclass(slots=True)
class Failure:
    """Why an arm cannot be served, and when to try again (monotonic seconds)."""

    error: RegistryError
    pause: float
    again: float


@dataclass(slots=True)
class Arms:
    """The engine's adapters. A version is held when the engine lists it with our bytes, on the
    right base.
    """

    registry: Countersign
    engine: Engine
    cache: Cache
    routes: Routes
    models: dict[str, Model] = field(default_factory=dict)
    trouble: RegistryError | None = None
    failures: dict[str, Failure] = field(default_factory=dict)
    _work: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _pulls: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(PULLS))
    _lists: asyncio.Lock = field(default_factory=asyncio.Lock)
    _unnamed: dict[str, float] = field(default_factory=dict)

    def held(self, version: ArmView, base: ArmView) -> bool:
        """Can the engine answer as this version now?"""
        root = self.models.get(base.ref)
        if root is None or root.parent is not None:
            return False
        if version.kind != "adapter":
            whole = self.models.get(version.ref)
            return whole is not None and whole.parent is None
        model = self.models.get(version.ref)
        return (
            model is not None and self._is_ours(model, version) and model.parent in (None, base.ref)
        )

    def decided(self, version: ArmView, base: ArmView, serving: bool) -> bool:
        """Is it held, or known that it cannot be? What is only away decides nothing while a channel
        is `serving`.
        """
        if self.held(version, base):
            return True
        failure = self.failures.get(version.ref)
        return failure is not None and not (serving and isinstance(failure.error, Unavailable))

    def lost(self, version: ArmView) -> None:
        """The engine does not know this name any more: it was restarted. Look at once."""
        self.models.pop(version.ref, None)
        self.routes.changed.set()

    async def keep(self, every: float) -> None:
        """Reconcile for ever: at once when the routes change, else every so many seconds."""
        while True:
            self.routes.changed.clear()
            try:
                await self._reconcile()
            except Exception:
                log.exception("reconciling failed")
            try:
                async with asyncio.timeout(every):
                    await self.routes.changed.wait()
            except TimeoutError:
                continue

    async def stop(self) -> None:
        """Drop what is being loaded."""
        for task in self._work.values():
            task.cancel()
        await asyncio.gather(*self._work.values(), return_exceptions=True)

    async def _reconcile(self) -> None:
        await self._look()
        wanted = {version.ref: (version, base) for version, base in self.routes.named()}
        self.failures = {ref: failure for ref, failure in self.failures.items() if ref in wanted}
        for version, base in wanted.values():
            if self.held(version, base):
                self.failures.pop(version.ref, None)
            elif self.trouble is None and version.ref not in self._work and self._is_due(version):
                task = asyncio.create_task(self._bring(version, base))
                self._work[version.ref] = task
                task.add_done_callback(partial(self._brought, version.ref))
        self.routes.settle(self.decided)
        await self._unload(set(wanted))

    async def _look(self) -> None:
        """Read the engine's list, one reader at a time so that an older answer never replaces a
        newer one.

        An engine that is only slow keeps what it had.
        """
        async with self._lists:
            try:
                self.models = await self.engine.models()
                self.trouble = None
            except Unavailable as error:
                self.trouble = error
                if error.facts.get("gone"):
                    self.models = {}

    def _brought(self, ref: str, _: asyncio.Task[None]) -> None:
        self._work.pop(ref, None)
        self.routes.changed.set()

    def _is_due(self, version: ArmView) -> bool:
        failure = self.failures.get(version.ref)
        return failure is None or time.monotonic() >= failure.again

    async def _bring(self, version: ArmView, base: ArmView) -> None:
        """Pull, load, and read back what the engine made of it; a failure is kept with its next
        try.
        """
        try:
            root = self.models.get(base.ref)
            if root is None or root.parent is not None:
                raise Unverified(
                    "engine-base",
                    f"{version.ref} stands on {base.ref}, and the engine does not serve that base.",
                    f"Start the engine with its base under the name {base.ref}.",
                    ref=version.ref,
                )
            if version.kind == "adapter":
                async with self._pulls:
                    place = await aside(lambda: self.cache.pull(self.registry, version))
                if version.ref not in self.models:
                    await self.engine.load(version.ref, place)
                await self._look()
            if not self.held(version, base):
                raise Unverified(
                    "engine-holds-other",
                    f"What the engine serves as {version.ref} is not what the registry names.",
                    ref=version.ref,
                )
            self.failures.pop(version.ref, None)
            log.info("%s is loaded", version.ref)
        except (RegistryError, OSError) as raised:
            error = raised if isinstance(raised, RegistryError) else _unwritable(raised, version)
            before = self.failures.get(version.ref)
            pause = min(before.pause * 2, BACKOFF[1]) if before else BACKOFF[0]
            self.failures[version.ref] = Failure(error, pause, time.monotonic() + pause)
            log.warning("%s cannot be served: %s", version.ref, error.detail)

    async def _unload(self, wanted: set[str]) -> None:
        """Let go of our own adapters that no route has named for a while."""
        now = time.monotonic()
        ours = [
            m.id for m in self.models.values() if m.root and Path(m.root).parent == self.cache.root
        ]
        self._unnamed = {ref: self._unnamed.get(ref, now) for ref in ours if ref not in wanted}
        for ref, since in self._unnamed.items():
            if now - since >= SOAK:
                try:
                    await self.engine.unload(ref)
                    log.info("%s is unloaded", ref)
                except RegistryError as error:
                    log.warning("%s: %s", ref, error.detail)

    def _is_ours(self, model: Model, version: ArmView) -> bool:
        """Was it loaded from a directory named by its digest? Another gateway's cache is as good as
        ours.
        """
        return model.root is not None and Path(model.root).name == self.cache.place(version).name


def _unwritable(error: OSError, version: ArmView) -> RegistryError:
    return Unavailable(
        "cache-unusable",
        f"{version.ref} cannot be stored: {error.strerror}.",
    )
