"""The real app on a real server and PostgreSQL, with people who sign in by token, and a real
browser.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from playwright.sync_api import Browser, Page, expect, sync_playwright

from registry.app import create_app, open_sequencer
from registry.blobs.store import Blobs
from registry.commands import tokens
from registry.db.store import Store
from registry.rules.actors import SYSTEM
from registry.settings import Settings, load
from tests.build import (
    Person,
    World,
    a_person,
    a_world,
    evaluate,
    install_classes,
    install_policies,
    submit,
    train,
)
from tests.database import Databases
from tests.gateway.served import Served

CHROMIUM = "/usr/bin/chromium"
# What keeps chromium from looking up hosts of its own, and lets it run as root in CI.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
FORM_TOKEN = re.compile(r'name="form_token" value="([^"]+)"')


@dataclass
class Console:
    """The running console and what stands behind it."""

    app: FastAPI
    url: str
    store: Store
    blobs: Blobs
    settings: Settings

    def token(self, person: Person) -> str:
        """A fresh bearer token with all that the person may do."""
        (team,) = {grant.team for grant in person.actor.grants}
        roles = [grant.role.value for grant in person.actor.grants]
        minted = tokens.create(
            self.store, SYSTEM, tokens.TokenRequest(person.actor.name, roles, team, 1)
        ).token
        assert minted is not None
        return minted

    @contextmanager
    def signed_in(self, person: Person) -> Iterator[httpx.Client]:
        """A plain HTTP client with a session, as a browser without JavaScript."""
        with httpx.Client(base_url=self.url, timeout=60) as client:
            answer = client.post("/login", data={"token": self.token(person)})
            assert answer.status_code == 303, answer.text
            yield client

    def sequence(self) -> None:
        """Number and sign what happened so far, as the clock does all the time."""
        sequencer = open_sequencer(self.settings)
        while sequencer.step():
            pass
        sequencer.store.engine.dispose()


def form_token(client: httpx.Client, path: str) -> str:
    """The token in a page's forms."""
    found = FORM_TOKEN.search(client.get(path).text)
    assert found is not None
    return found[1]


@pytest.fixture(scope="package")
def console(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    """The app on a database of its own, so that its log can be signed."""
    name = f"console_{secrets.token_hex(4)}"
    url = databases.migrated(name)
    settings = load(home=tmp_path_factory.mktemp("console"), database_url=url)
    app = create_app(settings)
    store: Store = app.state.store
    install_policies(store)
    install_classes(store)
    served = Served(app)
    yield Console(app, served.url, store, app.state.blobs, settings)
    served.stop()
    store.engine.dispose()
    databases.drop(name)


@pytest.fixture
def world(console: Console, team: str) -> World:
    """A trained, evaluated version under review in production, its gate passed, nobody's vote
    cast.
    """
    return under_review(console, team)


@pytest.fixture(scope="package")
def quiet(console: Console) -> World:
    """The same, for all tests that leave it as it is."""
    return under_review(console, f"t{secrets.token_hex(4)}")


@pytest.fixture
def reviewer(console: Console) -> Person:
    """Somebody of compliance, with a key of their own."""
    return a_person(console.store, "reviewer", team="compliance")


def under_review(console: Console, team: str) -> World:
    """A world up to its open review."""
    made = a_world(console.store, console.blobs, team)
    train(made)
    evaluate(made, made.base.ref, 5)
    evaluate(made, made.versions[-1], 50)
    submit(made, made.versions[-1])
    return made


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """One headless Chromium for all tests; CI installs Debian's."""
    assert Path(CHROMIUM).exists(), f"{CHROMIUM} is missing: apt-get install chromium"
    expect.set_options(
        timeout=60_000
    )  # it ends a hang; a page is waited for as long as a busy machine takes
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


class Watched:
    """A browser page that remembers everything that went wrong on it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.troubles: list[str] = []
        page.on("console", lambda said: self._hear(said.type, said.text))
        page.on("pageerror", lambda error: self.troubles.append(f"{page.url}: {error}"))
        page.on(
            "dialog", lambda dialog: self.troubles.append(f"{page.url}: dialog {dialog.message}")
        )

    def _hear(self, kind: str, text: str) -> None:
        # A refusal answered by 4xx is meant; that Chromium calls it an error on its console is not
        # ours.
        if kind in ("error", "warning") and not re.match(
            r"Failed to load resource.*status of 4\d\d", text
        ):
            self.troubles.append(f"{self.page.url}: {text}")

    def sign_in(self, token: str) -> None:
        self.page.fill("#token", token)
        self.page.click("main button")
        self.page.wait_for_selector("nav.side", state="attached")


@pytest.fixture
def open_page(chromium: Browser, console: Console) -> Iterator[Callable[..., Watched]]:
    """Opens browser pages, each in a profile of its own; at the end none may have complained."""
    watched: list[Watched] = []

    def opened(width: int = 1440, scheme: str = "light", scripts: bool = True) -> Watched:
        context = chromium.new_context(
            base_url=console.url,
            viewport={"width": width, "height": 900},
            reduced_motion="reduce",
            color_scheme="dark" if scheme == "dark" else "light",
            java_script_enabled=scripts,
        )
        watched.append(Watched(context.new_page()))
        return watched[-1]

    yield opened
    troubles = [trouble for one in watched for trouble in one.troubles]
    for one in watched:
        one.page.context.close()
    assert troubles == []
