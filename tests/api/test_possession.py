"""A digest is no key: whoever has learnt another team's hears at every door what is said of bytes
nobody ever sent.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from dataclasses import dataclass
from typing import Any

import pytest

from registry.client import Countersign, NewVersion
from tests.api.conftest import Door
from tests.build import (
    BASE_META,
    DATA_META,
    Person,
    World,
    a_person,
    a_world,
    approved,
    dataset_bytes,
    safetensors,
)


@dataclass
class Scene:
    """Two teams; the one holds what the other has only heard of: digests by what they are of."""

    victim: World
    thief: World
    heard: dict[str, tuple[str, int]]
    missing: str


@pytest.fixture(scope="module")
def scene(door: Door) -> Scene:
    victim, thief = (a_world(door.store, door.blobs, f"t{secrets.token_hex(4)}") for _ in range(2))
    ref = approved(victim, seed=secrets.randbelow(1 << 30))
    approved(thief, seed=secrets.randbelow(1 << 30))
    for person in (victim.engineer, victim.trainer, thief.engineer, thief.trainer):
        door.token(person)
    files = door.done(victim.engineer, "GET", f"/versions/{ref}")["files"]
    heard = {one["path"]: (one["sha256"], one["size"]) for one in files}
    rows = door.upload(victim.data_owner, dataset_bytes(items=31))
    door.done(
        victim.data_owner,
        "POST",
        "/datasets",
        {"name": f"{victim.team}/more", "file": rows, "meta": DATA_META},
    )
    prompt = door.upload(victim.engineer, secrets.token_hex(16).encode())
    door.done(
        victim.engineer,
        "POST",
        "/profiles",
        {
            "ref": ref,
            "profile": {
                "engine": "vllm",
                "build": "0.32.0",
                "system_prompt": f"sha256:{prompt['sha256']}",
            },
        },
    )
    unnamed = door.upload(victim.engineer, secrets.token_bytes(40))
    for name, sent in (("rows", rows), ("prompt", prompt), ("sent and not named", unnamed)):
        heard[name] = sent["sha256"], sent["size"]
    return Scene(victim, thief, heard, hashlib.sha256(secrets.token_bytes(8)).hexdigest())


def attempts(scene: Scene, digest: str, size: int) -> dict[str, tuple[Person, str, str, Any]]:
    """Every way to name bytes, or to ask for them, by their digest."""
    team, ref = scene.thief.team, scene.thief.versions[-1]
    who, named = scene.thief.engineer, {"sha256": digest, "size": size}

    def bundle(path: str) -> list[dict[str, Any]]:
        return [{"path": path, **named}]

    return {
        "adapter": (
            who,
            "POST",
            "/adapters",
            {
                "name": f"{team}/stolen",
                "files": bundle("adapter_model.safetensors"),
                "base": scene.thief.base.ref,
                "meta": {},
            },
        ),
        "base": (
            who,
            "POST",
            "/bases",
            {"name": f"{team}/stolen-base", "files": bundle("config.json"), "meta": {}},
        ),
        "template": (
            who,
            "POST",
            "/checkpoints",
            {"name": f"{team}/stolen-check", "files": bundle("chat_template.jinja"), "meta": {}},
        ),
        "trainer": (
            scene.thief.trainer,
            "POST",
            "/adapters",
            {
                "name": f"{team}/stolen",
                "files": bundle("adapter_config.json"),
                "base": scene.thief.base.ref,
                "meta": {},
            },
        ),
        "data": (
            who,
            "POST",
            "/datasets",
            {"name": f"{team}/stolen-rows", "file": named, "meta": DATA_META},
        ),
        "profile": (
            who,
            "POST",
            "/profiles",
            {
                "ref": ref,
                "profile": {
                    "engine": "vllm",
                    "build": "0.32.0",
                    "system_prompt": f"sha256:{digest}",
                },
            },
        ),
        "get": (who, "GET", f"/blobs/{digest}", None),
        "head": (who, "HEAD", f"/blobs/{digest}", None),
        "upload": (who, "HEAD", f"/uploads/{digest}", None),
    }


def test_every_door_says_what_it_says_of_bytes_nobody_sent(door: Door, scene: Scene) -> None:
    """Word for word and header for header, but for the digest itself and what differs from request
    to request.
    """

    def heard(digest: str, size: int) -> dict[str, Any]:
        said = {}
        for name, (who, method, path, body) in attempts(scene, digest, size).items():
            answer = door.ask(who, method, path, body)
            whole = f"{answer.status_code} {sorted(answer.headers.items())} {answer.text}"
            whole = whole.replace(digest, "DIGEST").replace(answer.headers["x-request-id"], "ID")
            said[name] = re.sub(r"\('date', '[^']*'\)", "", whole)
            assert answer.status_code in (404, 422), (name, answer.text)
        return said

    for what, (digest, size) in scene.heard.items():
        assert heard(digest, size) == heard(scene.missing, size), what


def used(door: Door) -> dict[str, Any]:
    """When bytes were last put or asked for."""
    return {digest: moment for digest, _, moment in door.blobs.published()}


def test_the_store_is_not_even_asked(door: Door, scene: Scene) -> None:
    """In a folder asking leaves a trace, and time is taken: for a stranger neither happens."""
    digest, _ = scene.heard["sent and not named"]
    at = used(door)[digest]
    assert door.ask(scene.thief.engineer, "HEAD", f"/blobs/{digest}").status_code == 404
    assert used(door)[digest] == at
    assert door.ask(scene.victim.engineer, "HEAD", f"/blobs/{digest}").status_code == 200
    assert used(door)[digest] > at


def test_a_part_or_other_bytes_are_no_proof(door: Door, scene: Scene) -> None:
    digest, size = scene.heard["adapter_model.safetensors"]
    thief = scene.thief.engineer
    headers = {"Upload-Offset": "0", "Upload-Complete": "?0"}
    door.done(thief, "PATCH", f"/uploads/{digest}", content=b"x" * (size // 2), headers=headers)
    door.done(
        thief,
        "PATCH",
        f"/uploads/{digest}",
        content=b"",
        headers=headers | {"Upload-Offset": str(size // 2)},
    )
    rest = {"Upload-Offset": str(size // 2)}
    assert (
        door.refused(thief, "PATCH", f"/uploads/{digest}", content=b"x", headers=rest)[1]
        == "digest-mismatch"
    )
    assert door.refused(thief, "PUT", f"/blobs/{digest}", content=b"other bytes") == (
        422,
        "digest-mismatch",
    )
    who, method, path, body = attempts(scene, digest, size)["adapter"]
    assert door.refused(who, method, path, body) == (422, "blob-missing")
    assert door.ask(thief, "HEAD", f"/blobs/{digest}").status_code == 404


def test_what_is_sent_once_more_is_named_and_stored_once(
    door: Door, scene: Scene, tmp_path: Any
) -> None:
    """The honest way: another team has the very same files, and adds them as it adds any others."""
    engineer = scene.thief.engineer
    folder = tmp_path / "base"
    folder.mkdir()
    weights = safetensors({"model.embed_tokens.weight": (4, 4)}, secrets.randbelow(1 << 30))
    files = {
        "model.safetensors": weights,
        "tokenizer.json": b'{"version":"1.0","model":{}}',
        "config.json": json.dumps(
            {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
        ).encode(),
    }
    for path, data in files.items():
        (folder / path).write_bytes(data)
    with (
        Countersign(door.url, door.token(scene.victim.engineer)) as one,
        Countersign(door.url, door.token(engineer)) as other,
    ):
        mine = one.add("base", folder, NewVersion(f"{scene.victim.team}/same", meta=BASE_META))
        digest = hashlib.sha256(weights).hexdigest()
        assert (one.has_blob(digest), other.has_blob(digest)) == (True, False)
        yours = other.add("base", folder, NewVersion(f"{scene.thief.team}/same", meta=BASE_META))
        assert (yours.digest, yours.status, other.has_blob(digest)) == (
            mine.digest,
            "registered",
            True,
        )
    assert [one for one, _, _ in door.blobs.published()].count(digest) == 1


def test_by_account_and_not_by_token_and_not_by_team(door: Door, scene: Scene) -> None:
    """A second token of the sender is the sender; a colleague is not, until the version is there
    for him to read.
    """
    sender, colleague = (
        scene.thief.engineer,
        a_person(door.store, "engineer", team=scene.thief.team),
    )
    digest = str(door.upload(sender, secrets.token_bytes(24))["sha256"])
    first = door.tokens.pop(sender.id)
    assert door.token(sender) != first
    assert door.ask(sender, "HEAD", f"/blobs/{digest}").status_code == 200
    assert door.ask(colleague, "HEAD", f"/blobs/{digest}").status_code == 404
    made = {"name": f"{scene.thief.team}/ours", "meta": DATA_META}
    rows = door.upload(sender, dataset_bytes(items=33))
    assert door.refused(colleague, "POST", "/datasets", {**made, "file": rows}) == (
        422,
        "blob-missing",
    )
    door.done(sender, "POST", "/datasets", {**made, "file": rows})
    again = door.done(colleague, "POST", "/datasets", {**made, "file": rows})
    assert again["status"] == "found"
    assert door.ask(colleague, "HEAD", f"/blobs/{rows['sha256']}").status_code == 200


def test_the_hub_knows_no_file_by_its_digest(door: Door, scene: Scene) -> None:
    headers = {"Authorization": f"Bearer {door.token(scene.thief.engineer)}"}
    digest, _ = scene.heard["adapter_model.safetensors"]
    line, theirs = f"{scene.thief.team}/adapter", f"{scene.victim.team}/adapter"
    for repo, code in ((line, "RevisionNotFound"), (theirs, "RepoNotFound")):
        for revision in (f"sha256-{digest}", digest, digest[:40]):
            answer = door.client.get(
                f"/{repo}/resolve/{revision}/adapter_model.safetensors", headers=headers
            )
            assert (answer.status_code, answer.headers["x-error-code"]) == (404, code)
