"""The Merkle tree of RFC 6962: roots, growth by appending, inclusion and consistency proofs.

Every hash is 32 bytes of SHA-256. A tree of n > 1 leaves splits at the largest power of two below
n. Verification follows RFC 9162, 2.1.3.2 and 2.1.4.2, which describe the same trees and leave fewer
corner cases to the reader.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from itertools import islice

from registry.errors import Invalid

EMPTY = hashlib.sha256(b"").digest()
"""The root of no leaves."""


def leaf_hash(data: bytes) -> bytes:
    """The hash of an entry; the 0 byte before it distinguishes entries from inner nodes."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node over its two children."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Frontier:
    """A growing tree as the roots of its full subtrees, the largest first.

    Appending a leaf and computing the root need no more.
    """

    def __init__(self, entries: Iterable[bytes] = ()) -> None:
        self.size = 0
        self._peaks: list[bytes] = []
        for entry in entries:
            self.add(entry)

    def add(self, entry: bytes) -> None:
        """Add one entry, given by its data."""
        self.append(leaf_hash(entry))

    def append(self, leaf: bytes) -> None:
        """Add one leaf, given by its hash. O(1) on average: subtrees join as a counter carries."""
        size, node = self.size, leaf
        while size & 1:
            node = node_hash(self._peaks.pop(), node)
            size >>= 1
        self._peaks.append(node)
        self.size += 1

    def root(self) -> bytes:
        """The root of all leaves so far."""
        if not self._peaks:
            return EMPTY
        node = self._peaks[-1]
        for peak in reversed(self._peaks[:-1]):
            node = node_hash(peak, node)
        return node

    def text(self) -> str:
        """The root as `sha256:<hex>`."""
        return f"sha256:{self.root().hex()}"

    def dump(self) -> list[bytes]:
        """The roots of the subtrees, the largest first; `load` restores the frontier from them."""
        return list(self._peaks)

    @classmethod
    def load(cls, size: int, peaks: Sequence[bytes]) -> Frontier:
        """The frontier of a dump; Invalid `bad-frontier` if the hashes cannot have that size."""
        if size < 0 or size.bit_count() != len(peaks) or any(len(peak) != 32 for peak in peaks):
            raise Invalid(
                "bad-frontier",
                f"{len(peaks)} hashes are no frontier of a tree of {size} leaves.",
            )
        frontier = cls()
        frontier.size, frontier._peaks = size, [bytes(peak) for peak in peaks]
        return frontier


def root(leaves: Sequence[bytes]) -> bytes:
    """The root over leaf hashes in this order."""
    frontier = Frontier()
    for leaf in leaves:
        frontier.append(leaf)
    return frontier.root()


def _split(size: int) -> int:
    """The largest power of two below `size`: the number of leaves in the left subtree."""
    return 1 << ((size - 1).bit_length() - 1)


def inclusion_proof(index: int, size: int, leaves: Iterable[bytes]) -> list[bytes]:
    """The hashes that lead from leaf `index` to the root, lowest first (PATH of RFC 6962, 2.1.1).

    It reads the first `size` leaf hashes once, in order, and keeps none. Raises Invalid
    `bad-proof-range` if there is no such leaf.
    """
    if not 0 <= index < size:
        raise _out_of_range(f"leaf {index}", size)
    low, high, ranges = 0, size, []
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            ranges.append((middle, high))
            high = middle
        else:
            ranges.append((low, middle))
            low = middle
    return _roots(ranges[::-1], leaves)


def verify_inclusion(
    index: int, size: int, leaf: bytes, proof: Sequence[bytes], expected: bytes
) -> bool:
    """Whether this leaf hash is at `index` in the tree of that size with the expected root."""
    if not 0 <= index < size or not _hashes(leaf, expected, *proof):
        return False
    position, last, node = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if position & 1 or position == last:
            node = node_hash(sibling, node)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            node = node_hash(node, sibling)
        position, last = position >> 1, last >> 1
    return last == 0 and node == expected


def consistency_proof(old_size: int, size: int, leaves: Iterable[bytes]) -> list[bytes]:
    """The hashes that prove that the tree of `old_size` leaves is a prefix of the one of `size`.

    This is PROOF of RFC 6962, 2.1.2. It reads the leaf hashes once, in order, and keeps none.
    Raises Invalid `bad-proof-range` for an old size beyond the size, or of 0: the empty tree is a
    prefix of every tree.
    """
    if not 0 < old_size <= size:
        raise _out_of_range(f"a tree of {old_size} leaves", size)
    low, high, ranges, whole = 0, size, [], True
    while old_size != high:
        middle = low + _split(high - low)
        if old_size <= middle:
            ranges.append((middle, high))
            high = middle
        else:
            ranges.append((low, middle))
            low, whole = middle, False
    if not whole:
        ranges.append((low, high))
    return _roots(ranges[::-1], leaves)


def verify_consistency(
    size1: int, size2: int, root1: bytes, root2: bytes, proof: Sequence[bytes]
) -> bool:
    """Whether the first tree is a prefix of the second.

    False for size 0: the empty tree is a prefix of every tree, so such a proof proves nothing.
    """
    if not 0 < size1 <= size2:
        return False
    if size1 == size2:
        return not proof and root1 == root2
    if not _hashes(root1, root2, *proof):
        return False
    # A full first tree is a node of the second, so its root need not be sent.
    path = [root1, *proof] if size1 & (size1 - 1) == 0 else list(proof)
    if not path:
        return False
    position, last = size1 - 1, size2 - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    old = new = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if position & 1 or position == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        position, last = position >> 1, last >> 1
    return last == 0 and old == root1 and new == root2


def _roots(ranges: Sequence[tuple[int, int]], leaves: Iterable[bytes]) -> list[bytes]:
    """The root over each range of leaves. The ranges do not overlap."""
    roots, unread, place = {}, iter(leaves), 0
    for low, high in sorted(ranges):
        for _ in islice(unread, low - place):
            pass
        frontier = Frontier()
        for leaf in islice(unread, high - low):
            frontier.append(leaf)
        if frontier.size != high - low:
            raise _out_of_range(f"leaf {high - 1}", low + frontier.size)
        roots[low, high] = frontier.root()
        place = high
    return [roots[span] for span in ranges]


def _hashes(*values: bytes) -> bool:
    """Whether each value has 32 bytes; otherwise two empty strings would be a proof."""
    return all(len(value) == 32 for value in values)


def _out_of_range(what: str, size: int) -> Invalid:
    return Invalid("bad-proof-range", f"There is no {what} in a tree of {size} leaves.")
