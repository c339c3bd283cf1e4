"""Metrics for Prometheus: counts and times by channel, arm and version; no unit ids, no text."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from registry.gateway.records import Record, Records

BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
"""Upper bounds in seconds, from the cost of routing to the longest answer an engine may take."""


class Meters:
    """The metrics of one gateway, apart from those of another gateway in the same process."""

    def __init__(self, age: Callable[[], float | None], records: Records) -> None:
        self._registry = CollectorRegistry()
        labels = ("channel", "arm", "version", "status")
        self._requests = Counter(
            "countersign_gateway_requests", "Requests answered.", labels, registry=self._registry
        )
        self._latency = Histogram(
            "countersign_gateway_latency_seconds",
            "Seconds from the request read to the answer sent.",
            ("channel", "arm"),
            buckets=BUCKETS,
            registry=self._registry,
        )
        self._refused = Counter(
            "countersign_gateway_refused",
            "Requests that reached no channel.",
            ("kind",),
            registry=self._registry,
        )
        routing = Gauge(
            "countersign_gateway_routing_age_seconds",
            "Seconds since the registry last confirmed the routes; NaN for never.",
            registry=self._registry,
        )
        routing.set_function(lambda: float("nan") if (seconds := age()) is None else seconds)
        lost = Gauge(
            "countersign_gateway_records_lost",
            "Records that could not be written.",
            registry=self._registry,
        )
        lost.set_function(lambda: records.lost)

    def served(self, record: Record) -> None:
        """Count one recorded request."""
        self._requests.labels(
            record.channel, record.arm, record.version or "", str(record.status)
        ).inc()
        self._latency.labels(record.channel, record.arm).observe(record.latency_ms / 1000)

    def refused(self, kind: str) -> None:
        """Count a request that named no channel or could not be read."""
        self._refused.labels(kind).inc()

    def page(self) -> bytes:
        """All metrics in Prometheus's exposition format."""
        return generate_latest(self._registry)
