"""The character map of a SentencePiece model: replacements that are made before a text is split.

It is a trie in one array (darts-clone), and sentencepiece before 0.2.3 follows it without checking
the ends of the array: a forged map makes it read the memory behind (its issue 1269).
"""

from __future__ import annotations

import sys
from array import array

BLOCK = 1024
"""Bytes of 256 units: a step may go to any unit of a block, so a map has only whole blocks."""
MAX_RULES = 32
"""Rules of which each begins the next.

The library has room for this many (kMaxTrieResultsSize) and writes no more, but reads as many as
there are.
"""
END = 1 << 31
"""The bit of a unit that ends a rule; its other bits are the position of the rule's text."""
RULE = 1 << 8
"""The bit of a unit behind which a rule ends."""


def check_map(blob: bytes) -> str | None:
    """What is wrong with a map, or None.

    A map is the size of the trie, its units of 32 bits, and the texts of its rules. Each step must
    end within the array and each rule at a text, as DoubleArrayImpl::validate of 0.2.3 requires.
    Then the trie is followed level by level to count how many rules one text can match.
    """
    size = int.from_bytes(blob[:4], "little")
    texts = blob[4 + size :]
    if not size or size % BLOCK or not texts.endswith(b"\0"):
        return "it is not a trie of whole blocks followed by the texts of its rules"
    try:
        texts.decode("utf-8")
    except UnicodeDecodeError:
        return "the texts of its rules are not UTF-8"
    units = array("I", blob[4 : 4 + size])
    if sys.byteorder == "big":
        units.byteswap()
    count = len(units)
    # Where the children of a unit begin: bits 10 to 30, shifted by eight bits when bit 9 is set.
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
        next_level: dict[int, int] = {}
        for node, rules in level.items():
            for at in children.get(node, ()):
                steps, nested = steps + 1, rules + bool(units[at] & RULE)
                if nested > MAX_RULES or steps > 2 * count:
                    return (
                        f"its trie has a cycle, or more than {MAX_RULES} of its rules begin with "
                        "one another"
                    )
                next_level[targets[at]] = max(next_level.get(targets[at], 0), nested)
        level = next_level
    return None
