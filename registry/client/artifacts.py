"""Artifacts of an MLflow run, over MLflow's own REST: listed, the bundle's folder found, its files
fetched.

The registry never imports mlflow; three of its routes are all an import needs. What an MLflow run
says of itself is a claim: its artifacts can be overwritten at any time, and only the digests
registered here hold.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import httpx

from registry.artifacts.bundles.names import ADAPTER_WEIGHTS, Kind, is_weights
from registry.client.blobs import OnBytes
from registry.errors import Invalid, NotFound, Unavailable

RUN = re.compile(r"mlflow:([A-Za-z0-9_-]{1,64})(?:/(.+))?")
MAX_FOLDERS = 200
MAX_FILES = 2048
CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Artifact:
    """One file of a run: its path under the run's artifacts, its size in bytes."""

    path: str
    size: int


def parse(source: str) -> tuple[str, str | None] | None:
    """`mlflow:RUN[/path]` as run and path, or None when the source is no MLflow run."""
    if not source.startswith("mlflow:"):
        return None
    found = RUN.fullmatch(source)
    if found is None or (found[2] and any(part in ("", ".", "..") for part in found[2].split("/"))):
        raise Invalid(
            "bad-mlflow-run",
            f"'{source[:120]}' names no MLflow run.",
        )
    return found[1], found[2]


