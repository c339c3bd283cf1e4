"""The dialect's JSON: our versions in the words of a git host."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from starlette.datastructures import QueryParams

from registry.blobs.store import Blobs
from registry.errors import Invalid
from registry.views.pulls import Pulled, Refs
from registry.views.versions import FileView

KINDS = frozenset({"base", "adapter", "checkpoint"})
TASK = "text-generation"
EXPANDABLE = frozenset(
    {
        "author",
        "baseModels",
        "cardData",
        "childrenModelCount",
        "config",
        "createdAt",
        "disabled",
        "downloads",
        "downloadsAllTime",
        "evalResults",
        "formatted",
        "gated",
        "gguf",
        "inference",
        "inferenceProviderMapping",
        "lastModified",
        "library_name",
        "likes",
        "mask_token",
        "model-index",
        "pipeline_tag",
        "private",
        "providersMapping",
        "resourceGroup",
        "safetensors",
        "securityStatus",
        "sha",
        "siblings",
        "spaces",
        "tags",
        "transformersInfo",
        "trendingScore",
        "usedStorage",
        "widgetData",
        "xetEnabled",
    }
)
"""What clients may want expanded; what of it there is nothing to say about here is left out of the
answer.
"""
REGULAR = 1 << 20
"""Text up to this size is an ordinary git file; all else stands as a pointer, named by its
SHA-256.
"""


def moment(at: datetime) -> str:
    """A time as the clients parse it: milliseconds and Z."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03d}Z"


def pointer(file: FileView) -> bytes:
    """The text git keeps in place of a large file."""
    return (
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{file.sha256}\nsize {file.size}\n"
    ).encode()


def git_oid(data: bytes) -> str:
    """The name git gives these bytes."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def is_large(file: FileView) -> bool:
    """Is this a file git would not keep itself?"""
    return file.path.endswith(".safetensors") or file.size > REGULAR


@lru_cache(maxsize=16384)
def _small(blobs: Blobs, sha256: str, size: int) -> str:
    return git_oid(blobs.read(sha256, 0, size))


def entry(blobs: Blobs, file: FileView) -> dict[str, Any]:
    """One file of a tree."""
    found: dict[str, Any] = {"type": "file", "path": file.path, "size": file.size}
    if not is_large(file):
        return found | {"oid": _small(blobs, file.sha256, file.size)}
    text = pointer(file)
    large = {"oid": file.sha256, "size": file.size, "pointerSize": len(text)}
    return found | {"oid": git_oid(text), "lfs": large}


def tree(blobs: Blobs, found: Pulled, under: str, deep: bool) -> list[dict[str, Any]] | None:
    """The files and folders below a path, by path; None when there is no such folder."""
    if itself := [entry(blobs, file) for file in found.files if under and file.path == under]:
        return itself  # as a git host does: clients that list a path do not know what it is
    prefix = f"{under}/" if under else ""
    entries: dict[str, dict[str, Any]] = {}
    for file in found.files:
        if not file.path.startswith(prefix):
            continue
        inner = file.path[len(prefix) :].split("/")
        for depth in range(1, len(inner) if deep else min(len(inner), 2)):
            path = prefix + "/".join(inner[:depth])
            oid = git_oid(path.encode())
            entries[path] = {"type": "directory", "path": path, "size": 0, "oid": oid}
        if deep or len(inner) == 1:
            entries[file.path] = entry(blobs, file)
    if not entries and under:
        return None
    return [entries[path] for path in sorted(entries)]


def info(found: Pulled, blobs: Blobs | None = None) -> dict[str, Any]:
    """A repository at a revision; with `blobs`, sizes and names of its files too."""
    siblings: list[dict[str, Any]] = []
    for file in found.files:
        one: dict[str, Any] = {"rfilename": file.path}
        if blobs is not None:
            full = entry(blobs, file)
            one |= {"size": file.size, "blobId": full["oid"]}
            if lfs := full.get("lfs"):
                one["lfs"] = {
                    "sha256": lfs["oid"],
                    "size": lfs["size"],
                    "pointerSize": lfs["pointerSize"],
                }
        siblings.append(one)
    library = "peft" if found.kind == "adapter" else "transformers"
    tags = [found.kind, library, "safetensors", TASK]
    if licence := found.meta.get("licence"):
        tags.append(f"license:{licence}")
    if found.deprecated:
        tags.append("deprecated")
    card = {"library_name": library} | ({"license": licence} if licence else {})
    at = moment(found.created_at)
    return {
        "_id": str(found.id),
        "id": found.repo,
        "modelId": found.repo,
        "author": found.repo.partition("/")[0],
        "sha": found.commit,
        "private": True,
        "gated": False,
        "disabled": False,
        "tags": tags,
        "siblings": siblings,
        "createdAt": at,
        "lastModified": at,
        "downloads": 0,
        "likes": 0,
        "trendingScore": 0,
        "spaces": [],
        "cardData": card,
        "library_name": library,
        "pipeline_tag": TASK,
    }


def properties(asked: QueryParams) -> set[str]:
    """What a client wants expanded, in either spelling of a list; Invalid (`bad-expand`) for what
    no Hub knows.
    """
    wanted = {
        one
        for key in ("expand", "expand[]")
        for one in asked.getlist(key)
        if one.lower() not in ("true", "false", "")
    }
    if unknown := wanted - EXPANDABLE:
        raise Invalid("bad-expand", f"There is no property '{min(unknown)[:40]}' to expand.")
    return wanted


def only(answer: dict[str, Any], asked: QueryParams) -> dict[str, Any]:
    """The properties a client asked for by `expand`, beside the name; all of them when it named
    none.
    """
    wanted, answer = properties(asked), {**answer}
    if "downloadsAllTime" in wanted:
        answer["downloadsAllTime"] = 0
    if asked.get("securityStatus", "").lower() in ("true", "1"):
        answer["securityRepoStatus"] = {"scansDone": False, "filesWithIssues": []}
    return (
        answer
        if not wanted
        else {key: value for key, value in answer.items() if key in wanted | {"_id", "id"}}
    )


def told(entries: list[dict[str, Any]], found: Pulled) -> list[dict[str, Any]]:
    """Entries with the commit that last touched them: the version itself, which is whole."""
    last = {"id": found.commit, "title": found.ref, "date": moment(found.created_at)}
    return [{**one, "lastCommit": last} for one in entries]


def commit(found: Pulled, formatted: bool = False) -> dict[str, Any]:
    """A version as a commit; formatted means HTML, and our names have no character that HTML
    reads.
    """
    answer = {
        "id": found.commit,
        "title": found.ref,
        "message": "",
        "date": moment(found.created_at),
        "authors": [{"user": found.author}],
    }
    return answer | ({"formatted": {"title": found.ref, "message": ""}} if formatted else {})


def refs(found: Refs) -> dict[str, Any]:
    """Branches and tags."""
    return {
        "branches": [
            {"name": n, "ref": f"refs/heads/{n}", "targetCommit": c} for n, c in found.branches
        ],
        "tags": [{"name": n, "ref": f"refs/tags/{n}", "targetCommit": c} for n, c in found.tags],
        "converts": [],
    }
