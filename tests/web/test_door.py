"""The console's door over plain HTTP: headers, sessions, forged forms, and what never gets
through.
"""

from __future__ import annotations

import json
import re
import secrets

import httpx
import pytest

from registry.commands import reviews as review_commands
from registry.commands import versions
from registry.queries import reviews, rollouts
from registry.rules.actors import SYSTEM
from registry.rules.reviews import commitment
from registry.web import assets
from registry.web.headers import HEADERS
from tests.build import (
    ADAPTER_META,
    MODULE,
    Person,
    World,
    a_person,
    a_world,
    approved,
    evaluate,
    put,
    register,
    safetensors,
    train,
    vote,
)
from tests.web.conftest import Console, form_token

ANYWHERE = [
    "/",
    "/login",
    "/reviews",
    "/reviews/1",
    "/adapters",
    "/deployments",
    "/audit",
    "/settings",
    "/find?q=1",
    "/nowhere",
    "/healthz",
    "/api/v1/me",
    "/static/app.js",
    "/static/nothing.js",
    "/reviews/%00",
]


ATTACK = """</textarea><script>document.title='owned'</script><img src=x onerror="alert(1)">"""


@pytest.mark.parametrize("path", ANYWHERE)
def test_every_answer_says_what_a_browser_may_do_with_it(console: Console, path: str) -> None:
    answer = httpx.get(console.url + path)
    assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS
    directives = {
        part.split()[0]: part.split()[1:]
        for part in answer.headers["content-security-policy"].split("; ")
    }
    assert directives["default-src"] == ["'none'"]
    assert directives["script-src"] == directives["style-src"] == ["'self'"]
    assert directives["frame-ancestors"] == directives["base-uri"] == ["'none'"]


def test_pages_hold_no_inline_script_or_style(
    console: Console, quiet: World, reviewer: Person
) -> None:
    with console.signed_in(reviewer) as client:
        for path in (
            f"/reviews/{quiet.review}",
            "/settings",
            "/adapters",
            f"/adapters/{quiet.team}/adapter/v/1",
        ):
            page = client.get(path).text
            assert (
                re.findall(r"<script(?! src=)|<style|\sstyle=|\son[a-z]+=|javascript:", page) == []
            )


def forms(world: World) -> dict[str, dict[str, str]]:
    """Every form that changes something, filled as a browser would."""
    channel = f"/deployments/production/{world.team}/adapter/production"
    return {
        f"/reviews/{world.review}/decision": {
            "verdict": "reject",
            "reason": "It is not good enough.",
        },
        f"{channel}/canary": {"ref": world.versions[-1], "percent": "5", "reason": "try"},
        f"{channel}/promote": {"reason": "try"},
        f"{channel}/rollback": {"reason": "try"},
        f"/adapters/{world.team}/adapter/v/2/deprecate": {
            "reason": "try",
            "confirm": world.versions[-1],
        },
        f"/adapters/{world.team}/adapter/v/2/recall": {
            "reason": "try",
            "confirm": world.versions[-1],
        },
        f"/adapters/{world.team}/adapter/v/2/delete": {
            "reason": "try",
            "confirm": world.versions[-1],
        },
        "/retention/holds": {"over": f"{world.team}/adapter", "case": "Matter 1", "reason": "try"},
        "/retention/holds/1/lift": {"reason": "try"},
        "/retention/settings": {"name": world.team, "retention": "standard", "reason": "try"},
        "/settings/keys": {"label": "x", "public_key": "x", "proof": "x"},
        "/settings/theme": {"theme": "dark"},
        f"/adapters/{world.team}/adapter/v/1/tags": {"key": "topic", "value": "x"},
        "/logout": {},
    }


