"""Import what other tools wrote: choose files, check them against their source, send, register."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from registry.artifacts.bundles.companions import companion
from registry.client import mlflow_addresses, sources
from registry.client.blobs import OnBytes, Progress
from registry.client.mlflow_bundles import Located, left_out_below, locate
from registry.client.mlflow_server import MlflowServer
from registry.client.sources import Source, choose, damaged
from registry.client.transport import SLOW, ref_path
from registry.client.versions import NOUNS, Kind, NewVersion, Versions
from registry.errors import NotFound
from registry.views.datasets import DatasetVersionView
from registry.views.imports import ImportedView, LeftOut
from registry.views.versions import AddedView

MAX_NAMES = 1000
"""How many names of left-out files are sent; the registry keeps fewer."""
OnFetch = Callable[[int], AbstractContextManager[OnBytes]]
OnChosen = Callable[[Source], OnBytes | Progress | None]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a bundle comes from, and what of it to leave behind.

    `source` is a folder, `mlflow:RUN[/path]`, or an address of MLflow's own: `runs:/RUN/path`,
    `models:/m-ID`, `models:/NAME/VERSION`, `models:/NAME@ALIAS`. `leave_out` names files not to
    take although they belong to a bundle. `without_code` removes the settings that name code.
    `mlflow` is the address of the MLflow server; None reads MLFLOW_TRACKING_URI.
    """

    source: str | Path
    leave_out: Collection[str] = ()
    without_code: bool = False
    mlflow: str | None = None


class Imports(Versions):
    """Bundles from PEFT output folders, Hugging Face caches and MLflow."""

    def import_bundle(
        self,
        kind: Kind,
        origin: Origin,
        version: NewVersion,
        *,
        on_chosen: OnChosen | None = None,
        on_fetch: OnFetch | None = None,
    ) -> ImportedView:
        """Register the bundle inside a folder or among MLflow's artifacts; list what was left out.

        The `meta` of `version` takes precedence over what the source says of itself. `on_fetch`
        receives the number of bytes that MLflow will send, `on_chosen` the chosen files before
        anything is sent; each may return a counter of bytes.

        Raises what `add` raises, Unverified when a file is not what its cache says, and the errors
        of `sources.choose` and `mlflow_bundles.locate`.
        """
        address = mlflow_addresses.parse(str(origin.source))
        with ExitStack() as stack:
            folder, settings = (
                Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="countersign-import-")))
                for _ in range(2)
            )
            if address is None:
                chosen = choose(kind, Path(origin.source), origin.leave_out)
            else:
                server = stack.enter_context(closing(MlflowServer(origin.mlflow)))
                located = locate(server, kind, address)
                _fetch(server, located, folder, on_fetch)
                nested = left_out_below(server, kind, located, origin.leave_out)
                folders = {each.path for each in nested if "/" not in each.path}
                chosen = choose(kind, folder, set(origin.leave_out) - folders)
                chosen.left_out += nested
                _describe(chosen, located)
                if refs := [ref for ref in located.datasets if self._is_dataset(ref)]:
                    chosen.meta["datasets"] = refs
            if origin.without_code:
                sources.without_code(chosen, settings)
            version = replace(
                version, meta={**chosen.meta, **version.meta}, left_out=_sent_names(kind, chosen)
            )
            return self._imported(kind, chosen, version, on_chosen)

    def _is_dataset(self, ref: str) -> bool:
        """Whether this registry has the data set version that MLflow calls an input."""
        try:
            self._get(f"/datasets/{ref_path(ref)}", DatasetVersionView)
        except NotFound:
            return False
        return True

    def _imported(
        self, kind: Kind, chosen: Source, version: NewVersion, on_chosen: OnChosen | None
    ) -> ImportedView:
        on_bytes = on_chosen(chosen) if on_chosen is not None else None
        self._check_names(kind, chosen.files, version)
        files = []
        for path, inside in chosen.files:
            sent = self._sent(path, inside, on_bytes)
            if chosen.digests.get(inside, sent["sha256"]) != sent["sha256"]:
                raise damaged(path, chosen.digests[inside], sent["sha256"])
            files.append(sent)
        added = self._post(NOUNS[kind], AddedView, version.body(files), timeout=SLOW)
        return ImportedView.of(added, chosen.name, chosen.left_out, dict(version.meta))


def _sent_names(kind: Kind, chosen: Source) -> list[LeftOut]:
    """What was left out, as the registry is told: weights first, and not without end."""
    weights_first = sorted(chosen.left_out, key=lambda each: companion(kind, each.path) is None)
    return weights_first[:MAX_NAMES]


def _fetch(server: MlflowServer, located: Located, folder: Path, on_fetch: OnFetch | None) -> None:
    """Download the bundle that MLflow keeps into `folder`."""
    size = sum(file.size for file in located.files)
    with on_fetch(size) if on_fetch is not None else nullcontext() as step:
        for file in located.files:
            server.fetch(located.folder, file, folder, step)


def _describe(chosen: Source, located: Located) -> None:
    """Describe files from our own temporary folder as what they are: artifacts in MLflow.

    What MLflow says of their origin is kept as a claim.
    """
    chosen.name = chosen.meta["source"] = str(located.folder)
    chosen.meta["mlflow"] = located.claims
