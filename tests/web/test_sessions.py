"""Signing in and out: where it leads, what the cookie may do, and when a session ends."""

from __future__ import annotations

from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import create_engine, text

from registry.callers import MAX_IDLE_TIME, MAX_SESSION_TIME
from tests.build import (
    Person,
)
from tests.web.conftest import Console, form_token


def test_whoever_is_not_signed_in_comes_back_to_the_page_after_signing_in(
    console: Console, reviewer: Person
) -> None:
    with httpx.Client(base_url=console.url) as client:
        asked = client.get("/reviews?state=all")
        assert asked.status_code == 303
        target = asked.headers["location"]
        assert parse_qs(urlsplit(target).query)["next"] == ["/reviews?state=all"]
        assert 'value="/reviews?state=all"' in client.get(target).text
        answer = client.post(
            "/login", data={"token": console.token(reviewer), "destination": "/reviews?state=all"}
        )
        assert answer.headers["location"] == "/reviews?state=all"
        assert client.get("/reviews?state=all").status_code == 200


@pytest.mark.parametrize(
    "elsewhere",
    [
        "https://evil.example/",
        "//evil.example",
        "/\\evil.example",
        "javascript:alert(1)",
        "/\t/evil.example",
    ],
)
def test_signing_in_never_leads_to_another_site(
    console: Console, reviewer: Person, elsewhere: str
) -> None:
    answer = httpx.post(
        console.url + "/login", data={"token": console.token(reviewer), "destination": elsewhere}
    )
    assert (answer.status_code, answer.headers["location"]) == (303, "/")


@pytest.mark.parametrize("token", ["", "nonsense", f"cs_{'0' * 12}_{'A' * 43}"])
def test_a_wrong_token_opens_nothing(console: Console, token: str) -> None:
    answer = httpx.post(console.url + "/login", data={"token": token})
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers
    assert 'role="alert"' in answer.text
    assert answer.headers["x-request-id"] in answer.text


def test_the_session_cookie_is_out_of_reach_of_scripts_and_other_sites(
    console: Console, reviewer: Person
) -> None:
    plain = (
        httpx.post(console.url + "/login", data={"token": console.token(reviewer)})
        .headers["set-cookie"]
        .lower()
    )
    assert "httponly" in plain
    assert "samesite=lax" in plain
    with TestClient(
        console.app, base_url="https://countersign.example", follow_redirects=False
    ) as client:
        sealed = client.post("/login", data={"token": console.token(reviewer)}).headers[
            "set-cookie"
        ]
    assert sealed.startswith("__Host-countersign=")
    assert "secure" in sealed.lower()
    assert "domain" not in sealed.lower()
    assert "path=/" in sealed.lower()


def test_signing_in_again_ends_the_former_session(console: Console, reviewer: Person) -> None:
    with console.signed_in(reviewer) as client:
        former = dict(client.cookies)
        client.post("/login", data={"token": console.token(reviewer)})
        assert dict(client.cookies) != former
        assert client.get("/reviews").status_code == 200
        assert httpx.get(console.url + "/reviews", cookies=former).status_code == 303


def test_signing_out_ends_the_session_on_the_server(console: Console, reviewer: Person) -> None:
    with console.signed_in(reviewer) as client:
        kept = dict(client.cookies)
        answer = client.post("/logout", data={"form_token": form_token(client, "/settings")})
        assert answer.headers["location"] == "/login"
    assert httpx.get(console.url + "/reviews", cookies=kept).status_code == 303


@pytest.mark.parametrize(
    ("column", "age"), [("seen_at", MAX_IDLE_TIME), ("created_at", MAX_SESSION_TIME)]
)
def test_a_session_ends_when_idle_and_at_last_in_any_case(
    console: Console, reviewer: Person, column: str, age: timedelta
) -> None:
    with console.signed_in(reviewer) as client:
        assert client.get("/reviews").status_code == 200
        assert console.settings.database_url is not None
        owner = create_engine(console.settings.database_url)
        with owner.begin() as connection:
            moved = text(
                f"update web_session set {column} = now() - cast(:age as interval) "
                "where token_id in (select id from token where account_id = :account)"
            )
            connection.execute(moved, {"age": age + timedelta(seconds=1), "account": reviewer.id})
        owner.dispose()
        answer = client.get("/reviews")
        assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=%2Freviews")
