"""Keeping and letting go in the console: what will happen is said first, what bars it too, and a
refusal keeps the words.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from datetime import timedelta

import httpx
import pytest
from playwright.sync_api import expect
from sqlalchemy import create_engine, text

from registry.commands import holds, retention, versions
from registry.queries import retention as kept
from registry.rules.actors import FRESH, SYSTEM
from tests.build import ADAPTER_META, World, a_person, a_world, adapter_files, register
from tests.web.conftest import Console, Watched, form_token

Open = Callable[..., Watched]


@pytest.fixture(scope="module")
def loose(console: Console) -> World:
    """A world of a team that keeps nothing for any time."""
    team = f"t{secrets.token_hex(4)}"
    retention.assign(
        console.store,
        a_person(console.store, "admin").actor,
        team,
        "short",
        "a team that tries things out",
    )
    return a_world(console.store, console.blobs, team)


def add(world: World, name: str, seed: int) -> str:
    """A registered adapter; the path of its page."""
    draft = versions.Draft(
        "adapter",
        f"{world.team}/{name}",
        adapter_files(world.blobs, seed),
        {**ADAPTER_META, "domain": "legal"},
        world.base.ref,
    )
    line, _, number = register(world.store, world.blobs, world.engineer.actor, draft).ref.partition(
        "@v"
    )
    return f"/adapters/{line}/v/{number}"


def ref_of(path: str) -> str:
    return path.removeprefix("/adapters/").replace("/v/", "@v")


def button(page: str, label: str) -> str:
    """The tag of a form's button."""
    found = re.search(rf"<button[^>]*>{label}", page)
    assert found is not None, label
    return found[0]


def post(client: httpx.Client, at: str, to: str, **fields: str) -> httpx.Response:
    return client.post(to, data={"form_token": form_token(client, at), **fields})


def test_a_version_is_deleted_on_its_page(console: Console, loose: World, open_page: Open) -> None:
    path = add(loose, "page", 41)
    hold = holds.place(console.store, loose.compliance.actor, ref_of(path), "Matter 1", "An order.")
    watched = open_page()
    page = watched.page
    page.goto(path)
    watched.sign_in(console.token(loose.engineer))
    page.goto(path)
    page.click("summary:has-text('Delete v1')")
    expect(page.get_by_role("button", name="Delete v1")).to_be_disabled()
    expect(page.locator(".barred").last).to_contain_text(
        f"Legal hold {hold.number} covers {ref_of(path)}"
    )
    expect(page.locator("main")).not_to_contain_text("Matter 1")
    holds.lift(console.store, loose.risk.actor, hold.number, "Settled.")

    page.reload()
    page.click("summary:has-text('Delete v1')")
    expect(page.locator("details[open]")).to_contain_text("no page or client gets its files again")
    page.fill("#delete-reason", "Nobody wants it.")
    page.click("button:has-text('Delete v1')")
    expect(page.locator("#trouble")).to_contain_text(f"Type {ref_of(path)} exactly")
    expect(page.locator("#delete-reason")).to_have_value("Nobody wants it.")
    page.fill("#delete-confirm", ref_of(path))
    page.click("button:has-text('Delete v1')")
    expect(page.locator(".done")).to_contain_text("Its tombstone stays")
    expect(page.locator(".trouble")).to_contain_text("Nobody wants it.")
    expect(page.get_by_role("button", name="Delete v1")).to_have_count(0)


def test_what_bars_a_deletion_is_said_before_and_refused_all_the_same(
    console: Console, loose: World
) -> None:
    path = add(loose, "barred", 42)
    base = f"/bases/{loose.team}/tiny/v/1"
    with console.signed_in(loose.engineer) as client:
        assert "disabled" not in button(client.get(path).text, "Delete v1")
        page = client.get(base).text
        assert "disabled" in button(page, "Delete v1")
        assert "It is still needed." in page
        answer = post(
            client, base, f"{base}/delete", reason="tidy", confirm=f"{loose.team}/tiny@v1"
        )
        assert (answer.status_code, "is derived from it" in answer.text) == (409, True)
        hold = holds.place(
            console.store, loose.compliance.actor, ref_of(path), "Matter 2", "An order."
        )
        for shown in (path, base):
            assert f"Legal hold {hold.number} covers" in client.get(shown).text
        answer = post(client, path, f"{path}/delete", reason="tidy", confirm=ref_of(path))
        assert (answer.status_code, f"Legal hold {hold.number} covers" in answer.text) == (
            409,
            True,
        )
        assert ">tidy</textarea>" in answer.text
        strict = a_world(console.store, console.blobs, f"t{secrets.token_hex(4)}")
    with console.signed_in(strict.engineer) as client:
        assert "It is kept until 20" in client.get(add(strict, "kept", 43)).text
    for role in ("admin", "reviewer", "auditor"):
        with console.signed_in(a_person(console.store, role, team=loose.team)) as client:
            page = client.get(path).text
            assert "Needs the role engineer." in page
            answer = post(client, path, f"{path}/delete", reason="tidy", confirm=ref_of(path))
            assert (answer.status_code, "needs the role engineer" in answer.text) == (403, True)
    assert kept.keeping(console.store, SYSTEM, ref_of(path)).tombstone is None


