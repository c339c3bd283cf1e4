"""The gateway's records, one JSON line a request, and counts over them.

A record never holds a word of the prompt or of the answer.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

log = logging.getLogger("registry.gateway")

Key = tuple[str, int, str, str | None]


@dataclass(frozen=True, slots=True)
class Record:
    """One request to a channel.

    `arm` is the arm the unit belongs to. `version` and `digest` name what answered, null when
    nothing did; `fallback` is true when that is not the version the arm names. `status` is the
    answer's, 499 when the caller hung up, 502 when the engine broke off in mid-stream. `unit` is a
    keyed hash, null without a unit id.
    """

    time: str
    channel: str
    generation: int
    arm: str
    version: str | None
    digest: str | None
    status: int
    latency_ms: float
    fallback: bool
    unit: str | None


@dataclass(slots=True)
class Count:
    """Requests of one (channel, generation, arm, version)."""

    requests: int = 0
    ok: int = 0
    errors: int = 0
    fallbacks: int = 0


@dataclass(slots=True)
class Records:
    """The files `records/<UTC date>.jsonl`, and counts, which a start reads from them again.

    `damaged` counts lines that cannot be read, `lost` records that could not be written.
    """

    directory: Path
    key: bytes
    since: str | None = None
    damaged: int = 0
    lost: int = 0
    counts: dict[Key, Count] = field(default_factory=dict)
    _day: str = ""
    _file: int = -1

    def restore(self) -> None:
        """Make the directory and count its records; a line that a crash cut off is damaged."""
        self.directory.mkdir(mode=0o700, exist_ok=True)
        for path in sorted(self.directory.glob("*.jsonl")):
            for line in _lines(path):
                try:
                    self._count(Record(**json.loads(line)))
                except (ValueError, TypeError):
                    self.damaged += 1

    def unit(self, unit: str | None) -> str | None:
        """A unit id as it may be kept: HMAC-SHA256 under this gateway's key, 8 bytes in hex."""
        if unit is None:
            return None
        return hmac.new(
            self.key, unit.encode("utf-8", "surrogatepass"), hashlib.sha256
        ).hexdigest()[:16]

    def append(self, record: Record) -> None:
        """Count a record and write its line in one write.

        A full disk costs the line, which `lost` counts, and not the answer.
        """
        self._count(record)
        line = json.dumps(asdict(record), separators=(",", ":")).encode() + b"\n"
        try:
            handle = self._open(record.time[:10])
            if os.write(handle, line) != len(line):
                raise OSError(0, "the line was cut short")
        except OSError as error:
            self.lost += 1
            self.close()
            log.error("a record could not be written: %s", error.strerror)

    def summary(self) -> dict[str, Any]:
        """Counts by channel, generation, arm and version since the oldest record kept."""
        rows = sorted(self.counts.items(), key=lambda item: (*item[0][:3], item[0][3] or ""))
        return {
            "since": self.since,
            "requests": sum(count.requests for count in self.counts.values()),
            "damaged": self.damaged,
            "lost": self.lost,
            "counts": [
                {
                    "channel": channel,
                    "generation": generation,
                    "arm": arm,
                    "version": version,
                    **asdict(count),
                }
                for (channel, generation, arm, version), count in rows
            ],
        }

    def close(self) -> None:
        """Close today's file."""
        if self._file >= 0:
            os.close(self._file)
        self._day, self._file = "", -1

    def _count(self, record: Record) -> None:
        if self.since is None or record.time < self.since:
            self.since = record.time
        count = self.counts.setdefault(
            (record.channel, record.generation, record.arm, record.version), Count()
        )
        count.requests += 1
        count.fallbacks += record.fallback
        if record.status < 400:
            count.ok += 1
        else:
            count.errors += 1

    def _open(self, day: str) -> int:
        if day != self._day:
            self.close()
            path = self.directory / f"{day}.jsonl"
            handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            size = os.fstat(handle).st_size
            if size and os.pread(handle, 1, size - 1) != b"\n":
                # A crash cut off the last line: end it, so that the next one stays readable.
                os.write(handle, b"\n")
            self._day, self._file = day, handle
        return self._file


def now() -> str:
    """The present time as records write it: ISO 8601, UTC, microseconds."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8", errors="replace") as file:
        yield from (line for line in file if line.strip())
