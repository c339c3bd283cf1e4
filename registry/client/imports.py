"""Import what other tools left: choose the files, check them against their source, send them,
register them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from pathlib import Path, PurePosixPath
from typing import Any

from registry.client import artifacts, sources
from registry.client.blobs import OnBytes, Progress
from registry.client.sources import Source, choose, damaged
from registry.client.transport import SLOW
from registry.client.versions import NOUNS, Kind, Versions
from registry.views.imports import ImportedView
from registry.views.versions import AddedView

OnFetch = Callable[[int], AbstractContextManager[OnBytes]]
OnChosen = Callable[[Source], OnBytes | Progress | None]


class Imports(Versions):
    """Bundles out of PEFT output folders, Hugging Face caches and MLflow runs."""

    def import_bundle(
        self,
        kind: Kind,
        source: str | Path,
        name: str,
        *,
        base: str | None = None,
        domain: str | None = None,
        meta: Mapping[str, Any] | None = None,
        leave_out: Collection[str] = (),
        mlflow: str | None = None,
        quantised_of: str | None = None,
        without_code: bool = False,
        on_chosen: OnChosen | None = None,
        on_fetch: OnFetch | None = None,
    ) -> ImportedView:
        """Register the bundle inside a folder or `mlflow:RUN[/path]` as a version of `team/name`;
        say what was left out.

        `meta` goes before what the source says of itself; `without_code` takes out of the settings
        what names code. `on_fetch` hears how many bytes MLflow is asked for, and `on_chosen` what
        was chosen before anything is sent; each may answer with whoever counts the bytes. Raises
        what `add` raises, Unverified when a file is not what its cache says, and the errors of
        `sources.choose` and `artifacts.Artifacts`.
        """
        body = {
            "name": name,
            "base": base,
            "domain": domain,
            **({"quantised_of": quantised_of} if quantised_of else {}),
        }
        run = artifacts.parse(str(source))
        with ExitStack() as stack:
            folder, settings = (
                Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="countersign-import-")))
                for _ in range(2)
            )
            if run is None:
                chosen = choose(kind, Path(source), leave_out)
            else:
                server = stack.enter_context(closing(artifacts.Artifacts(mlflow)))
                chosen = _fetched(server, kind, *run, folder, leave_out, on_fetch)
            if without_code:
                sources.without_code(chosen, settings)
            return self._imported(kind, chosen, body, meta, on_chosen)

    def _imported(
        self,
        kind: Kind,
        chosen: Source,
        body: Mapping[str, Any],
        meta: Mapping[str, Any] | None,
        on_chosen: OnChosen | None,
    ) -> ImportedView:
        on_bytes = on_chosen(chosen) if on_chosen is not None else None
        said = {**chosen.meta, **(meta or {})}
        files = []
        for path, inside in chosen.files:
            sent = self._sent(path, inside, on_bytes)
            if chosen.digests.get(inside, sent["sha256"]) != sent["sha256"]:
                raise damaged(path, chosen.digests[inside], sent["sha256"])
            files.append(sent)
        added = self._post(
            NOUNS[kind], AddedView, {**body, "files": files, "meta": said}, timeout=SLOW
        )
        return ImportedView.of(added, chosen.name, chosen.left_out, said)


def _fetched(
    server: artifacts.Artifacts,
    kind: Kind,
    run: str,
    path: str | None,
    folder: Path,
    leave_out: Collection[str],
    on_fetch: OnFetch | None,
) -> Source:
    """The run's bundle in a folder of our own, described as what it is: an MLflow run's
    artifact.
    """
    info = server.run(run)["info"]
    files = server.bundle(kind, run, path)
    with (
        on_fetch(sum(file.size for file in files))
        if on_fetch is not None
        else nullcontext() as step
    ):
        for file in files:
            server.fetch(run, file, folder, step)
    chosen = choose(kind, folder, leave_out)
    inside = str(PurePosixPath(files[0].path).parent)
    chosen.name = f"mlflow:{run}/{inside}" if inside != "." else f"mlflow:{run}"
    chosen.meta["source"] = chosen.name
    chosen.meta["mlflow"] = {
        "run": run,
        "experiment": str(info.get("experiment_id", "")),
        "artifact": inside,
    }
    return chosen
