from __future__ import annotations

import hashlib
import json
import random
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from registry.errors import Invalid
from registry.proof import merkle
from tests.proof import vectors


def read(path: Path) -> dict[str, Any]:
    case: dict[str, Any] = json.loads(path.read_text())
    for name in ("leafHash", "root", "root1", "root2"):
        if name in case:
            case[name] = b64decode(case[name] or "")
    case["proof"] = [b64decode(one) for one in case["proof"] or []]
    return case


def test_every_public_inclusion_and_consistency_vector() -> None:
    inclusion, consistency = vectors.cases("inclusion"), vectors.cases("consistency")
    assert len(inclusion) + len(consistency) == 196
    wrong = []
    for path in inclusion:
        case = read(path)
        held = merkle.verify_inclusion(
            case["leafIdx"], case["treeSize"], case["leafHash"], case["proof"], case["root"]
        )
        if held is case["wantErr"]:
            wrong.append(str(path))
    for path in consistency:
        case = read(path)
        held = merkle.verify_consistency(
            case["size1"], case["size2"], case["root1"], case["root2"], case["proof"]
        )
        if held is case["wantErr"]:
            wrong.append(str(path))
    assert not wrong


def recursive_root(leaves: list[bytes]) -> bytes:
    """The definition in RFC 6962, 2.1, word for word: slow, and independent of the frontier."""
    if len(leaves) <= 1:
        return leaves[0] if leaves else hashlib.sha256().digest()
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return merkle.node_hash(recursive_root(leaves[:split]), recursive_root(leaves[split:]))


LEAVES = [merkle.leaf_hash(str(number).encode()) for number in range(40)]


@pytest.mark.parametrize("size", range(len(LEAVES) + 1))
def test_the_frontier_agrees_with_the_definition_and_survives_a_restart(size: int) -> None:
    frontier = merkle.Frontier()
    for leaf in LEAVES[:size]:
        frontier = merkle.Frontier.load(frontier.size, frontier.dump())
        frontier.append(leaf)
    assert frontier.size == size
    assert frontier.root() == merkle.root(LEAVES[:size]) == recursive_root(LEAVES[:size])


@pytest.mark.parametrize(
    ("size", "peaks"),
    [(1, []), (2, [b"x" * 32] * 2), (3, [b"x" * 32] * 3), (1, [b"short"]), (-1, [b"x" * 32])],
)
def test_a_frontier_that_cannot_be_is_refused(size: int, peaks: list[bytes]) -> None:
    with pytest.raises(Invalid) as refusal:
        merkle.Frontier.load(size, peaks)
    assert refusal.value.kind == "bad-frontier"


def test_every_proof_holds_and_no_changed_one_does() -> None:
    chance = random.Random(6962)
    for size in range(1, len(LEAVES) + 1):
        root = merkle.root(LEAVES[:size])
        for index in range(size):
            proof = merkle.inclusion_proof(index, size, LEAVES)
            assert merkle.verify_inclusion(index, size, LEAVES[index], proof, root)
            assert (
                not merkle.verify_inclusion(index, size, LEAVES[index - 1], proof, root)
                or size == 1
            )
            assert not merkle.verify_inclusion(index, size, LEAVES[index], [*proof, root], root)
            if proof:
                place = chance.randrange(len(proof))
                flipped = [*proof]
                flipped[place] = bytes((flipped[place][0] ^ 1, *flipped[place][1:]))
                assert not merkle.verify_inclusion(index, size, LEAVES[index], flipped, root)
                assert not merkle.verify_inclusion(index, size, LEAVES[index], proof[1:], root)
        for old in range(1, size + 1):
            before, proof = merkle.root(LEAVES[:old]), merkle.consistency_proof(old, size, LEAVES)
            assert merkle.verify_consistency(old, size, before, root, proof)
            assert not merkle.verify_consistency(old, size, before, root, [*proof, root])
            assert not merkle.verify_consistency(
                old, size, hashlib.sha256(before).digest(), root, proof
            )
            assert not merkle.verify_consistency(
                old, size, before, hashlib.sha256(root).digest(), proof
            )
            if proof:
                assert not merkle.verify_consistency(old, size, before, root, proof[:-1])


@pytest.mark.parametrize("index", [-1, 3, 4])
def test_no_proof_of_a_leaf_that_is_not_there(index: int) -> None:
    with pytest.raises(Invalid, match=f"leaf {index}"):
        merkle.inclusion_proof(index, 3, LEAVES)


@pytest.mark.parametrize("old", [-1, 0, 4])
def test_no_proof_from_a_tree_that_is_no_part(old: int) -> None:
    with pytest.raises(Invalid, match=f"tree of {old} leaves"):
        merkle.consistency_proof(old, 3, LEAVES)


def test_no_proof_over_leaves_that_are_missing() -> None:
    with pytest.raises(Invalid, match="no leaf 3 in a tree of 3"):
        merkle.inclusion_proof(0, 5, LEAVES[:3])


def test_a_proof_reads_each_leaf_once_and_keeps_none() -> None:
    def leaves() -> Iterator[bytes]:
        yield from LEAVES

    root = merkle.root(LEAVES)
    proof = merkle.inclusion_proof(11, len(LEAVES), leaves())
    assert merkle.verify_inclusion(11, len(LEAVES), LEAVES[11], proof, root)