class Artifacts:
    """One MLflow server. Credentials come from MLFLOW_TRACKING_USERNAME and _PASSWORD, or _TOKEN,
    as for its client.
    """

    def __init__(self, url: str | None = None) -> None:
        """Address a server; None reads MLFLOW_TRACKING_URI. Invalid without an http(s) address."""
        self.url = (url or os.environ.get("MLFLOW_TRACKING_URI", "")).rstrip("/")
        if urlsplit(self.url).scheme not in ("http", "https"):
            raise Invalid(
                "no-mlflow",
                "No MLflow server is named by an http address.",
            )
        token, name = (
            os.environ.get("MLFLOW_TRACKING_TOKEN"),
            os.environ.get("MLFLOW_TRACKING_USERNAME"),
        )
        loopback = urlsplit(self.url).hostname in ("127.0.0.1", "localhost", "::1")
        self._http = httpx.Client(
            base_url=self.url,
            timeout=httpx.Timeout(60.0, connect=5.0),
            trust_env=not loopback,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            auth=(name, os.environ.get("MLFLOW_TRACKING_PASSWORD", ""))
            if name and not token
            else None,
        )

    def close(self) -> None:
        """Give the connections back."""
        self._http.close()

    def run(self, run: str) -> dict[str, Any]:
        """What MLflow says of a run, or NotFound."""
        info: dict[str, Any] = self._ask("/api/2.0/mlflow/runs/get", run_id=run)["run"]
        return info

    def bundle(self, kind: Kind, run: str, path: str | None) -> list[Artifact]:
        """The files of the one folder of a run that holds a bundle of this kind.

        Raises NotFound when there is none, Invalid (`which-artifact`) naming them all when there
        are several.
        """
        folders: dict[str, list[Artifact]] = {}
        for found in self._files(run, path or ""):
            folders.setdefault(str(PurePosixPath(found.path).parent), []).append(found)
        fits = {folder: files for folder, files in folders.items() if _is_bundle(kind, files)}
        if path is not None and path in fits:  # the folder named itself, whatever lies below it
            return fits[path]
        if not fits:
            raise NotFound(
                "no-bundle",
                f"The MLflow run {run} has no folder with {_wanted(kind)}.",
            )
        if len(fits) > 1:
            raise Invalid(
                "which-artifact",
                f"The run holds several: {', '.join(sorted(fits))[:400]}.",
                f"Name one of them: mlflow:{run}/{sorted(fits)[-1]}.",
            )
        return next(iter(fits.values()))

    def _files(self, run: str, path: str) -> Iterator[Artifact]:
        waiting, asked, count = [path], 0, 0
        while waiting:
            folder = waiting.pop()
            asked += 1
            for entry in self._listed(run, folder):
                inside = str(entry.get("path", ""))
                parts = PurePosixPath(inside).parts
                if not parts or inside.startswith("/") or ".." in parts or "\\" in inside:
                    raise Invalid(
                        "bad-artifact",
                        f"The MLflow run {run} names an artifact '{inside[:120]}'.",
                    )
                if entry.get("is_dir"):
                    waiting.append(inside)
                else:
                    count += 1
                    yield Artifact(inside, int(entry.get("file_size") or 0))
            if asked > MAX_FOLDERS or count > MAX_FILES:
                raise Invalid(
                    "too-many-artifacts",
                    f"The MLflow run {run} holds more than {MAX_FOLDERS} folders or "
                    f"{MAX_FILES} files.",
                )

    def _listed(self, run: str, folder: str) -> Iterator[dict[str, Any]]:
        token: str | None = None
        while True:
            answer = self._ask(
                "/api/2.0/mlflow/artifacts/list", run_id=run, path=folder or None, page_token=token
            )
            yield from answer.get("files", [])
            token = answer.get("next_page_token")
            if not token:
                return

    def fetch(self, run: str, file: Artifact, into: Path, on_bytes: OnBytes | None = None) -> Path:
        """Stream one file into a folder, under its own name; Unavailable when fewer or more bytes
        come than listed.
        """
        target = into / PurePosixPath(file.path).name
        got = 0
        with (
            self._named(),
            self._http.stream(
                "GET", "/get-artifact", params={"run_id": run, "path": file.path}
            ) as answer,
        ):
            self._check(answer)
            with target.open("wb") as out:
                for chunk in answer.iter_bytes(CHUNK):
                    got += len(chunk)
                    out.write(chunk)
                    if on_bytes is not None:
                        on_bytes(len(chunk))
        if got != file.size:
            raise Unavailable(
                "artifact-cut",
                f"MLflow listed {file.path} with {file.size} bytes and sent {got}.",
            )
        return target

    def _ask(self, route: str, **params: str | None) -> dict[str, Any]:
        with self._named():
            answer = self._http.get(
                route, params={key: value for key, value in params.items() if value is not None}
            )
        self._check(answer)
        try:
            document = answer.json()
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise Unavailable(
                "not-mlflow",
                f"What answers at {self._shown} is no MLflow server.",
            )
        return document

    def _check(self, answer: httpx.Response) -> None:
        if answer.is_success:
            return
        answer.read()
        try:
            told = str(answer.json().get("message", ""))[:300]
        except (ValueError, AttributeError):
            told = ""
        if answer.status_code == httpx.codes.NOT_FOUND:
            raise NotFound(
                "mlflow-run-unknown",
                f"MLflow knows no such run or artifact. {told}".strip(),
            )
        if answer.status_code in (401, 403):
            raise Invalid(
                "mlflow-refused",
                f"MLflow refuses to answer ({answer.status_code}).",
            )
        raise Unavailable(
            "mlflow-failed",
            f"MLflow answered {answer.status_code}. {told}".strip(),
        )

    @property
    def _shown(self) -> str:
        """The address without what may be a password."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except httpx.RequestError as error:
            raise Unavailable(
                "mlflow-unreachable",
                f"MLflow at {self._shown} does not answer: {type(error).__name__}.",
            ) from error


def _is_bundle(kind: Kind, files: list[Artifact]) -> bool:
    names = {PurePosixPath(file.path).name for file in files}
    if kind == "adapter":
        return ADAPTER_WEIGHTS in names
    return "config.json" in names and any(is_weights(kind, name) for name in names)


def _wanted(kind: Kind) -> str:
    return ADAPTER_WEIGHTS if kind == "adapter" else "config.json and safetensors weights"
