"""Keep the engine loaded with what the routes name.

Adapters are pulled and loaded, a restart of the engine is noticed, and what no route names any more
is unloaded after a while.
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
from registry.gateway.cache import Cache
from registry.gateway.engine import Engine, Model
from registry.gateway.routing import Routes
from registry.gateway.threads import run_in_thread
from registry.views.rollouts import ArmView

log = logging.getLogger("registry.gateway")

PULLS = 4
"""How many adapters are pulled at the same time."""
SOAK = 600.0
"""Seconds an adapter stays loaded once no route names it, so that a rollback need not load it."""
BACKOFF = (1.0, 30.0)
"""Seconds before a failed adapter is tried again, doubled from the first value to the second."""


@dataclass(slots=True)
class Failure:
    """Why an arm cannot be served, and when to try again.

    `pause` is in seconds; `again` is a time of the monotonic clock.
    """

    error: RegistryError
    pause: float
    again: float


@dataclass(slots=True)
class Arms:
    """The engine's adapters.

    A version is loaded when the engine lists it with the registry's bytes, on the right base.
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
    _listing: asyncio.Lock = field(default_factory=asyncio.Lock)
    _unnamed: dict[str, float] = field(default_factory=dict)

    def is_loaded(self, version: ArmView, base: ArmView) -> bool:
        """Whether the engine can answer as this version now."""
        if version.kind != "adapter":
            return self._is_whole(version)
        if not self._is_whole(base):
            return False
        model = self.models.get(version.ref)
        return (
            model is not None and self._is_ours(model, version) and model.parent in (None, base.ref)
        )

    def is_decided(self, version: ArmView, base: ArmView, serving: bool) -> bool:
        """Whether a version is loaded, or has failed for a reason of its own.

        While the channel is `serving` an older route, an unreachable engine or registry decides
        nothing: the channel keeps the older route.
        """
        if self.is_loaded(version, base):
            return True
        failure = self.failures.get(version.ref)
        return failure is not None and not (serving and isinstance(failure.error, Unavailable))

    def forget(self, version: ArmView) -> None:
        """Note that the engine no longer knows this name, and reconcile at once.

        That happens when the engine was restarted.
        """
        self.models.pop(version.ref, None)
        self.routes.changed.set()

    async def keep(self, every: float) -> None:
        """Reconcile for ever: at once when a route changes, otherwise `every` seconds."""
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
        """Cancel the loads that are under way."""
        for task in self._work.values():
            task.cancel()
        await asyncio.gather(*self._work.values(), return_exceptions=True)

    async def _reconcile(self) -> None:
        await self._list_models()
        named = {version.ref: (version, base) for version, base in self.routes.named()}
        self.failures = {ref: failure for ref, failure in self.failures.items() if ref in named}
        for version, base in named.values():
            if self.is_loaded(version, base):
                self.failures.pop(version.ref, None)
            elif self.trouble is None and version.ref not in self._work and self._is_due(version):
                task = asyncio.create_task(self._load(version, base))
                self._work[version.ref] = task
                task.add_done_callback(partial(self._loaded, version.ref))
        self.routes.settle(self.is_decided)
        await self._unload(set(named))

    async def _list_models(self) -> None:
        """Read the engine's list of models.

        One task reads at a time, so that an older answer never replaces a newer one. The last list
        of an engine that is only slow stays valid.
        """
        async with self._listing:
            try:
                self.models = await self.engine.models()
                self.trouble = None
            except Unavailable as error:
                self.trouble = error
                if error.facts.get("gone"):
                    self.models = {}

    def _loaded(self, ref: str, _: asyncio.Task[None]) -> None:
        self._work.pop(ref, None)
        self.routes.changed.set()

    def _is_due(self, version: ArmView) -> bool:
        failure = self.failures.get(version.ref)
        return failure is None or time.monotonic() >= failure.again

    async def _load(self, version: ArmView, base: ArmView) -> None:
        """Pull and load a version, then check that the engine lists it.

        A failure is kept together with the time of the next attempt.
        """
        try:
            if version.kind == "checkpoint" and not self._is_whole(version):
                raise Unverified(
                    "engine-model",
                    f"{version.ref} is a full checkpoint, and the engine serves another model. "
                    "Engines load adapters while they run, and whole models only at their start.",
                    f"Start an engine with {version.ref} as its model, under that name, and a "
                    "gateway for it.",
                    ref=version.ref,
                )
            if version.kind != "checkpoint" and not self._is_whole(base):
                raise Unverified(
                    "engine-base",
                    f"{version.ref} needs the base {base.ref}, which the engine does not serve.",
                    f"Start the engine with its base under the name {base.ref}.",
                    ref=version.ref,
                )
            if version.kind == "adapter":
                async with self._pulls:
                    folder = await run_in_thread(lambda: self.cache.pull(self.registry, version))
                if version.ref not in self.models:
                    await self.engine.load(version.ref, folder)
                await self._list_models()
            if not self.is_loaded(version, base):
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

    async def _unload(self, named: set[str]) -> None:
        """Unload this gateway's adapters that no route has named for SOAK seconds."""
        now = time.monotonic()
        ours = [
            model.id
            for model in self.models.values()
            if model.root and Path(model.root).parent == self.cache.root
        ]
        self._unnamed = {ref: self._unnamed.get(ref, now) for ref in ours if ref not in named}
        for ref, since in self._unnamed.items():
            if now - since >= SOAK:
                try:
                    await self.engine.unload(ref)
                    log.info("%s is unloaded", ref)
                except RegistryError as error:
                    log.warning("%s: %s", ref, error.detail)

    def _is_whole(self, version: ArmView) -> bool:
        """Whether the engine serves this version as a model of its own."""
        model = self.models.get(version.ref)
        return model is not None and model.parent is None

    def _is_ours(self, model: Model, version: ArmView) -> bool:
        """Whether the model was loaded from a directory with the version's digest as its name.

        The cache of another gateway counts as well.
        """
        return model.root is not None and Path(model.root).name == self.cache.place(version).name


def _unwritable(error: OSError, version: ArmView) -> RegistryError:
    return Unavailable("cache-unusable", f"{version.ref} cannot be stored: {error.strerror}.")
