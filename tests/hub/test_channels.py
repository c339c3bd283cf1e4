"""A named channel is a branch with a slash, and a cut download goes on where it stopped."""

from __future__ import annotations

import pytest

from registry.commands import rollouts
from tests.api.conftest import Door
from tests.build import World
from tests.hub.conftest import PEERS, Run


def test_a_named_channel_is_a_branch(door: Door, served: World, client: Run) -> None:
    store, line = door.store, f"{served.team}/adapter"
    rollouts.start(store, served.engineer.actor, f"{line}@v2", "production", "beta", 500, "first")
    rollouts.promote(store, served.engineer.actor, line, "production", "beta", "it went well")
    script = (
        f"out = [api.model_info({line!r}, revision='production/beta').sha == "
        f"api.model_info({line!r}, revision='v2').sha, sorted(b.name for b in api.list_repo_refs({line!r}).branches)]"
    )
    for version in PEERS:
        found = client(version, door.token(served.engineer), script)
        assert found == [True, ["main", "production", "production/beta"]]


@pytest.mark.parametrize("version", ["0.36", "1.5"])
def test_a_cut_download_goes_on(version: str, door: Door, served: World, client: Run) -> None:
    name = f"{served.team}/adapter"
    script = f"""
whole = open(hf_hub_download({name!r}, "adapter_model.safetensors", revision="v2"), "rb").read()
from huggingface_hub import file_download as f
import io
url = hf_hub_url({name!r}, "adapter_model.safetensors", revision="v2")
part = io.BytesIO(); part.write(whole[:100])
f.http_get(url, part, resume_size=100, headers=hub.utils.build_hf_headers(), expected_size=len(whole))
out = part.getvalue() == whole
"""
    assert client(version, door.token(served.engineer), script) is True
