"""One MLflow server over MLflow's own REST: what it knows, and the artifacts that it keeps.

The registry never imports mlflow; an import needs only a few of its routes. What MLflow says is a
claim: its artifacts can be overwritten at any time. Only the digests that the registry records are
binding.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import httpx

from registry.client.blobs import OnBytes
from registry.client.mlflow_addresses import Registered, Stored
from registry.errors import Invalid, NotFound, Unavailable

API = "/api/2.0/mlflow"
MAX_FOLDERS = 200
MAX_FILES = 2048
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Artifact:
    """One file of a run or a logged model: its path under their artifacts, and its bytes."""

    path: str
    size: int


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
        self._runs: dict[str, dict[str, Any]] = {}
        self._models: dict[str, dict[str, Any]] = {}

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def run(self, run: str) -> dict[str, Any]:
        """Return what MLflow says of a run, asked once. Raises NotFound for an unknown one."""
        if run not in self._runs:
            self._runs[run] = self._get(f"{API}/runs/get", run_id=run)["run"]
        return self._runs[run]

    def model(self, model: str) -> dict[str, Any]:
        """Return what MLflow says of a logged model, asked once. Raises NotFound as `run` does."""
        if model not in self._models:
            self._models[model] = self._get(f"{API}/logged-models/{model}")["model"]["info"]
        return self._models[model]

    def version(self, address: Registered) -> dict[str, Any]:
        """Return what MLflow says of a registered model's version; NotFound for an unknown one."""
        if address.alias is not None:
            answer = self._get(
                f"{API}/registered-models/alias", name=address.name, alias=address.alias
            )
        else:
            answer = self._get(
                f"{API}/model-versions/get", name=address.name, version=address.version
            )
        version: dict[str, Any] = answer["model_version"]
        return version

    def files(self, stored: Stored) -> Iterator[Artifact]:
        """All files below the address, breadth unbounded to `MAX_FOLDERS` and `MAX_FILES`.

        Raises Invalid `bad-artifact` for a path that leads out, `too-many-artifacts` beyond that.
        """
        waiting, folder_count, file_count = [stored.path or ""], 0, 0
        while waiting:
            folder = waiting.pop()
            folder_count += 1
            for entry in self._entries(stored, folder):
                inside = str(entry.get("path", ""))
                parts = PurePosixPath(inside).parts
                if not parts or inside.startswith("/") or ".." in parts or "\\" in inside:
                    raise Invalid(
                        "bad-artifact",
                        f"MLflow lists an artifact '{inside[:120]}' under {stored}.",
                    )
                if entry.get("is_dir"):
                    waiting.append(inside)
                else:
                    file_count += 1
                    yield Artifact(inside, int(entry.get("file_size") or 0))
            if folder_count > MAX_FOLDERS or file_count > MAX_FILES:
                raise Invalid(
                    "too-many-artifacts",
                    f"{stored} has more than {MAX_FOLDERS} folders or {MAX_FILES} files.",
                )

    def _entries(self, stored: Stored, folder: str) -> Iterator[dict[str, Any]]:
        token: str | None = None
        while True:
            if stored.kind == "run":
                answer = self._get(
                    f"{API}/artifacts/list",
                    run_id=stored.id,
                    path=folder or None,
                    page_token=token,
                )
            else:
                answer = self._get(
                    f"{API}/logged-models/{stored.id}/artifacts/directories",
                    artifact_directory_path=folder or None,
                    page_token=token,
                )
            yield from answer.get("files", [])
            token = answer.get("next_page_token")
            if not token:
                return

    def fetch(
        self, stored: Stored, file: Artifact, into: Path, on_bytes: OnBytes | None = None
    ) -> Path:
        """Download one file into a folder, under its own name.

        Raises Unavailable when the number of bytes differs from the listed one.
        """
        target = into / PurePosixPath(file.path).name
        received = 0
        route, params = "/get-artifact", {"run_id": stored.id, "path": file.path}
        if stored.kind == "model":  # only the routes of MLflow's own pages send these bytes
            route = f"/ajax-api/2.0/mlflow/logged-models/{stored.id}/artifacts/files"
            params = {"artifact_file_path": file.path}
        with (
            self._translated_errors(),
            self._http.stream("GET", route, params=params) as answer,
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
        # MLflow 3.17 answers 400 for an alias that a registered model does not have.
        unknown_alias = answer.status_code == httpx.codes.BAD_REQUEST and "not found" in message
        if answer.status_code == httpx.codes.NOT_FOUND or unknown_alias:
            raise NotFound(
                "mlflow-run-unknown",
                f"MLflow knows no such run, model or artifact. {message}".strip(),
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