def test_no_form_acts_without_its_token_or_for_another_site(console: Console, quiet: World) -> None:
    both = a_person(console.store, "reviewer", "engineer", team=quiet.team)
    other = a_person(console.store, "reviewer", team="risk")
    with console.signed_in(both) as client, console.signed_in(other) as stranger:
        ours, theirs = form_token(client, "/settings"), form_token(stranger, "/settings")
        tries: list[tuple[str, dict[str, str]]] = [
            ("", {}),
            (theirs, {}),
            (ours, {"origin": "https://evil.example"}),
            (ours, {"origin": "null"}),
            (ours, {"sec-fetch-site": "cross-site"}),
            (ours, {"sec-fetch-site": "same-site"}),
        ]
        for path, fields in forms(quiet).items():
            for token, headers in tries:
                answer = client.post(path, data=fields | {"form_token": token}, headers=headers)
                assert answer.status_code == 403, (path, headers)
                assert "nothing was done" in answer.text
        assert client.get("/reviews").status_code == 200
    assert reviews.review(console.store, SYSTEM, quiet.review).votes == []


def test_the_forms_listed_here_are_all_there_are(console: Console, quiet: World) -> None:
    from registry.web import accounts, audit, retention, rollouts, versions
    from registry.web import reviews as review_pages

    known = [
        re.compile(re.sub(r"\{[a-z]+\}", "[^/]+", route.path))
        for room in (accounts, audit, retention, review_pages, rollouts, versions)
        for route in room.router.routes
        if "POST" in getattr(route, "methods", ()) and route.path != "/login"
    ]
    covered = {pattern for pattern in known for path in forms(quiet) if pattern.fullmatch(path)}
    missing = {pattern.pattern for pattern in known} - {pattern.pattern for pattern in covered}
    # Deprecate, recall, delete and tags are one handler each, mounted for each kind of line.
    assert missing == {
        f"/{shelf}/[^/]+/[^/]+/v/[^/]+/{act}"
        for shelf in ("checkpoints", "bases")
        for act in ("deprecate", "recall", "delete", "tags")
    }


def test_an_oversized_form_is_refused_before_it_is_read(console: Console, reviewer: Person) -> None:
    with console.signed_in(reviewer) as client:
        fields = {"form_token": form_token(client, "/settings"), "label": "x" * 200_000}
        assert client.post("/settings/keys", data=fields).status_code == 413


def test_what_others_wrote_stays_text(console: Console, team: str, reviewer: Person) -> None:
    world = a_world(console.store, console.blobs, team)
    train(world)
    evaluate(world, world.base.ref, 5)
    evaluate(world, world.versions[-1], 50)
    opened = review_commands.submit(
        console.store,
        console.blobs,
        world.engineer.actor,
        review_commands.Submission(world.versions[-1], "production", world.use_case, ATTACK),
    )
    with console.signed_in(reviewer) as client:
        path = f"/reviews/{opened.review}"
        shown = client.get(path).text
        assert "<script>document" not in shown
        assert "&lt;script&gt;document" in shown
        fields = {"form_token": form_token(client, path), "verdict": "approve", "reason": ATTACK}
        again = client.post(f"{path}/decision", data=fields)
        assert again.status_code == 422
        assert "<script>document" not in again.text
        assert again.text.count("&lt;/textarea&gt;") >= 2


@pytest.mark.parametrize(
    ("verdict", "reason", "said"),
    [
        ("", "It reads well to me.", "Choose an outcome."),
        ("perhaps", "It reads well to me.", "Choose an outcome."),
        ("approve", "", "Write at least one sentence."),
        ("approve", "ok", "Write at least one sentence."),
        ("approve", "It reads well to me.", "not signed yet"),
    ],
)
def test_an_incomplete_decision_comes_back_with_its_words(
    console: Console, quiet: World, reviewer: Person, verdict: str, reason: str, said: str
) -> None:
    with console.signed_in(reviewer) as client:
        path = f"/reviews/{quiet.review}"
        fields = {"form_token": form_token(client, path), "verdict": verdict, "reason": reason}
        answer = client.post(f"{path}/decision", data=fields)
    assert answer.status_code == 422
    assert said in answer.text
    assert f">{reason}</textarea>" in answer.text
    assert reviews.review(console.store, SYSTEM, quiet.review).votes == []


