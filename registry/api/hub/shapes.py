"""The dialect's JSON: versions as a git host describes repositories."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
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
"""Properties that clients may ask to have expanded. Those that have no meaning here are left out
of the answer.
"""
MAX_REGULAR_BYTES = 1 << 20
"""Largest text that appears as an ordinary git file. Everything else appears as a pointer, named
by its SHA-256.
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
    """The object id that git gives these bytes."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def is_large(file: FileView) -> bool:
    """Whether git would keep only a pointer to this file."""
    return file.path.endswith(".safetensors") or file.size > MAX_REGULAR_BYTES


@lru_cache(maxsize=16384)
def _small(blobs: Blobs, sha256: str, size: int) -> str:
    return git_oid(blobs.read(sha256, 0, size))


def entry(blobs: Blobs, file: FileView) -> dict[str, Any]:
    """One file of a tree."""
    row: dict[str, Any] = {"type": "file", "path": file.path, "size": file.size}
    if not is_large(file):
        return row | {"oid": _small(blobs, file.sha256, file.size)}
    text = pointer(file)
    large = {"oid": file.sha256, "size": file.size, "pointerSize": len(text)}
    return row | {"oid": git_oid(text), "lfs": large}


def tree(blobs: Blobs, version: Pulled, under: str, deep: bool) -> list[dict[str, Any]] | None:
    """The files and folders under a path, ordered by path; None when there is no such folder."""
    if itself := [entry(blobs, file) for file in version.files if under and file.path == under]:
        # A git host lists a file as itself: clients do not know whether a path is a folder.
        return itself
    prefix = f"{under}/" if under else ""
    entries: dict[str, dict[str, Any]] = {}
    for file in version.files:
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


def info(version: Pulled, blobs: Blobs | None = None) -> dict[str, Any]:
    """A repository at a revision; with `blobs`, also the sizes and object ids of its files."""
    siblings: list[dict[str, Any]] = []
    for file in version.files:
        sibling: dict[str, Any] = {"rfilename": file.path}
        if blobs is not None:
            full = entry(blobs, file)
            sibling |= {"size": file.size, "blobId": full["oid"]}
            if lfs := full.get("lfs"):
                sibling["lfs"] = {
                    "sha256": lfs["oid"],
                    "size": lfs["size"],
                    "pointerSize": lfs["pointerSize"],
                }
        siblings.append(sibling)
    library = "peft" if version.kind == "adapter" else "transformers"
    tags = [version.kind, library, "safetensors", TASK]
    if licence := version.meta.get("licence"):
        tags.append(f"license:{licence}")
    if version.deprecated:
        tags.append("deprecated")
    card = {"library_name": library} | ({"license": licence} if licence else {})
    at = moment(version.created_at)
    return {
        "_id": str(version.id),
        "id": version.repo,
        "modelId": version.repo,
        "author": version.repo.partition("/")[0],
        "sha": version.commit,
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


def properties(query: QueryParams) -> set[str]:
    """The properties that a client asks to have expanded, in either spelling of a list.

    Raises Invalid (`bad-expand`) for a property that no Hub knows.
    """
    expanded = {
        name
        for key in ("expand", "expand[]")
        for name in query.getlist(key)
        if name.lower() not in ("true", "false", "")
    }
    if unknown := expanded - EXPANDABLE:
        raise Invalid("bad-expand", f"There is no property '{min(unknown)[:40]}' to expand.")
    return expanded


def only(answer: dict[str, Any], query: QueryParams) -> dict[str, Any]:
    """The properties that `expand` names, and the name; all properties when it names none."""
    expanded, answer = properties(query), {**answer}
    if "downloadsAllTime" in expanded:
        answer["downloadsAllTime"] = 0
    if query.get("securityStatus", "").lower() in ("true", "1"):
        answer["securityRepoStatus"] = {"scansDone": False, "filesWithIssues": []}
    if not expanded:
        return answer
    return {key: value for key, value in answer.items() if key in expanded | {"_id", "id"}}


def with_last_commit(entries: list[dict[str, Any]], version: Pulled) -> list[dict[str, Any]]:
    """Entries with the commit that last changed them: always the version itself, since a version
    never changes.
    """
    last = {"id": version.commit, "title": version.ref, "date": moment(version.created_at)}
    return [{**each, "lastCommit": last} for each in entries]


def commit(version: Pulled, formatted: bool = False) -> dict[str, Any]:
    """A version as a commit.

    `formatted` asks for HTML; names here contain no character that HTML would interpret.
    """
    answer = {
        "id": version.commit,
        "title": version.ref,
        "message": "",
        "date": moment(version.created_at),
        "authors": [{"user": version.author}],
    }
    return answer | ({"formatted": {"title": version.ref, "message": ""}} if formatted else {})


def refs(repository: Refs) -> dict[str, Any]:
    """A repository's branches and tags."""
    return {
        "branches": _refs("heads", repository.branches),
        "tags": _refs("tags", repository.tags),
        "converts": [],
    }


def _refs(kind: str, commits: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    return [
        {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": commit}
        for name, commit in commits
    ]
