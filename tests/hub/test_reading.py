"""Everything that clients read, asked by the clients themselves in the environment they find: Xet
installed, nothing set.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

import pytest

from registry.commands import rollouts, versions
from tests.api.conftest import Door
from tests.build import ADAPTER_META, World, a_world, adapter_files, approved, put, register
from tests.hub.conftest import PEERS, Run, get
from tests.sampling import sampled

CARD = (
    b"---\nlicense: apache-2.0\nlibrary_name: peft\n---\n# Claims\n\nAnswers questions about "
    b"claims.\n"
)


@dataclass
class Shelf:
    """A team's line with three versions: v2 stable in production, v3 stable in the channel blue,
    with a card.
    """

    world: World
    commits: dict[str, str]

    @property
    def line(self) -> str:
        return f"{self.world.team}/adapter"


@pytest.fixture(scope="module")
def shelf(door: Door) -> Shelf:
    world = a_world(door.store, door.blobs, f"t{secrets.token_hex(4)}")
    engineer, line = world.engineer.actor, f"{world.team}/adapter"
    for channel in (None, "blue"):
        ref = approved(world) if channel is None else world.versions[-1]
        rollouts.start(
            door.store, engineer, rollouts.Canary(ref, "production", channel, 500, "first traffic")
        )
        rollouts.promote(
            door.store, engineer, rollouts.Place(line, "production", channel), "it went well"
        )
    files = [*adapter_files(door.blobs, 77), put(door.blobs, "README.md", CARD)]
    draft = versions.Draft("adapter", line, files, ADAPTER_META, world.base.ref, "legal")
    assert register(door.store, door.blobs, engineer, draft).ref == f"{line}@v3"
    secret = door.token(world.engineer)
    commits = {
        one: str(get(door, secret, f"/api/models/{line}/revision/{one}").json()["sha"])
        for one in ("v1", "v2", "v3")
    }
    return Shelf(world, commits)


READ = """
import hashlib, inspect, sys
from huggingface_hub.utils import EntryNotFoundError, HfHubHTTPError, RepositoryNotFoundError
from huggingface_hub.utils._pagination import paginate
NAME, TEAM, COMMITS, URL = {name!r}, {team!r}, {commits!r}, os.environ["HF_ENDPOINT"]
BASE, WEIGHTS, done = f"{{TEAM}}/tiny", "adapter_model.safetensors", []
two = COMMITS["v2"]

def step(name):
    done.append(name)

# Revisions, in every spelling.
spelt = ["production", "v2", "main", None, two, two[:8], two.upper(), "sha256-" + two,
         "production/blue", "refs/heads/production", "refs/heads/production/blue",
         "refs/tags/v2", "refs/heads/main", "sha256-{digest}"]
assert {{api.model_info(NAME, revision=one).sha for one in spelt}} == {{two}}
assert api.model_info(NAME, revision="v3").sha == COMMITS["v3"]
for wrong in ("v4", "V2", "Production", "production/green", "staging", "0" * 40, two[:7],
              "sha256-", "refs/pr/1", "refs/tags/v9"):
    assert not api.revision_exists(NAME, wrong), wrong
assert api.revision_exists(NAME, "production/blue")
assert api.repo_exists(NAME) and not api.repo_exists(TEAM + "/no")
step("revisions")

# Info.
info = api.model_info(NAME, revision="v3", files_metadata=True)
byname = {{one.rfilename: one for one in info.siblings}}
assert byname["README.md"].size == len({card!r}) and byname["README.md"].lfs is None
assert byname[WEIGHTS].lfs["sha256"] and byname[WEIGHTS].lfs["size"] == byname[WEIGHTS].size
assert info.private and info.gated is False and info.library_name == "peft" and "peft" in info.tags
assert info.created_at and info.last_modified and info.author == TEAM
narrow = api.model_info(NAME, expand=["tags", "createdAt"])
assert narrow.id == NAME and narrow.tags and narrow.siblings is None and narrow.sha is None
secure = api.model_info(NAME, securityStatus=True).security_repo_status
assert secure == {{"scansDone": False, "filesWithIssues": []}}
assert info.card_data.to_dict()["library_name"] == "peft"
assert api.model_info(NAME, expand="downloadsAllTime").downloads_all_time == 0
for ask in (lambda: api.model_info(NAME, expand=["foo"]),
            lambda: list(api.list_models(expand=["foo"]))):
    try:
        ask(); said = None
    except HfHubHTTPError as error:
        said = error.response.status_code, "'foo'" in str(error)
    assert said == (400, True), said
step("info")