def test_a_signature_that_is_not_theirs_is_refused_beside_the_form(
    console: Console, quiet: World
) -> None:
    draft = reviews.draft(console.store, quiet.compliance.actor, quiet.review).decision
    assert quiet.compliance.key is not None
    assert quiet.risk.key is not None
    salt, reason = secrets.token_bytes(16), "It reads well to me."
    decision = {**draft, "verdict": "approve", "reason_commitment": commitment(salt, reason)}
    _, signature = quiet.risk.key.sign_document(decision, "decision")
    with console.signed_in(quiet.compliance) as client:
        path = f"/reviews/{quiet.review}"
        fields = {
            "form_token": form_token(client, path),
            "verdict": "approve",
            "reason": reason,
            "salt": salt.hex(),
            "decision": json.dumps(decision),
            "key": quiet.compliance.key.id,
            "signature": signature,
        }
        answer = client.post(f"{path}/decision", data=fields)
        assert answer.status_code == 422
        assert "The signature is not over this decision" in answer.text
        assert answer.headers["x-request-id"] in answer.text
        whole = client.post(f"{path}/decision", data=fields | {"decision": "[]"})
        assert "did not arrive whole" in whole.text
    assert reviews.review(console.store, SYSTEM, quiet.review).votes == []


def test_a_missing_role_is_named_and_its_button_stays(console: Console, team: str) -> None:
    world = a_world(console.store, console.blobs, team)
    approved(world)
    with console.signed_in(world.compliance) as client:
        path = f"/deployments/production/{team}/adapter/production"
        page = client.get(path).text
        assert "Needs the role engineer." in page
        assert re.search(r"<button[^>]* disabled>Start canary", page)
        fields = {
            "form_token": form_token(client, path),
            "ref": world.versions[-1],
            "percent": "5",
            "reason": "try",
        }
        answer = client.post(f"{path}/canary", data=fields)
        assert answer.status_code == 403
        assert "needs the role engineer" in answer.text
    assert rollouts.channels(console.store, world.engineer.actor) == []


def test_a_share_that_cannot_be_served_is_refused(console: Console, team: str) -> None:
    world = a_world(console.store, console.blobs, team)
    approved(world)
    with console.signed_in(world.engineer) as client:
        path = f"/deployments/production/{team}/adapter/production"
        fields = {
            "form_token": form_token(client, path),
            "ref": world.versions[-1],
            "reason": "try",
        }
        for percent in ("", "0", "101", "x", "-1", "1e999", "0.001", "nan", "inf"):
            answer = client.post(f"{path}/canary", data=fields | {"percent": percent})
            assert answer.status_code == 422, percent
            assert f'value="{percent}"' in answer.text
        for reason in ("", "   ", "a\0b"):
            answer = client.post(f"{path}/canary", data=fields | {"percent": "5", "reason": reason})
            assert answer.status_code == 422, reason
    assert rollouts.channels(console.store, world.engineer.actor) == []


def test_another_teams_things_are_not_found(console: Console, quiet: World) -> None:
    stranger = a_person(console.store, "engineer", team=f"x{quiet.team}")
    with console.signed_in(stranger) as client:
        for path in (
            f"/reviews/{quiet.review}",
            f"/adapters/{quiet.team}/adapter",
            f"/bases/{quiet.team}/tiny/v/1",
            f"/adapters/{quiet.team}/adapter/v/2",
        ):
            assert client.get(path).status_code == 404, path
        assert quiet.team not in client.get("/adapters").text


def test_the_find_box_goes_straight_to_what_is_named(console: Console, quiet: World) -> None:
    with console.signed_in(quiet.engineer) as client:

        def to(query: str) -> str:
            return client.get("/find", params={"q": query}).headers["location"]

        assert to(str(quiet.review)) == f"/reviews/{quiet.review}"
        assert to(quiet.versions[-1]) == f"/adapters/{quiet.team}/adapter/v/2"
        assert to(quiet.base.digest) == f"/bases/{quiet.team}/tiny/v/1"
        assert to("no such thing") == "/search?q=no+such+thing"
        assert to("no/such@v9") == "/search?q=no%2Fsuch%40v9"


