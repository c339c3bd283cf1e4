"""Add the console to the app: its pages, its files, and the headers of every answer."""

from __future__ import annotations

from fastapi import FastAPI

from registry.web import (
    accounts,
    assets,
    audit,
    problems,
    profiles,
    retention,
    reviews,
    rollouts,
    search,
    use_cases,
    versions,
)
from registry.web.headers import SecurityHeaders


def install(app: FastAPI) -> None:
    """Add the console to the app. Each request finds the store at `app.state.store`."""
    app.add_middleware(SecurityHeaders)
    for room in (
        assets,
        accounts,
        reviews,
        versions,
        profiles,
        search,
        rollouts,
        use_cases,
        retention,
        audit,
        problems,
    ):
        app.include_router(room.router)