# Tree, paths, files.
tree = list(api.list_repo_tree(NAME, revision="v3", recursive=True, expand=True))
assert {{one.last_commit.oid for one in tree}} == {{COMMITS["v3"]}}
blob = next(one for one in tree if one.path == "README.md")
assert blob.blob_id == hashlib.sha1(b"blob %d\\0" % len({card!r}) + {card!r}).hexdigest()
files = sorted(api.list_repo_files(NAME, revision="v3"))
assert files == ["README.md", "adapter_config.json", WEIGHTS]
assert [one.path for one in api.list_repo_tree(NAME, "README.md", revision="v3")] == ["README.md"]
try:
    list(api.list_repo_tree(NAME, "additional_chat_templates")); absent = False
except EntryNotFoundError:
    absent = True
assert absent
wide = api.get_paths_info(NAME, ["README.md", "no"], revision="v3", expand=True)
assert [(one.path, one.last_commit.oid) for one in wide] == [("README.md", COMMITS["v3"])]
assert api.get_paths_info(NAME, "README.md", revision="v3")[0].size == len({card!r})
assert api.file_exists(NAME, "README.md", revision="v3")
assert not api.file_exists(NAME, "README.md", revision="v2")
step("tree")

# Pages, by the client's own reading of Link.
headers = hub.utils.build_hf_headers()
def pages(path, **more):
    where, params = f"{{URL}}/api/models{{path}}", {{"limit": 1, **more}}
    return list(paginate(where, params=params, headers=headers))
assert sorted(one["path"] for one in pages(f"/{{NAME}}/tree/v3", recursive=True)) == sorted(byname)
assert [one["id"] for one in pages(f"/{{NAME}}/commits/v3")] == [COMMITS["v3"], two, COMMITS["v1"]]
for sort in (None, "lastModified", "createdAt", "downloads"):
    found = [one["id"] for one in pages("", author=TEAM, **({{"sort": sort}} if sort else {{}}))]
    assert sorted(found) == [NAME, BASE], found
assert [one["id"] for one in pages("", author=TEAM, sort="createdAt")] == [NAME, BASE]
step("pages")

# Lists.
listed = lambda **asked: [one.id for one in api.list_models(**asked)]
assert listed(author=TEAM) == [NAME, BASE] and listed(search=TEAM + "/ada") == [NAME]
assert listed(author=TEAM, filter="base") == listed(author=TEAM, filter=["transformers"]) == [BASE]
assert listed(author=TEAM, filter=["adapter", "peft"]) == [NAME]
assert listed(author=TEAM, filter=["adapter", "base"]) == []
assert listed(author=TEAM, filter="license:apache-2.0") == [BASE]
assert listed(author=TEAM, filter="gguf") == []
assert listed(author=TEAM, limit=1) == [NAME]
assert listed(author="nobody") == listed(author=TEAM, gated=True) == []
assert listed(author=TEAM, sort="last_modified")[0] == NAME
assert next(iter(api.list_models(author=TEAM))).siblings is None
assert next(iter(api.list_models(author=TEAM, cardData=True))).card_data is not None
assert len(next(iter(api.list_models(author=TEAM, full=True))).siblings) == 2
step("lists")

# Refs and commits.
refs = api.list_repo_refs(NAME, include_pull_requests=True)
assert {{one.name: one.target_commit for one in refs.tags}} == COMMITS
assert refs.pull_requests == refs.converts == []
assert {{one.ref: one.target_commit for one in refs.branches}} == dict.fromkeys(
    ["refs/heads/main", "refs/heads/production", "refs/heads/production/blue"], two)
history = api.list_repo_commits(NAME, revision="production/blue", formatted=True)
assert [one.commit_id for one in history] == [two, COMMITS["v1"]]
assert history[0].formatted_title == NAME + "@v2"
step("refs")

# Access.
api.auth_check(NAME)
try:
    api.auth_check(TEAM + "/no"); refused = False
except RepositoryNotFoundError:
    refused = True
if "write" in inspect.signature(api.auth_check).parameters:
    try:
        api.auth_check(NAME, write=True); refused = False
    except HfHubHTTPError as said:
        refused = refused and "Nothing can be written" in str(said)
assert refused
who = api.whoami()
assert who["name"] and who["orgs"] == [{{"name": TEAM}}]
assert who["auth"]["accessToken"]["role"] == "read"
step("access")