def test_the_log_is_read_in_pages_without_a_gap(console: Console, quiet: World) -> None:
    auditor = a_person(console.store, "auditor", team="audit")
    console.sequence()
    with console.signed_in(auditor) as client:
        seen: list[str] = []
        path = "/audit"
        for _ in range(3):
            page = client.get(path).text
            seen += re.findall(r'title="leaf (sha256:[0-9a-f]{64})"', page)
            older = re.search(r'href="([^"]+)" rel="next"', page)
            if older is None:
                break
            path = older[1].replace("&amp;", "&")
        assert len(seen) == len(set(seen))
        assert len(seen) > 50
        assert "entries</strong> under the tree head" in page


def test_a_moment_that_is_none_is_said_so(console: Console, reviewer: Person) -> None:
    with console.signed_in(reviewer) as client:
        answer = client.get("/audit/as-of", params={"at": "yesterday"})
        assert answer.status_code == 422
        assert "is not a date and time" in answer.text
        assert client.get("/audit?cursor=nonsense").status_code == 422


def test_everybody_starts_where_their_work_lies(console: Console) -> None:
    for role, start in (("reviewer", "/reviews"), ("auditor", "/audit"), ("engineer", "/adapters")):
        with console.signed_in(a_person(console.store, role, team="starters")) as client:
            assert client.get("/").headers["location"] == start


def test_colours_are_remembered_and_nothing_else_is_taken(
    console: Console, reviewer: Person
) -> None:
    with console.signed_in(reviewer) as client:
        token = form_token(client, "/settings")
        client.post("/settings/theme", data={"form_token": token, "theme": "dark"})
        assert '<html lang="en" data-theme="dark">' in client.get("/settings").text
        client.post("/settings/theme", data={"form_token": token, "theme": '"><script>'})
        assert '<html lang="en">' in client.get("/settings").text


def test_assets_are_named_by_their_content_and_may_be_kept(console: Console) -> None:
    for name, known in assets.ASSETS.items():
        answer = httpx.get(console.url + assets.address(name))
        assert answer.content == known.plain
        assert "immutable" in answer.headers["cache-control"]
        raw = httpx.get(console.url + assets.address(name), headers={"accept-encoding": "identity"})
        assert "content-encoding" not in raw.headers
    assert httpx.get(console.url + "/static/..%2fpages.py").status_code == 404


def test_a_second_vote_is_barred_before_it_is_written(console: Console, world: World) -> None:
    vote(world, world.compliance)
    with console.signed_in(world.compliance) as client:
        assert (
            "You have voted. A vote never changes." in client.get(f"/reviews/{world.review}").text
        )


def test_a_version_that_replaces_parts_of_its_base_says_so(console: Console, quiet: World) -> None:
    tensors = {
        f"base_model.model.{MODULE}.lora_A.weight": (2, 8),
        f"base_model.model.{MODULE}.lora_B.weight": (8, 2),
        "base_model.model.model.norm.weight": (8,),
    }
    config = {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 4,
        "target_modules": ["q_proj"],
        "modules_to_save": ["model.norm"],
    }
    files = [
        put(console.blobs, "adapter_model.safetensors", safetensors(tensors)),
        put(console.blobs, "adapter_config.json", json.dumps(config).encode()),
    ]
    draft = versions.Draft(
        "adapter", f"{quiet.team}/risky", files, ADAPTER_META, quiet.base.ref, "legal"
    )
    register(console.store, console.blobs, quiet.engineer.actor, draft)
    with console.signed_in(quiet.engineer) as client:
        page = client.get(f"/adapters/{quiet.team}/risky/v/1").text
        assert (
            "<strong>Risk.</strong> High: it replaces the base&#39;s whole model.norm "
            "(modules_to_save)" in page
        )
        assert (
            "<strong>Risk.</strong>" not in client.get(f"/adapters/{quiet.team}/adapter/v/1").text
        )
