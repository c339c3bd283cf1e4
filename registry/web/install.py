"""Add the console to the app: its pages, its files, and the headers of every answer."""

from __future__ import annotations

from fastapi import FastAPI

from registry.web import (
    accounts,
    assets,
    audit,
    datasets,
    find,
    policies,
    problems,
    profiles,
    refusals,
    retention,
    reviews,
    rollouts,
    runs,
    search,
    suites,
    use_cases,
    versions,
)
from registry.web.headers import SecurityHeaders
from registry.web.pages import Page


def install(app: FastAPI) -> None:
    """Add the console to the app. Each request finds the store at `app.state.store`."""
    app.add_middleware(SecurityHeaders)
    rooms = (
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
        datasets,
        find,
        suites,
        runs,
        policies,
        problems,
    )
    for room in rooms:
        app.include_router(room.router)
    app.state.pages = [
        route for room in rooms for route in room.router.routes if isinstance(route, Page)
    ]
    refusals.install(app)