# Downloads.
some = snapshot_download(NAME, revision="v3", allow_patterns=["*.md"])
assert os.listdir(some) == ["README.md"]
local = snapshot_download(NAME, revision="production", local_dir="into", ignore_patterns="*.json")
assert WEIGHTS in os.listdir(local) and "adapter_config.json" not in os.listdir(local)
hf_hub_download(NAME, WEIGHTS, revision="v3", local_dir="into")
cached = hf_hub_download(NAME, WEIGHTS, revision="v3")
assert open("into/" + WEIGHTS, "rb").read() == open(cached, "rb").read()
where = hf_hub_url(NAME, WEIGHTS, revision="production/blue")
assert where.endswith("/resolve/production%2Fblue/" + WEIGHTS)
for one in ("production", "v3"):
    try:
        hf_hub_download(NAME, "tokenizer.json", revision=one)
    except EntryNotFoundError:
        pass
kept = f"{{hub.constants.HF_HUB_CACHE}}/models--{{NAME.replace('/', '--')}}"
absent = f"{{kept}}/.no_exist"
assert {{one: os.listdir(f"{{absent}}/{{one}}") for one in os.listdir(absent)}} == dict.fromkeys(
    [two, COMMITS["v3"]], ["tokenizer.json"])
known = hub.try_to_load_from_cache(NAME, "tokenizer.json", revision="production")
assert known is hub._CACHED_NO_EXIST
meta = hub.get_hf_file_metadata(hf_hub_url(NAME, WEIGHTS, revision="v2"))
assert (meta.commit_hash, meta.size) == (two, byname[WEIGHTS].size)
assert len(meta.etag) == 64 and meta.xet_file_data is None
assert hub.ModelCard.load(NAME + ".v3").data.license == "apache-2.0"
step("downloads")

# Weights without downloading them.
assert set(api.parse_safetensors_file_metadata(NAME, WEIGHTS, revision="v3").tensors)
base = api.get_safetensors_metadata(BASE, revision="v1")
assert base.weight_map and not base.sharded and base.parameter_count
step("safetensors")

# Files by address.
fs = hub.HfFileSystem()
names = (os.path.basename(one) for one in fs.ls(f"{{NAME}}@v3", detail=False))
assert sorted(names) == sorted(byname)
with fs.open(f"hf://{{NAME}}@v3/README.md", "rb") as file:
    assert file.read() == {card!r}
with fs.open(f"hf://{{NAME}}@production%2Fblue/{{WEIGHTS}}", "rb") as file:
    file.seek(8)
    assert file.read(1) == b"{{"
assert fs.isfile(f"{{NAME}}@v3/README.md") and fs.isdir(f"{{NAME}}@v3")
assert not fs.exists(f"{{NAME}}@v2/README.md")
assert [os.path.basename(one) for one in fs.glob(f"{{NAME}}@v3/*.md")] == ["README.md"]
step("addresses")

# The command line.
from huggingface_hub.cli.hf import main
sys.argv = ["hf", "download", NAME, "--revision", "production/blue",
            "--local-dir", "cli", "--quiet"]
try:
    main()
except SystemExit as ended:
    assert not ended.code, ended.code
assert sorted(os.listdir("cli"))[-2:] == ["adapter_config.json", WEIGHTS]
step("hf download")

if hub.__version__.startswith("2."):
    resolved = api.resolve_revision(NAME, revision="production/blue")
    assert (str(resolved), resolved.resolved) == ("production/blue", two)
    hf_hub_download(NAME, WEIGHTS, revision=resolved)
if hasattr(api, "verify_repo_checksums"):
    whole = snapshot_download(NAME, revision="v3", local_dir="whole")
    checked = api.verify_repo_checksums(NAME, revision="v3", local_dir="whole")
    assert checked.checked_count == 3, checked
    assert not checked.mismatches and not checked.missing_paths, checked
    open("whole/README.md", "a").write("!")
    checked = api.verify_repo_checksums(NAME, revision="v3", local_dir="whole")
    assert [one["path"] for one in checked.mismatches] == ["README.md"]
step("the newer calls")
out = done
"""

STEPS = [
    "revisions",
    "info",
    "tree",
    "pages",
    "lists",
    "refs",
    "access",
    "downloads",
    "safetensors",
    "addresses",
    "hf download",
    "the newer calls",
]


@pytest.mark.parametrize("version", sampled(PEERS, ["2.4", "0.36"]))
def test_everything_that_clients_read(version: str, door: Door, shelf: Shelf, client: Run) -> None:
    manifest = door.done(shelf.world.engineer, "GET", f"/versions/{shelf.line}@v2")[
        "manifest_digest"
    ]
    script = READ.format(
        name=shelf.line,
        team=shelf.world.team,
        commits=shelf.commits,
        card=CARD,
        digest=manifest.removeprefix("sha256:"),
    )
    assert client(version, door.token(shelf.world.engineer), script) == STEPS
