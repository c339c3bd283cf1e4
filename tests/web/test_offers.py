"""The deployment page offers what the view of its channel says, at every step of its way."""

from __future__ import annotations

import re

import httpx

from registry.commands import recalls, rollouts
from registry.errors import NotFound
from registry.queries import rollouts as asked
from registry.views.rollouts import ActsView
from tests.build import World, a_world, approved, train
from tests.web.conftest import Console, form_token

FORM = re.compile(r'<form class="act[^>]* id="(canary|promote|rollback)".*?</form>', re.DOTALL)
VERSION = re.compile(r'<option value="([^"]+)"')
BARRED = re.compile(r'<p class="barred">([^<]*)</p>')


def offered(world: World) -> ActsView:
    args = (world.store, world.engineer.actor, "production", f"{world.team}/adapter", "production")
    try:
        return asked.channel(*args).acts
    except NotFound:
        return asked.first_acts(*args)


def read(client: httpx.Client, world: World) -> None:
    """Hold each form of the page against the view."""
    acts = offered(world)
    page = client.get(f"/deployments/production/{world.team}/adapter/production").text
    forms = {found[1]: found[0] for found in FORM.finditer(page)}
    assert set(forms) == {"canary", "promote", "rollback"}
    for name, form in forms.items():
        act = getattr(acts, name)
        assert ("<fieldset disabled>" in form) == (not act.versions), (name, act)
        barred = BARRED.findall(form)
        if act.versions:
            assert barred == []
        else:
            assert act.refusal is not None
            assert barred == [act.refusal.detail.replace("'", "&#39;")]
    assert VERSION.findall(forms["canary"]) == acts.canary.versions
    names = VERSION.findall(forms["promote"])
    if names:  # without a select, the form does what the command does without a name
        assert names == acts.promote.versions
        assert ('<option value="">' in forms["promote"]) == (acts.promote.default is None)
    else:
        assert acts.promote.versions == ([acts.promote.default] if acts.promote.default else [])
    if acts.rollback.default:
        assert f"to {acts.rollback.default.partition('@')[2]}" in forms["rollback"] or (
            acts.rollback.default == world.base.ref and "to base tiny@v1" in forms["rollback"]
        )


def test_the_page_offers_what_the_commands_do(console: Console, team: str) -> None:
    world = a_world(console.store, console.blobs, team)
    store, engineer, line = console.store, world.engineer.actor, f"{team}/adapter"
    with console.signed_in(world.engineer) as client:
        train(world, seed=90)
        read(client, world)  # nothing is approved
        first, second = approved(world), approved(world, seed=50)
        read(client, world)
        for ref in (first, second):
            rollouts.start(store, engineer, rollouts.Canary(ref, "production", None, 500, ""))
            read(client, world)
            rollouts.promote(store, engineer, rollouts.Place(line, "production", None), "")
            read(client, world)
        path = f"/deployments/production/{team}/adapter/production"
        fields = {"form_token": form_token(client, path), "reason": "a test"}
        # Nothing is chosen: the command's own refusal, beside the form. By name it goes back.
        answer = client.post(f"{path}/promote", data=fields | {"ref": ""})
        assert answer.status_code == 409
        assert "no active canary to promote" in answer.text
        assert client.post(f"{path}/promote", data=fields | {"ref": first}).status_code == 303
        assert asked.channel(store, engineer, "production", line, "production").stable == first
        read(client, world)
        rollouts.roll_back(store, engineer, rollouts.Place(line, "production", None), "a complaint")
        read(client, world)
        recalls.recall(store, engineer, second, "unfit for use")
        read(client, world)
        recalls.recall(store, engineer, world.base.ref, "its licence was withdrawn")
        read(client, world)
