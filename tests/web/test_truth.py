"""The console says what is so: against what serves, in every review, in the log, on paper."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import httpx

from registry.commands import recalls, rollouts, work
from registry.commands import reviews as review_commands
from registry.commands import training_runs as training
from registry.queries import audit as log
from registry.queries import reviews as asked
from registry.queries import standings
from registry.rules.actors import SYSTEM
from tests.build import (
    ADAPTER_META,
    RECIPE,
    Person,
    World,
    a_person,
    a_world,
    approved,
    evaluate,
    put,
    register_rows,
    submit,
    train,
    vote,
)
from tests.web.conftest import Console, Watched, form_token, under_review

HTML = {"accept": "text/html"}


def served(world: World, ref: str) -> None:
    """Start and promote a version in production."""
    engineer, line = world.engineer.actor, ref.partition("@")[0]
    rollouts.start(world.store, engineer, rollouts.Canary(ref, "production", None, 500, "begin"))
    rollouts.promote(world.store, engineer, rollouts.Place(line, "production", None), "it is good")


def contender(world: World, right: int, seed: int = 30) -> str:
    """A further version of the line, evaluated and submitted."""
    train(world, seed=seed)
    ref = world.versions[-1]
    evaluate(world, ref, right)
    submit(world, ref)
    return ref


def test_a_version_worse_than_what_serves_is_red_on_its_page_and_in_the_queue(
    console: Console, team: str, reviewer: Person
) -> None:
    world = a_world(console.store, console.blobs, team)
    serving = approved(world)
    served(world, serving)
    contender(world, 30)
    with console.signed_in(reviewer) as client:
        page = client.get(f"/reviews/{world.review}").text
        card = page[page.index('id="standing"') : page.index('id="evidence"')]
        assert f">{serving.partition('@')[2]}</a>" in card
        assert re.search(r'<span class="bad">−[0-9.]+ pt</span>', card), card
        assert "items only v" in card
        tile = page[page.index("Against what serves") :][:200]
        assert 'class="bad"' in tile
        queue = client.get("/reviews?state=open").text
        row = queue[queue.index(f'href="/reviews/{world.review}"') :].partition("</tr>")[0]
        assert re.search(r'<span class="bad">−[0-9.]+ pt</span>', row)


def test_where_nothing_was_measured_the_review_says_so(
    console: Console, team: str, reviewer: Person
) -> None:
    world = a_world(console.store, console.blobs, team)
    served(world, approved(world))
    train(world, seed=30)
    submit(world, world.versions[-1])
    with console.signed_in(reviewer) as client:
        page = client.get(f"/reviews/{world.review}").text
    assert "Not evaluated on this suite." in page
    assert f"{world.versions[-1]} was not evaluated on {team}/suite@v1." in page


def test_the_base_is_named_where_the_base_serves(console: Console, team: str) -> None:
    world = a_world(console.store, console.blobs, team)
    first = approved(world)
    served(world, first)
    rollouts.roll_back(
        console.store,
        world.engineer.actor,
        rollouts.Place(f"{team}/adapter", "production", None),
        "a complaint",
    )
    contender(world, 50)
    [view] = standings.standings(console.store, SYSTEM, world.review)
    assert (view.kind, view.serves) == ("base", world.base.ref)
    assert view.gain is not None and view.gain > 0


def test_standings_keep_to_the_teams_that_one_sees(console: Console, quiet: World) -> None:
    stranger = a_person(console.store, "engineer", team="elsewhere").actor
    assert standings.standings(console.store, stranger, quiet.review) == []
    assert standings.changes(console.store, stranger, [quiet.review]) == {}


def test_the_review_says_what_it_is_for_and_what_it_was_made_from(
    console: Console, quiet: World, reviewer: Person
) -> None:
    with console.signed_in(reviewer) as client:
        page = client.get(f"/reviews/{quiet.review}").text
        for words in ("Risk tier", "Limited", "Legal basis", "own work", "Personal data", "1 year"):
            assert words in page, words
        for path in (
            f"/use-cases/{quiet.team}/case",
            f"/datasets/{quiet.team}/rows/v/1",
            f"/suites/{quiet.team}/suite/v/1",
            f"/bases/{quiet.team}/tiny/v/1",
        ):
            assert f'href="{path}"' in page, path
            if not path.startswith("/usecases"):
                assert client.get(path).status_code == 200, path
        policy = re.search(r'href="/policies#(production-v\d+)"', page)
        assert policy is not None
        assert f'id="{policy[1]}"' in client.get("/policies").text
        assert "Text of the policy" in page


def test_every_review_of_a_version_is_on_its_page_and_its_lines(
    console: Console, team: str
) -> None:
    world = under_review(console, team)
    ref = world.versions[-1]
    with console.signed_in(world.engineer) as client:
        path = f"/adapters/{team}/adapter/v/2"
        assert "countersign submit" not in client.get(path).text
        vote(world, world.compliance, "reject")
        page = client.get(path).text
        assert f'<a href="/reviews/{world.review}">Review {world.review}</a> for production' in page
        assert "Its last review was rejected. Submit it again" in page
        line = client.get(f"/adapters/{team}/adapter").text
        assert "Rejected" in line
        submit(world, ref)
        review_commands.withdraw(
            console.store, world.engineer.actor, world.review, "a slip of mine"
        )
        page = client.get(f"/reviews/{world.review}").text
        assert "a slip of mine" in page
        assert client.get(path).text.count("Review ") >= 2


def test_a_recall_ends_the_open_review_and_shows_on_it(console: Console, team: str) -> None:
    world = under_review(console, team)
    recalls.recall(console.store, world.engineer.actor, world.base.ref, "its licence was withdrawn")
    with console.signed_in(world.compliance) as client:
        page = client.get(f"/reviews/{world.review}").text
        assert "is recalled." in page
        assert "its licence was withdrawn" in page
        assert "Sign decision" not in page
        assert f'href="/reviews/{world.review}"' not in client.get("/reviews?state=open").text


def test_the_log_gives_reasons_in_words_to_those_who_may_read_them(
    console: Console, team: str, reviewer: Person
) -> None:
    world = under_review(console, team)
    review_commands.withdraw(
        console.store, world.engineer.actor, world.review, "wrong data, found by hand"
    )
    subject = f"review:{world.review}"
    with console.signed_in(world.engineer) as client:
        page = client.get(f"/audit?subject={subject}").text
        assert "wrong data, found by hand" in page
        assert "Entries of other teams are hidden" in page
        assert client.get(f"/audit?subject={team}/rows@v1").text.count("dataset:register") > 0
    stranger = a_person(console.store, "engineer", team="elsewhere")
    assert log.events(console.store, stranger.actor, subject=subject).items == []
    auditor = a_person(console.store, "auditor", team=None)
    with console.signed_in(auditor) as client:
        assert "are hidden" not in client.get("/audit").text
    with console.store.upkeep("test") as session:
        from sqlalchemy import text

        session.execute(text("delete from personal where value = 'wrong data, found by hand'"))
    reasons = [event.reason for event in log.events(console.store, SYSTEM, subject=subject).items]
    assert "(erased)" in reasons


def test_the_future_is_not_answered(console: Console, reviewer: Person) -> None:
    ahead = (datetime.now(UTC) + timedelta(days=400)).strftime("%Y-%m-%dT%H:%M:%S")
    with console.signed_in(reviewer) as client:
        answer = client.get(f"/audit/as-of?at={ahead}")
        assert answer.status_code == 422
        assert "is in the future" in answer.text
        assert "ordered to serve" in client.get("/audit/as-of").text.lower()


def test_people_get_pages_and_programs_get_json(console: Console, quiet: World) -> None:
    with console.signed_in(quiet.engineer) as client:
        for path in ("/nowhere", "/audit/77", "/people"):
            page = client.get(path, headers=HTML)
            assert page.status_code == 404
            assert page.headers["content-type"].startswith("text/html")
            assert "<h1>No such page</h1>" in page.text
            assert client.get(path, headers={"accept": "*/*"}).headers["content-type"] == (
                "application/problem+json"
            )
        assert client.get("/api/v1/nowhere", headers=HTML).headers["content-type"] == (
            "application/problem+json"
        )
        channel = f"/deployments/production/{quiet.team}/adapter/production"
        for form, page_path in (
            (f"/reviews/{quiet.review}/decision", f"/reviews/{quiet.review}"),
            (f"{channel}/rollback", channel),
            ("/retention/holds/1/lift", "/retention"),
            ("/settings/keys", "/settings"),
            ("/logout", "/"),
        ):
            answer = client.get(form, headers=HTML)
            assert (answer.status_code, answer.headers["location"]) == (303, page_path)
        unfit = client.post("/nowhere", headers=HTML)
        assert unfit.status_code in (404, 405)
        assert "<h1>" in unfit.text


def test_what_was_typed_survives_the_end_of_the_session(console: Console, team: str) -> None:
    world = a_world(console.store, console.blobs, team)
    served(world, approved(world))
    path = f"/deployments/production/{team}/adapter/production"
    with console.signed_in(world.engineer) as client:
        fields = {"form_token": form_token(client, path), "reason": "Complaint <5512> & more"}
        client.cookies.clear()
        lost = client.post(f"{path}/rollback", data=fields)
        assert lost.status_code == 401
        assert "Your session has ended" in lost.text
        assert 'name="typed:reason" value="Complaint &lt;5512&gt; &amp; more"' in lost.text
        assert fields["form_token"] not in lost.text
        kept = {"destination": path, "form": f"{path}/rollback", "typed:reason": fields["reason"]}
        wrong = client.post("/login", data={**kept, "token": "nonsense"})
        assert wrong.status_code == 401
        assert 'name="typed:reason"' in wrong.text
        shown = client.post("/login", data={**kept, "token": console.token(world.engineer)})
        assert shown.status_code == 200
        assert f'action="{path}/rollback"' in shown.text
        assert "Complaint &lt;5512&gt; &amp; more</textarea>" in shown.text
        token = re.search(r'name="form_token" value="([^"]+)"', shown.text)
        assert token is not None
        done = client.post(
            f"{path}/rollback", data={"form_token": token[1], "reason": fields["reason"]}
        )
        assert done.headers["location"] == f"{path}?done=rolled-back"
        page = client.get(done.headers["location"]).text
        assert "was ordered to serve the whole channel at" in page
        foreign = client.post(
            "/login",
            data={**kept, "form": "https://evil.example/x", "token": console.token(world.engineer)},
        )
        assert "evil.example" not in foreign.text


def test_rollback_is_within_reach_of_a_thumb(
    console: Console, team: str, open_page: Callable[..., Watched]
) -> None:
    world = a_world(console.store, console.blobs, team)
    served(world, approved(world))
    watched = open_page(width=390)
    page = watched.page
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto("/login")
    watched.sign_in(console.token(world.engineer))
    page.goto(f"/deployments/production/{team}/adapter/production")
    box = page.locator("#rollback button").bounding_box()
    assert box is not None
    assert box["y"] + box["height"] < 600, box


def test_paper_has_absolute_times_and_says_where_it_came_from(
    console: Console, quiet: World, reviewer: Person, open_page: Callable[..., Watched]
) -> None:
    watched = open_page()
    page = watched.page
    page.goto("/login")
    watched.sign_in(console.token(reviewer))
    page.goto(f"/reviews/{quiet.review}")
    assert not page.locator(".printed").is_visible()
    page.emulate_media(media="print")
    stamp = page.evaluate(
        "getComputedStyle(document.querySelector('.head time'), '::after').content"
    )
    assert re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", stamp)
    assert page.evaluate("getComputedStyle(document.querySelector('.head time')).fontSize") == "0px"
    printed = page.locator(".printed").inner_text()
    assert f"/reviews/{quiet.review}" in printed
    assert "UTC" in printed


def test_a_recall_with_one_word_is_refused_beside_its_form(console: Console, team: str) -> None:
    world = a_world(console.store, console.blobs, team)
    train(world)
    path = f"/adapters/{team}/adapter/v/1"
    with console.signed_in(world.engineer) as client:
        fields = {
            "form_token": form_token(client, path),
            "confirm": world.versions[0],
            "reason": "bad",
        }
        answer = client.post(f"{path}/recall", data=fields)
    assert answer.status_code == 422
    assert "10 to 4000 characters" in answer.text


def test_a_running_run_has_a_curve_and_a_failed_one_says_why(console: Console, team: str) -> None:
    world = a_world(console.store, console.blobs, team)
    request = training.TrainingRequest(
        f"{team}/adapter", world.base.ref, world.dataset.ref, RECIPE, "legal", ADAPTER_META
    )
    run = training.queue(console.store, console.blobs, world.engineer.actor, request)
    trainer = world.trainer.actor
    taken = work.lease(console.store, trainer, work.Worker("test worker"), 60)
    assert taken == (run, 1)
    with console.signed_in(world.engineer) as client:
        path = f"/runs/training/{run}"
        assert "polyline" not in client.get(path).text
        for step, loss in ((1, 2.5), (2, 1.25), (3, 0.75)):
            work.beat(
                console.store, trainer, run, work.Heartbeat(1, {"step": step, "loss": loss}, 60)
            )
        page = client.get(path).text
        assert "from 2.5 to 0.75 at step 3" in page
        assert f'data-live="{path}/progress"' in page
        part = client.get(f"{path}/progress")
        assert "polyline" in part.text
        assert "<html" not in part.text
        assert "x-ended" not in part.headers
        error = "512 training rows are longer than 8 tokens. Raise max_length."
        work.fail(console.store, trainer, run, 1, error)
        assert error in client.get(path).text
        assert client.get(f"{path}/progress").headers["x-ended"] == "1"
        assert "512 training rows" in client.get("/runs?state=failed").text
        assert client.get(f"/find?q={str(run)[:8]}").headers["location"] == path
    stranger = a_person(console.store, "engineer", team="elsewhere")
    with console.signed_in(stranger) as client:
        assert client.get(path).status_code == 404


def test_a_draft_says_what_it_lacks_on_a_page_of_its_own(console: Console, team: str) -> None:
    world = a_world(console.store, console.blobs, team)
    rows = b'{"prompt": "a", "completion": "b", "split": "train"}\n'
    file = put(console.blobs, "rows.jsonl", rows)
    draft = register_rows(
        console.store,
        console.blobs,
        world.engineer.actor,
        f"{team}/more",
        file.sha256,
        file.size,
        {"source": "made for a test"},
    )
    assert draft.status == "draft"
    with console.signed_in(world.engineer) as client:
        path = f"/datasets/{team}/more?draft={draft.ref.rpartition('-')[2]}"
        assert f'href="{path}"' in client.get(f"/datasets?q={team}").text
        page = client.get(path).text
        assert "Licence is missing" in page
        assert "Give licence in the meta file" in page


def test_what_the_console_prints_can_be_found_again(console: Console, quiet: World) -> None:
    with console.signed_in(quiet.engineer) as client:

        def leads(text: str) -> str:
            answer: httpx.Response = client.get("/find", params={"q": text})
            assert answer.status_code == 303, answer.text
            return answer.headers["location"]

        review = asked.review(console.store, SYSTEM, quiet.review)
        manifest = review.evidence["subject"]["manifest_digest"]
        version = f"/adapters/{quiet.team}/adapter/v/2"
        bare = manifest.removeprefix("sha256:")
        for text in (manifest, bare, bare[:8], f"sha256:{bare[:6]}…{bare[-4:]}"):
            assert leads(text) == version, text
        data = review.evidence["datasets"][0]["record_root"].removeprefix("sha256:")
        assert leads(f"sha256:{data[:6]}…{data[-4:]}") == f"/datasets/{quiet.team}/rows/v/1"
        assert leads(review.evidence_root[7:19]) == f"/reviews/{quiet.review}"
        assert leads(f"{quiet.team}/rows@v1") == f"/datasets/{quiet.team}/rows/v/1"
        assert leads(f"{quiet.team}/suite") == f"/suites/{quiet.team}/suite/v/1"
        assert leads(f"{quiet.team}/case") == f"/use-cases/{quiet.team}/case"
        run = review.evidence["runs"]["adapter"]["succeeded"][0]["run"]
        assert leads(run) == f"/runs/eval/{run}"
        assert quiet.compliance.key is not None
        key = quiet.compliance.key.id
        assert leads(key[:12]) == f"/audit?subject=key%3A{key}"
    stranger = a_person(console.store, "engineer", team="elsewhere")
    with console.signed_in(stranger) as client:
        assert leads_nowhere(client, manifest)


def leads_nowhere(client: httpx.Client, text: str) -> bool:
    return client.get("/find", params={"q": text}).headers["location"].startswith("/search?")
