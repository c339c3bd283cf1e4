"""Archives that are not what they say: spoilt by hand, then by chance."""

from __future__ import annotations

import io
import json
import random
import zipfile

from registry.documents import canonical
from tests.proof.judging import HEADS, KEY, Judge, honest, redeclared
from tests.proof.packs import members, story, zipped


def test_members_added_missing_renamed_or_twice(judge: Judge) -> None:
    found = honest()
    without = {name: data for name, data in found.items() if name != "tree_heads/4.note"}
    judge.refuses(zipped(without), "['tree_heads/4.note'] is missing")
    judge.refuses(
        zipped({**found, "tree_heads/2.note": found["tree_heads/4.note"]}),
        "added without being declared",
    )
    judge.refuses(
        zipped({**without, "tree_heads/5.note": found["tree_heads/4.note"]}),
        "is missing, or was added",
    )
    renamed = redeclared({**without, "tree_heads/5.note": found["tree_heads/4.note"]})
    judge.refuses(zipped(renamed), "tree_heads/5.note is no tree head of this log and size")
    for name in (
        "readme.txt",
        "../events.jsonl",
        "/etc/passwd",
        "tree_heads/",
        "tree_heads/04.note",
        "Events.jsonl",
        "tree_heads\\4.note",
        "log.pub",
        "EVENTS.JSONL",
        "events.jsonl ",
        "./events.jsonl",
    ):
        judge.refuses(zipped(redeclared({**found, name: b""})), "which is no part of a pack")
    judge.refuses(zipped(redeclared({**found, "tree_heads/\u0664.note": b""})), "The archive holds")
    cut = zipped(redeclared({**found, "events.jsonl?": b""})).replace(
        b"events.jsonl?", b"events.jsonl\0"
    )
    judge.refuses(cut, "which is no part of a pack")
    for name in ("events.jsonl", "votes.jsonl"):
        less = redeclared({key: data for key, data in found.items() if key != name})
        judge.refuses(zipped(less), f"'{name}'] is missing")
    judge.refuses(
        zipped({name: data for name, data in found.items() if name != "pack.json"}),
        "no proper pack.json",
    )
    twin = zipped(redeclared({**found, "events.twin?": b""})).replace(
        b"events.twin?", b"events.jsonl"
    )
    judge.refuses(twin, "holds events.jsonl twice")


def test_no_byte_beside_the_members(judge: Judge) -> None:
    archive = zipped(honest())
    judge.refuses(b"#!/bin/sh\n" + archive, "bytes that belong to no member")
    judge.refuses(archive + b"\0", "")
    comment = b"by the way"
    judge.refuses(
        archive[:-2] + len(comment).to_bytes(2, "little") + comment,
        "bytes that belong to no member",
    )
    end = archive.rindex(b"PK\x05\x06")
    listing = int.from_bytes(archive[end + 16 : end + 20], "little")
    hidden = b"hidden between the members and their listing"
    moved = (
        archive[end : end + 16]
        + (listing + len(hidden)).to_bytes(4, "little")
        + archive[end + 20 :]
    )
    judge.refuses(archive[:listing] + hidden + archive[listing:end] + moved, "bytes behind it")


def test_encrypted_members_and_bombs_are_refused(judge: Judge) -> None:
    archive = bytearray(zipped(honest()))
    archive[6] |= 1
    place = archive.index(b"PK\x01\x02")
    archive[place + 8] |= 1
    judge.refuses(bytes(archive), "is encrypted or packed in an unusual way")
    bomb = {**honest(), "votes.jsonl": b"\n" * (60 << 20)}
    judge.refuses(zipped(bomb, zipfile.ZIP_DEFLATED), "would unpack to")
    line = {**honest(), "votes.jsonl": b"x" * (17 << 20)}
    judge.refuses(zipped(redeclared(line)), "cut off or too long")


