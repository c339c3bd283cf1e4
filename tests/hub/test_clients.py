"""huggingface_hub 2.4, 1.5 and 0.36 pull through the real server, and stop at a recalled
revision.
"""

from __future__ import annotations

import secrets

import pytest

from registry.commands import recalls
from tests.api.conftest import Door
from tests.build import World, a_person
from tests.hub.conftest import PEERS, Run


@pytest.mark.parametrize("version", PEERS)
def test_every_name_of_a_revision_pulls_the_same_bytes(
    version: str, door: Door, served: World, client: Run
) -> None:
    name, token = f"{served.team}/adapter", door.token(served.engineer)
    script = f"""
from huggingface_hub.utils import EntryNotFoundError
info = api.model_info({name!r}, revision="v2", files_metadata=True)
weights = "adapter_model.safetensors"
fetched = lambda repo, rev: hf_hub_download(repo, weights, revision=rev)
read = lambda repo, rev: open(fetched(repo, rev), "rb").read().hex()[:4000]
names = ["production", "v2", "main", None, info.sha]
same = len({{read({name!r}, rev) for rev in names}} | {{read({name + ".v2"!r}, None)}})
assert read({name!r}, "v1") != read({name!r}, "v2")
snap = snapshot_download({name!r}, revision="production")
refs = api.list_repo_refs({name!r})
assert {{b.name for b in refs.branches}} == {{"main", "production"}}, refs
assert {{t.name for t in refs.tags}} == {{"v1", "v2"}}, refs
assert [c.title for c in api.list_repo_commits({name!r}, revision="v2")][0].endswith("@v2")
assert {{e.path for e in api.list_repo_tree({name!r}, revision="v2")}} == set(os.listdir(snap))
assert [e.path for e in api.get_paths_info({name!r}, [weights, "no"], revision="v2")] == [weights]
assert api.file_exists({name!r}, weights) and not api.file_exists({name!r}, "no.json")
assert {name!r} in [m.id for m in api.list_models(author={served.team!r})]
api.auth_check({name!r}); api.parse_safetensors_file_metadata({name!r}, weights, revision="v2")
assert api.whoami()["name"]
try:
    hf_hub_download({name!r}, "absent.json"); missing = False
except EntryNotFoundError:
    missing = True
out = [same, missing, os.path.basename(snap) == info.sha]
"""
    assert client(version, token, script) == [1, True, True]


@pytest.mark.parametrize("version", PEERS)
def test_strangers_and_unknown_revisions(
    version: str, door: Door, served: World, client: Run
) -> None:
    name = f"{served.team}/adapter"
    stranger = a_person(door.store, "engineer", team=f"t{secrets.token_hex(4)}")
    ask = """
from huggingface_hub.utils import RepositoryNotFoundError, RevisionNotFoundError
try:
    snapshot_download({0!r}, revision={1!r}, cache_dir="cold"); out = "pulled"
except RevisionNotFoundError: out = "revision"
except RepositoryNotFoundError: out = "repository"
"""
    assert client(version, door.token(stranger), ask.format(name, "v2")) == "repository"
    assert client(version, door.token(served.engineer), ask.format(name, "v99")) == "revision"
    gateway = a_person(door.store, "gateway", team=served.team)
    assert client(version, door.token(gateway), ask.format(name, "v1")) == "revision"
    assert client(version, door.token(gateway), ask.format(name, "v2")) == "pulled"


def test_a_recall_stops_clients_with_a_warm_cache(door: Door, served: World, client: Run) -> None:
    name, token = f"{served.team}/adapter", door.token(served.engineer)
    for version in PEERS:
        client(version, token, f"out = snapshot_download({name!r}, revision='v2')")
    recalls.recall(door.store, served.engineer.actor, f"{name}@v2", "poisoned for use")
    ask = f"""
from huggingface_hub.utils import RevisionNotFoundError
out = []
for call in (lambda: snapshot_download({name!r}, revision="v2"),
             lambda: hf_hub_download({name!r}, "adapter_config.json", revision="v2")):
    try:
        call(); out.append("served")
    except RevisionNotFoundError as e: out.append("stopped" if "poisoned" in str(e) else str(e))
"""
    assert {version: client(version, token, ask, fresh=True) for version in PEERS} == dict.fromkeys(
        PEERS, ["stopped"] * 2
    )
