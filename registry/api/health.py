"""Liveness, readiness and metrics, for operators and their programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest
from prometheus_client.metrics import MetricWrapperBase

from registry import version
from registry.queries import metrics


def router(measured: Sequence[MetricWrapperBase]) -> APIRouter:
    """The routes for operators; `measured` are the metrics that this process counts itself."""
    routes = APIRouter(include_in_schema=False)

    @routes.get("/healthz")
    def healthz() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok", "version": version()}

    @routes.get("/readyz")
    def readyz(request: Request) -> dict[str, str]:
        """The process and its database answer; 503 with Retry-After when the database does not."""
        request.app.state.store.ping()
        return {"status": "ready"}

    @routes.get("/metrics")
    def numbers(request: Request) -> Response:
        """What the registry holds and how fast it answers, in Prometheus' text format."""
        collected = CollectorRegistry()
        for name, value in asdict(metrics.numbers(request.app.state.store)).items():
            text = f"{name.replace('_', ' ').capitalize()} now."
            Gauge(f"countersign_{name}", text, registry=collected).set(value)
        for metric in measured:
            collected.register(metric)
        return Response(generate_latest(collected), media_type=CONTENT_TYPE_LATEST)

    return routes
