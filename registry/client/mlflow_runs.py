"""Find and fetch the bundle among the artifacts of an MLflow run, over MLflow's own REST.

The registry never imports mlflow; an import needs only three of its routes. What an MLflow run says
of itself is a claim: its artifacts can be overwritten at any time. Only the digests that the
registry records are binding.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx

from registry.artifacts.bundles.names import ADAPTER_WEIGHTS, Kind, is_weights
from registry.client.blobs import OnBytes
from registry.errors import Invalid, NotFound, Unavailable

RUN = re.compile(r"mlflow:([A-Za-z0-9_-]{1,64})(?:/(.+))?")
MAX_FOLDERS = 200
MAX_FILES = 2048
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Artifact:
    """One file of a run: its path under the run's artifacts, and its size in bytes."""

    path: str
    size: int


class RunPath(NamedTuple):
    """An MLflow run, and a path under its artifacts or None for all of them."""

    run: str
    path: str | None


def parse(source: str) -> RunPath | None:
    """Read `mlflow:RUN[/path]`; None when the source does not begin with `mlflow:`."""
    if not source.startswith("mlflow:"):
        return None
    match = RUN.fullmatch(source)
    if match is None or (match[2] and any(part in ("", ".", "..") for part in match[2].split("/"))):
        raise Invalid("bad-mlflow-run", f"'{source[:120]}' names no MLflow run.")
    return RunPath(match[1], match[2])


class MlflowServer:
    """One MLflow server.

    Credentials come from the variables that MLflow's own client reads: MLFLOW_TRACKING_TOKEN, or
    MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD.
    """

    def __init__(self, url: str | None = None) -> None:
        """Address a server; None reads MLFLOW_TRACKING_URI.

        Raises Invalid unless the address begins with http:// or https://.
        """
        self.url = (url or os.environ.get("MLFLOW_TRACKING_URI", "")).rstrip("/")
        if urlsplit(self.url).scheme not in ("http", "https"):
            raise Invalid("no-mlflow", "No MLflow server is named by an http address.")
        token = os.environ.get("MLFLOW_TRACKING_TOKEN")
        name = os.environ.get("MLFLOW_TRACKING_USERNAME")
        password = os.environ.get("MLFLOW_TRACKING_PASSWORD", "")
        loopback = urlsplit(self.url).hostname in ("127.0.0.1", "localhost", "::1")
        self._http = httpx.Client(
            base_url=self.url,
            timeout=httpx.Timeout(60.0, connect=5.0),
            trust_env=not loopback,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            auth=(name, password) if name and not token else None,
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def run(self, run: str) -> dict[str, Any]:
        """Return what MLflow says of a run. Raises NotFound for an unknown one."""
        info: dict[str, Any] = self._get("/api/2.0/mlflow/runs/get", run_id=run)["run"]
        return info

    def bundle(self, kind: Kind, run: str, path: str | None) -> list[Artifact]:
        """Return the files of the one folder of a run that holds a bundle of this kind.

        Raises NotFound when no folder does, and Invalid (`which-artifact`), naming them all, when
        several do.
        """
        folders: dict[str, list[Artifact]] = {}
        for file in self._files(run, path or ""):
            folders.setdefault(str(PurePosixPath(file.path).parent), []).append(file)
        bundles = {folder: files for folder, files in folders.items() if _is_bundle(kind, files)}
        if path is not None and path in bundles:
            # The named folder itself, whatever other bundles its subfolders contain.
            return bundles[path]
        if not bundles:
            raise NotFound(
                "no-bundle", f"The MLflow run {run} has no folder with {_required_files(kind)}."
            )
        if len(bundles) > 1:
            raise Invalid(
                "which-artifact",
                f"The run has several bundles: {', '.join(sorted(bundles))[:400]}.",
                f"Name one of them: mlflow:{run}/{sorted(bundles)[-1]}.",
            )
        return next(iter(bundles.values()))

    def _files(self, run: str, path: str) -> Iterator[Artifact]:
        waiting, folder_count, file_count = [path], 0, 0
        while waiting:
            folder = waiting.pop()
            folder_count += 1
            for entry in self._entries(run, folder):
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
                    file_count += 1
                    yield Artifact(inside, int(entry.get("file_size") or 0))
            if folder_count > MAX_FOLDERS or file_count > MAX_FILES:
                raise Invalid(
                    "too-many-artifacts",
                    f"The MLflow run {run} has more than {MAX_FOLDERS} folders or "
                    f"{MAX_FILES} files.",
                )

    def _entries(self, run: str, folder: str) -> Iterator[dict[str, Any]]:
        token: str | None = None
        while True:
            answer = self._get(
                "/api/2.0/mlflow/artifacts/list", run_id=run, path=folder or None, page_token=token
            )
            yield from answer.get("files", [])
            token = answer.get("next_page_token")
            if not token:
                return

    def fetch(self, run: str, file: Artifact, into: Path, on_bytes: OnBytes | None = None) -> Path:
        """Download one file into a folder, under its own name.

        Raises Unavailable when the number of bytes differs from the listed one.
        """
        target = into / PurePosixPath(file.path).name
        received = 0
        with (
            self._translated_errors(),
            self._http.stream(
                "GET", "/get-artifact", params={"run_id": run, "path": file.path}
            ) as answer,
        ):
            self._check(answer)
            with target.open("wb") as out:
                for chunk in answer.iter_bytes(CHUNK_BYTES):
                    received += len(chunk)
                    out.write(chunk)
                    if on_bytes is not None:
                        on_bytes(len(chunk))
        if received != file.size:
            raise Unavailable(
                "artifact-cut",
                f"MLflow listed {file.path} with {file.size} bytes and sent {received}.",
            )
        return target

    def _get(self, route: str, **params: str | None) -> dict[str, Any]:
        with self._translated_errors():
            answer = self._http.get(
                route, params={key: value for key, value in params.items() if value is not None}
            )
        self._check(answer)
        try:
            document = answer.json()
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise Unavailable("not-mlflow", f"The server at {self._shown} is no MLflow server.")
        return document

    def _check(self, answer: httpx.Response) -> None:
        if answer.is_success:
            return
        answer.read()
        try:
            message = str(answer.json().get("message", ""))[:300]
        except (ValueError, AttributeError):
            message = ""
        if answer.status_code == httpx.codes.NOT_FOUND:
            raise NotFound(
                "mlflow-run-unknown", f"MLflow knows no such run or artifact. {message}".strip()
            )
        if answer.status_code in (401, 403):
            raise Invalid("mlflow-refused", f"MLflow refuses to answer ({answer.status_code}).")
        raise Unavailable(
            "mlflow-failed",
            f"MLflow answered {answer.status_code}. {message}".strip(),
        )

    @property
    def _shown(self) -> str:
        """The address without the user and password that it may contain."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        """Raise Unavailable in place of an error of the connection."""
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


def _required_files(kind: Kind) -> str:
    return ADAPTER_WEIGHTS if kind == "adapter" else "config.json and safetensors weights"
