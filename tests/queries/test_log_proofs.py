"""Proofs of inclusion and of growth, recomputed by hand."""

from __future__ import annotations

import base64
import hashlib

import pytest
from sqlalchemy import text

from registry.client.log_proofs import check_entry, check_growth
from registry.errors import Invalid, NotFound, Unverified
from registry.proof import notes
from registry.proof.keys import SigningKey
from registry.queries import audit, log_proofs
from registry.rules.actions import Action
from registry.rules.actors import SYSTEM
from tests.queries.logs import ORIGIN, Log


def by_definition(leaves: list[bytes]) -> bytes:
    """The root as RFC 6962, 2.1 defines it, with nothing of ours."""
    if len(leaves) == 1:
        return leaves[0]
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    left, right = by_definition(leaves[:half]), by_definition(leaves[half:])
    return hashlib.sha256(b"\x01" + left + right).digest()


def test_an_entry_is_proven_by_hand(full: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client without our code follows the hashes from the entry's bytes to the signed root."""
    monkeypatch.setattr(log_proofs, "CHUNK_ROWS", 2)
    with full.store.read(SYSTEM) as session:
        entries = list(
            session.scalars(
                text("select e.entry from event e join leaf l on l.event_id = e.id order by l.seq")
            )
        )
    leaves = [hashlib.sha256(b"\x00" + bytes(entry)).digest() for entry in entries]
    size = len(leaves)
    signed = base64.b64decode(audit.prove(full.store, SYSTEM, seq=0).note.split("\n")[2])
    assert signed == by_definition(leaves)
    for seq in range(size):
        proof = audit.prove(full.store, SYSTEM, seq=seq)
        assert (proof.seq, proof.size, proof.old_size) == (seq, size, None)
        assert proof.leaf == f"sha256:{leaves[seq].hex()}"
        node, place, width = leaves[seq], seq, size
        for sibling in [bytes.fromhex(each.removeprefix("sha256:")) for each in proof.hashes]:
            while 1 < width == place + 1 and place % 2 == 0:  # a last node without a neighbour
                place, width = place // 2, (width + 1) // 2
            pair = sibling + node if place % 2 else node + sibling
            node = hashlib.sha256(b"\x01" + pair).digest()
            place, width = place // 2, (width + 1) // 2
        assert node == signed


def test_growth_is_proven_against_each_signed_head(log: Log) -> None:
    heads = {}
    for number in range(5):
        with log.store.write(SYSTEM, Action.POLICY_PUBLISH) as tx:
            tx.audit(f"policy:{number}", number=number)
        log.sequencer.step()
        head = audit.tree_head(log.store, SYSTEM)
        assert head is not None
        heads[head.size] = head
    assert len(heads) == 5
    with log.store.read(SYSTEM) as session:
        leaves = list(session.scalars(text("select hash from leaf order by seq")))
    for old, new in ((a, b) for a in heads for b in heads if a <= b):
        proof = audit.prove(log.store, SYSTEM, old_size=old, size=new)
        assert (proof.size, proof.old_size, proof.note) == (new, old, heads[new].note)
        check_growth(proof, heads[old].note, log.log_key)
        assert proof.root == f"sha256:{by_definition([bytes(leaf) for leaf in leaves[:new]]).hex()}"
    newest = max(heads)
    assert audit.prove(log.store, SYSTEM, old_size=newest).hashes == []
    # A proof of one head does not fit another, nor a key of somebody else.
    proof = audit.prove(log.store, SYSTEM, old_size=min(heads))
    with pytest.raises(Unverified) as refused:
        check_growth(proof, heads[newest - 1].note, log.log_key)
    assert refused.value.kind == "proof-wrong"
    other = notes.verifier_key(ORIGIN, SigningKey.generate().public)
    with pytest.raises(Unverified) as refused:
        check_growth(proof, heads[min(heads)].note, other)
    assert refused.value.kind == "note-unsigned"


def test_a_changed_leaf_gives_a_proof_that_the_client_refuses(full: Log) -> None:
    for lie in ("seq = 3", "seq = 4"):
        change = f"update leaf set hash = decode(repeat('00', 32), 'hex') where {lie}"
        with full.tampered("leaf", change):
            proof = audit.prove(full.store, SYSTEM, seq=3)
        with pytest.raises(Unverified) as refused:
            check_entry(proof, 3, proof.leaf, full.log_key)
        assert refused.value.kind == "proof-wrong"
    proof = audit.prove(full.store, SYSTEM, seq=3)
    check_entry(proof, 3, proof.leaf, full.log_key)
    for leaf in (
        None,
        "",
        "sha256:zz",
        "sha256:" + "0" * 64,
        audit.prove(full.store, SYSTEM, 4).leaf,
    ):
        with pytest.raises(Unverified):
            check_entry(proof, 3, leaf, full.log_key)
    with pytest.raises(Unverified):
        check_entry(proof, 4, proof.leaf, full.log_key)


def test_no_proof_beyond_the_tree_or_of_an_unsigned_size(full: Log) -> None:
    head = audit.tree_head(full.store, SYSTEM)
    assert head is not None
    for wrong in (
        {},
        {"seq": 1, "old_size": 1},
        {"seq": head.size},
        {"old_size": head.size + 1},
        {"old_size": 0},
    ):
        with pytest.raises(Invalid) as refused:
            audit.prove(full.store, SYSTEM, **wrong)
        assert refused.value.kind == "bad-proof-range"
    with pytest.raises(NotFound) as missing:
        audit.prove(full.store, SYSTEM, seq=0, size=head.size - 1)
    assert missing.value.kind == "tree-head-missing"