def test_a_hold_is_lifted_by_another_reviewer_and_says_what_that_frees(
    console: Console, loose: World
) -> None:
    path = add(loose, "lifted", 44)
    hold = holds.place(console.store, loose.compliance.actor, ref_of(path), "Matter 3", "An order.")
    at, to = f"/retention?lift={hold.number}", f"/retention/holds/{hold.number}/lift"
    with console.signed_in(loose.compliance) as client:
        page = client.get(at).text
        assert "You placed this hold, so another reviewer must lift it." in page
        assert "disabled" in button(page, f"Lift hold {hold.number}")
        assert post(client, at, to, reason="Settled.").status_code == 409
    with console.signed_in(loose.engineer) as client:
        page = client.get("/retention").text
        assert "Matter 3" not in page
        assert "(withheld)" in page
        assert post(client, at, to, reason="Settled.").status_code == 403
    with console.signed_in(loose.risk) as client:
        assert f'href="/retention?lift={hold.number}#lift"' in client.get("/retention").text
        page = client.get(at).text
        assert f"What it covers ({ref_of(path)}) may be deleted again" in page
        assert "disabled" not in button(page, f"Lift hold {hold.number}")
        assert post(client, at, to, reason=" ").status_code == 422
        assert (
            post(client, at, to, reason="Settled.").headers["location"] == "/retention?done=lifted"
        )
        assert "already-lifted" not in client.get("/retention").text
        again = post(client, at, to, reason="Settled.")
        assert (again.status_code, "was lifted already" in again.text) == (409, True)
        assert (
            post(client, at, "/retention/holds/999999/lift", reason="Settled.").status_code == 404
        )


def test_a_class_is_set_on_the_page(console: Console, loose: World) -> None:
    at, to = f"/retention?name={loose.team}/classed", "/retention/settings"
    fields = {
        "name": f"{loose.team}/classed",
        "retention": "medical-6y",
        "reason": "It reads letters.",
    }
    with console.signed_in(loose.engineer) as client:
        assert f'value="{loose.team}/classed"' in client.get(at).text
        assert post(client, at, to, **fields).headers["location"] == "/retention?done=classed"
        shorter = post(client, at, to, **{**fields, "retention": "short"})
        assert (shorter.status_code, "ask an administrator" in shorter.text) == (409, True)
        assert "<option selected>short</option>" in shorter.text
        assert post(client, at, to, **{**fields, "retention": "none-such"}).status_code == 404
        assert post(client, at, to, **{**fields, "name": "Not A Name"}).status_code == 422
        assert (
            f'href="/retention?name={loose.team}/tiny"'
            in client.get(f"/bases/{loose.team}/tiny").text
        )
        page = client.get(add(loose, "classed", 45)).text
        assert "Retention class medical-6y" in page
        assert "It is kept until 20" in page
    with console.signed_in(loose.risk) as client:
        assert "Needs the role admin or engineer." in client.get(at).text
        assert post(client, at, to, **fields).status_code == 403


def test_deleting_and_lifting_ask_for_a_fresh_sign_in(console: Console, loose: World) -> None:
    path = add(loose, "stale", 46)
    hold = holds.place(console.store, loose.compliance.actor, ref_of(path), "Matter 4", "An order.")
    assert console.settings.database_url is not None
    for person, at, to, fields in (
        (loose.risk, "/retention", f"/retention/holds/{hold.number}/lift", {}),
        (loose.engineer, path, f"{path}/delete", {"confirm": ref_of(path)}),
    ):
        with console.signed_in(person) as client:
            token = form_token(client, at)
            owner = create_engine(console.settings.database_url)
            with owner.begin() as connection:
                connection.execute(
                    text("alter table token disable trigger user"),
                )
                connection.execute(
                    text(
                        "update token set created_at = created_at - cast(:age as interval) where "
                        "account_id = :who"
                    ),
                    {"age": FRESH + timedelta(minutes=1), "who": person.id},
                )
                connection.execute(text("alter table token enable trigger user"))
            owner.dispose()
            answer = client.post(to, data={"form_token": token, "reason": "try", **fields})
            assert answer.status_code == 401, answer.text
            assert "Sign in again with a new token" in answer.text
            assert ">try</textarea>" in answer.text
    assert kept.keeping(console.store, SYSTEM, ref_of(path)).holds == [hold.number]
