"""The character map of a SentencePiece model: which texts are replaced by which before any is cut
into pieces.

It is a trie in one array (darts-clone), which sentencepiece before 0.2.3 walks without a look at
its ends: one made up by hand lets it read the memory behind (its issue 1269).
"""

from __future__ import annotations

import sys
from array import array

BLOCK = 1024
"""Bytes of 256 units: a step goes to any unit of a block, so blocks are whole."""
MAX_RULES = 32
"""Rules that begin one another: the library has room for so many (kMaxTrieResultsSize) and writes
no more, but reads as many as there are.
"""
END, RULE = 1 << 31, 1 << 8
"""Bits of a unit: it is the end of a rule, with the place of its text; or a rule ends behind it."""


def check_map(blob: bytes) -> str | None:
    """What is wrong with a map: the size of the trie, its units of 32 bits, and the texts its rules
    lead to; or None.

    Each step ends within the array, and each rule at a text within the texts, as
    DoubleArrayImpl::validate of 0.2.3 asks for; then it is walked level by level, to count how many
    rules one text can meet.
    """
    size = int.from_bytes(blob[:4], "little")
    texts = blob[4 + size :]
    if not size or size % BLOCK or not texts.endswith(b"\0"):
        return "it is no trie of whole blocks with the texts of its rules behind"
    try:
        texts.decode("utf-8")
    except UnicodeDecodeError:
        return "the texts of its rules are not UTF-8"
    units = array("I", blob[4 : 4 + size])
    if sys.byteorder == "big":
        units.byteswap()
    count = len(units)
    # Where a unit's own children begin: bits 10 to 30, eight bits further on when bit 9 is set.
    targets = [at ^ ((unit >> 10) << ((unit & 512) >> 6)) for at, unit in enumerate(units)]
    children: dict[int, list[int]] = {}
    for at, unit in enumerate(units):
        if unit & END:
            if unit & ~END >= len(texts):
                return "a rule of its trie leads to no text"
        elif targets[at] >= count or (unit & RULE and not units[targets[at]] & END):
            return "a step of its trie leads out of it"
        else:
            children.setdefault(at ^ (unit & 0xFF), []).append(at)
    if not 0 < targets[0] < count or units[0] & (END | RULE | 0xFF):
        return "its trie has no root"
    level, steps = {targets[0]: 0}, 0
    while level:
        below: dict[int, int] = {}
        for node, rules in level.items():
            for at in children.get(node, ()):
                steps, nested = steps + 1, rules + bool(units[at] & RULE)
                if nested > MAX_RULES or steps > 2 * count:
                    return (
                        f"its trie goes in circles, or more than {MAX_RULES} of its rules "
                        "begin one another"
                    )
                below[targets[at]] = max(below.get(targets[at], 0), nested)
        level = below
    return None