def test_a_pack_of_another_format_says_so(judge: Judge) -> None:
    found = honest()
    about = json.loads(found["pack.json"])
    for change, because in (
        ({"format": "countersign-pack/2"}, "not of the format countersign-pack/1"),
        ({"size": 19}, "another size or root"),
        ({"root": about["root"][:-1] + "x"}, "another size or root"),
        ({"origin": "x"}, "The pack is of x"),
        ({"created_at": "today"}, "lacks a field"),
        ({"more": 1}, "lacks a field"),
        ({"members": []}, ""),
        (
            {"members": {**about["members"], "votes.jsonl": "0" * 64}},
            "votes.jsonl is not the file that pack.json declares",
        ),
        ({"members": {**about["members"], "pack.json": ""}}, "added without being declared"),
    ):
        judge.refuses(
            zipped({**found, "pack.json": canonical.encode({**about, **change})}), because
        )
    judge.refuses(
        zipped({**found, "pack.json": json.dumps(about).encode()}),
        "pack.json is not canonical JSON",
    )
    judge.refuses(zipped({**found, "pack.json": b"[]"}), "not of the format")


def test_votes_are_exactly_those_of_the_entries(judge: Judge) -> None:
    lines = honest()["votes.jsonl"].splitlines()
    for votes in (
        [],
        lines[:1],
        lines[::-1],
        [*lines, lines[0]],
        [lines[0], lines[0]],
        [b"{}", lines[1]],
    ):
        judge.refuses(
            zipped(members(story(), KEY, HEADS, votes=votes)),
            "in votes.jsonl is not that of the log",
        )


def changes(chance: random.Random, data: bytes) -> bytes:
    """One random change: of a bit, of the order or number of lines, or of the length."""
    lines = data.splitlines(keepends=True)
    one, other = chance.randrange(len(lines)), chance.randrange(len(lines))
    match chance.choice(["flip", "flip", "flip", "swap", "delete", "repeat", "cut", "byte"]):
        case "flip":
            place = chance.randrange(len(data))
            return (
                data[:place] + bytes((data[place] ^ 1 << chance.randrange(8),)) + data[place + 1 :]
            )
        case "swap":
            lines[one], lines[other] = lines[other], lines[one]
        case "delete":
            del lines[one]
        case "repeat":
            lines.insert(other, lines[one])
        case "cut":
            return data[: chance.randrange(len(data))]
        case _:
            place = chance.randrange(len(data))
            return data[:place] + chance.randbytes(1) + data[place:]
    return b"".join(lines)


def test_no_random_change_of_a_member_passes(judge: Judge) -> None:
    """Every pack is fixed as far as one can without the log's key: digests, size and root in
    pack.json fit again.
    """
    chance = random.Random(2026)
    before, tried = honest(), 0
    while tried < 150:
        name = chance.choice(
            [*(one for one in before if one != "pack.json"), "events.jsonl", "votes.jsonl"]
        )
        changed = {**before, name: changes(chance, before[name])}
        if changed == before:
            continue
        tried += 1
        assert judge(zipped(redeclared(changed)))["problems"], (name, changed[name])
        assert judge(zipped(changed))["problems"], (name, changed[name])


def test_no_random_change_of_pack_json_passes_but_of_its_unsigned_time(judge: Judge) -> None:
    chance = random.Random(11)
    before = honest()
    for _ in range(100):
        changed = changes(chance, before["pack.json"])
        if not judge(zipped({**before, "pack.json": changed}))["problems"]:
            assert {**json.loads(changed), "created_at": ""} == {
                **json.loads(before["pack.json"]),
                "created_at": "",
            }


def read(archive: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(archive)) as pack:
        return {name: pack.read(name) for name in pack.namelist()}


def test_a_random_change_of_the_archive_is_refused_or_touches_no_member(judge: Judge) -> None:
    """Dates and the like of the archive itself say nothing; what passes must hold the very same
    members.
    """
    chance = random.Random(7)
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        archive = zipped(honest(), method)
        same = read(archive)
        for _ in range(100):
            changed = changes(chance, archive)
            if not judge(changed)["problems"]:
                assert read(changed) == same
