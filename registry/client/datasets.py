"""Data sets: register a file as a version, list and show versions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from registry.client.blobs import Blobs, OnBytes, Progress
from registry.client.transport import SLOW, ref_path
from registry.errors import BundleRejected
from registry.views.datasets import DatasetVersionView
from registry.views.versions import AddedView


class Datasets(Blobs):
    """Data set versions."""

    def add_dataset(
        self,
        file: str | Path,
        name: str,
        meta: Mapping[str, Any] | None = None,
        on_bytes: OnBytes | Progress | None = None,
    ) -> AddedView:
        """Send a JSON Lines file and register it as a version of `team/name`.

        Raises BundleRejected with every row that the registry refuses.
        """
        sent = self.put_file(file, on_bytes)
        body = {
            "name": name,
            "file": {"sha256": sent.sha256, "size": sent.size},
            "meta": dict(meta or {}),
        }
        try:
            return self._post("/datasets", AddedView, body, timeout=SLOW)
        except BundleRejected as refused:
            # The registry sees only bytes; the person knows the file by its own name.
            named = [replace(defect, file=Path(file).name) for defect in refused.defects]
            raise BundleRejected(named, **refused.facts) from None

    def datasets(self) -> list[DatasetVersionView]:
        """Return every data set version."""
        return self._get("/datasets", list[DatasetVersionView])

    def dataset(self, ref: str) -> DatasetVersionView:
        """Return one data set version."""
        return self._get(f"/datasets/{ref_path(ref)}", DatasetVersionView)
