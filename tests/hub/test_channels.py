"""A named channel is a branch with a slash; a channel that moves takes a warm cache with it, and
one that stops stops it.
"""

from __future__ import annotations

from registry.commands import recalls, rollouts, tokens
from registry.rules.actors import SYSTEM
from tests.api.conftest import Door
from tests.build import World, a_person, approved
from tests.hub.conftest import PEERS, Run, get


def test_a_named_channel_is_a_branch(door: Door, served: World, client: Run) -> None:
    store, line = door.store, f"{served.team}/adapter"
    rollouts.start(
        store,
        served.engineer.actor,
        rollouts.Canary(f"{line}@v2", "production", "beta", 500, "first"),
    )
    rollouts.promote(
        store, served.engineer.actor, rollouts.Place(line, "production", "beta"), "it went well"
    )
    script = (
        f"out = [api.model_info({line!r}, revision='production/beta').sha == "
        f"api.model_info({line!r}, revision='v2').sha, sorted(b.name for b in "
        f"api.list_repo_refs({line!r}).branches)]"
    )
    for version in PEERS:
        found = client(version, door.token(served.engineer), script)
        assert found == [True, ["main", "production", "production/beta"]]


def test_a_warm_cache_follows_a_channel_there_and_back(
    door: Door, served: World, client: Run
) -> None:
    store, engineer, name = door.store, served.engineer.actor, f"{served.team}/adapter"
    token = door.token(a_person(store, "gateway", team=served.team, signs=False))
    approved(served, seed=10)
    ask = f"""
here = hf_hub_download({name!r}, "adapter_model.safetensors", revision="production")
snap = snapshot_download({name!r}, revision="production")
assert open(here, "rb").read() == open(snap + "/adapter_model.safetensors", "rb").read()
out = open(here, "rb").read().hex()
"""
    bytes_of = {
        one: get(door, token, f"/{name}/resolve/{one}/adapter_model.safetensors").content.hex()
        for one in ("v2", "v4")
    }
    assert bytes_of["v2"] != bytes_of["v4"]

    def pulled() -> set[str]:
        return {client(version, token, ask) for version in PEERS}

    assert pulled() == {bytes_of["v2"]}
    rollouts.start(
        store, engineer, rollouts.Canary(f"{name}@v4", "production", None, 500, "the next")
    )
    rollouts.promote(store, engineer, rollouts.Place(name, "production", None), "it went well")
    assert pulled() == {bytes_of["v4"]}
    rollouts.roll_back(store, engineer, rollouts.Place(name, "production", None), "it did not")
    assert pulled() == {bytes_of["v2"]}

    # With all of it in the cache: a gateway of elsewhere, a channel that has nothing, one that was
    # stopped.
    elsewhere = a_person(store, "gateway", team=served.team, signs=False)
    bound = str(
        tokens.create(
            store,
            SYSTEM,
            tokens.TokenRequest(elsewhere.actor.name, ["gateway"], served.team, 1, "staging"),
        ).token
    )
    refused = f"""
from huggingface_hub.utils import RevisionNotFoundError
out = []
for call in (lambda: snapshot_download({name!r}, revision="production"),
             lambda: snapshot_download({name!r}, revision="staging"),
             lambda: hf_hub_download({name!r}, "adapter_config.json", revision="production")):
    try:
        call(); out.append("served")
    except RevisionNotFoundError as e: out.append(str(e))
"""
    for version in PEERS:
        said = client(version, bound, refused)
        assert ["not approved for staging" in one for one in said] == [True, False, True]
        assert "there is no such version" in said[1]
    recalls.recall(store, engineer, served.base.ref, "its licence ended")
    for version in PEERS:
        said = client(version, token, refused)
        assert ["was stopped and serves nothing" in one for one in said] == [True, False, True]
