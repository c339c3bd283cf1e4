"""Every page of the console: accessible, fitting, light, and breaking no rule of its own."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe

from registry.commands import (
    deletions,
    holds,
    profiles,
    quotas,
    retention,
    rollouts,
    tags,
    versions,
    work,
)
from registry.commands.training_runs import TrainingRequest, queue
from registry.queries import evals
from registry.rules.actors import SYSTEM
from registry.rules.quotas import Limits
from tests.build import (
    ADAPTER_META,
    RECIPE,
    Person,
    World,
    a_person,
    a_world,
    adapter_files,
    approved,
    evaluate,
    put,
    register,
    sent,
    submit,
    train,
    vote,
)
from tests.sampling import sampled
from tests.web.conftest import Console, Watched, form_token

SCREENS = [(1440, "light"), (1440, "dark"), (390, "light"), (390, "dark")]
Open = Callable[..., Watched]
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
PAGE_LIMIT = 30_000  # bytes, compressed: page, style sheet and script together


@pytest.fixture(scope="module")
def tour(console: Console) -> tuple[World, Person, list[str]]:
    """Every page, with something on it: a canary beside a stable version, a decided and an open
    review.
    """
    world = a_world(console.store, console.blobs, "tour")
    ref = approved(world)
    engineer = world.engineer.actor
    rollouts.start(
        console.store, engineer, rollouts.Canary(ref, "production", None, 500, "first traffic")
    )
    rollouts.promote(
        console.store, engineer, rollouts.Place("tour/adapter", "production", None), "it went well"
    )
    train(world, seed=9)
    evaluate(world, world.versions[-1], 48)
    submit(world, world.versions[-1])
    vote(world, world.risk)
    retention.assign(
        console.store, a_person(console.store, "admin").actor, "tour/gone", "short", "for the tour"
    )
    gone = register(
        console.store,
        console.blobs,
        engineer,
        versions.Draft(
            "adapter",
            "tour/gone",
            adapter_files(console.blobs, 77),
            {**ADAPTER_META, "domain": "legal"},
            world.base.ref,
        ),
    )
    deletions.delete(console.store, engineer, gone.ref, "Nobody wanted it.")
    hold = holds.place(
        console.store,
        world.compliance.actor,
        "tour/adapter",
        "Matter 5512",
        "An order of the court.",
    )
    holds.lift(console.store, world.risk.actor, hold.number, "Settled.")
    stands = holds.place(
        console.store, world.compliance.actor, ref, "Matter 5513", "Another order."
    )
    quotas.put(console.store, SYSTEM, "tour", Limits(10**9, 1000), "Enough for a tour.")
    tags.put(
        console.store, engineer, ref, "topic", "claims, and whatever else a long value says of them"
    )
    prompts = [
        put(console.blobs, "prompt", text.encode()).sha256
        for text in ("One word.\nNever guess.", "Two words.")
    ]
    sent(console.store, engineer, *prompts)
    defined = [
        profiles.define(
            console.store,
            console.blobs,
            engineer,
            profiles.ProfileRequest(
                ref,
                {
                    "engine": "vllm",
                    "build": "0.33.0",
                    "system_prompt": f"sha256:{one}",
                    "decoding": {"stop": ["\n"], "max_tokens": 9},
                },
            ),
        ).id
        for one in prompts
    ]
    recipe = TrainingRequest(
        "tour/late", world.base.ref, world.dataset.ref, RECIPE, "legal", ADAPTER_META
    )
    failed, run = (
        queue(console.store, console.blobs, engineer, recipe),
        queue(console.store, console.blobs, engineer, recipe),
    )
    for _ in range(2):
        work.lease(console.store, world.trainer.actor, work.Worker("test worker"), 600)
    work.fail(console.store, world.trainer.actor, failed, 1, "The rows are longer than 8 tokens.")
    for step, loss in ((1, 2.0), (2, 1.0), (3, 0.5)):
        beat = work.Heartbeat(1, {"step": step, "loss": loss}, 600)
        work.beat(console.store, world.trainer.actor, run, beat)
    measured = evals.eval_runs(console.store, engineer)[0].id
    console.sequence()
    pages = [
        f"/profiles/{defined[1]}?against={defined[0]}",
        "/search?team=tour&metric=exact_match%3E%3D0&tag=topic",
        "/retention?all=1",
        f"/retention?lift={stands.number}&name=tour&over=tour/tiny@v1",
        "/adapters/tour/gone/v/1",
        "/reviews?state=all",
        f"/reviews/{world.review}",
        f"/reviews/{world.review - 1}",
        "/adapters",
        "/checkpoints",
        "/bases",
        "/adapters/tour/adapter",
        "/adapters/tour/adapter/v/2",
        "/bases/tour/tiny/v/1",
        "/deployments",
        "/deployments/production/tour/adapter/production",
        "/deployments/dev/tour/adapter/dev",
        "/audit",
        "/audit/as-of",
        "/settings",
        "/reviews/999999",
        "/datasets",
        "/datasets/tour/rows/v/1",
        "/suites",
        "/suites/tour/suite/v/1",
        "/runs",
        f"/runs/training/{run}",
        f"/runs/training/{failed}",
        f"/runs/eval/{measured}",
        "/policies",
        "/adapters?q=nothing-like-it",
        "/search",
        "/search?q=adapter&kind=adapter",
        "/search?tag=absent",
    ]
    return world, a_person(console.store, "reviewer", team="compliance"), pages


@pytest.mark.parametrize(("width", "scheme"), sampled(SCREENS, [(390, "dark")]))
def test_every_page_is_accessible_fits_and_breaks_no_rule(
    console: Console,
    tour: tuple[World, Person, list[str]],
    open_page: Open,
    width: int,
    scheme: str,
) -> None:
    _, person, pages = tour
    watched = open_page(width=width, scheme=scheme)
    page = watched.page
    violations: list[str] = []
    page.expose_function("broken", lambda what: violations.append(f"{page.url}: {what}"))
    page.add_init_script(
        "addEventListener('securitypolicyviolation', (e) => broken(e.violatedDirective))"
    )
    page.goto("/login")
    for path in ["/login", *pages]:
        if path == "/login":
            page.goto(path)
        else:
            if page.url.endswith("/login"):
                watched.sign_in(console.token(person))
            page.goto(path)
        page.evaluate(
            "document.querySelectorAll('main details').forEach((folded) => { folded.open = true; })"
        )
        found = Axe().run(page, options={"runOnly": WCAG}).response["violations"]
        assert [(one["id"], [node["target"] for node in one["nodes"]]) for one in found] == [], path
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (
            f"{path} scrolls sideways"
        )
    assert violations == []


def test_every_page_is_light(console: Console, tour: tuple[World, Person, list[str]]) -> None:
    _, person, pages = tour
    with console.signed_in(person) as client:
        for path in pages:
            page = client.get(path)
            assert page.status_code == (404 if "999999" in path else 200), path
            parts = [page.content, *(client.get(asset).content for asset in assets_of(page))]
            assert sum(len(gzip.compress(part)) for part in parts) <= PAGE_LIMIT, path
            assert "://" not in " ".join(assets_of(page))


def assets_of(page: httpx.Response) -> list[str]:
    """Everything a page loads by itself."""
    return re.findall(r'(?:<script src|<link rel="[a-z]+" href)="([^"]+)"', page.text)


def test_what_is_held_and_what_is_gone_is_told_on_its_page(
    console: Console, tour: tuple[World, Person, list[str]]
) -> None:
    world, person, _ = tour
    with console.signed_in(person) as client:
        gone = client.get("/adapters/tour/gone/v/1").text
        assert "Deleted" in gone
        assert "Nobody wanted it." in gone
        assert "Retention class short" in gone
        kept = client.get(f"/adapters/tour/adapter/v/{world.versions[1].rpartition('v')[2]}").text
        assert "it cannot be deleted" in kept
        assert "Retention class standard" in kept
        page = client.get("/retention").text
        assert "Matter 5513" in page
        assert "Matter 5512" not in page
        assert "Matter 5512" in client.get("/retention?all=1").text
        form = {
            "form_token": form_token(client, "/retention"),
            "over": "tour/tiny@v1",
            "case": "Matter 5514",
            "reason": "",
        }
        assert client.post("/retention/holds", data=form).status_code == 422
        answer = client.post("/retention/holds", data={**form, "reason": "A third order."})
        assert answer.headers["location"] == "/retention?done=held"
        assert "Matter 5514" in client.get("/retention").text
        assert (
            client.post(
                "/retention/holds", data={**form, "over": "tour/nothing", "reason": "x"}
            ).status_code
            == 404
        )
    with console.signed_in(world.engineer) as client:
        assert "Needs the role admin or reviewer." in client.get("/retention").text
        form["form_token"] = form_token(client, "/retention")
        assert (
            client.post("/retention/holds", data={**form, "reason": "Not mine."}).status_code == 403
        )
