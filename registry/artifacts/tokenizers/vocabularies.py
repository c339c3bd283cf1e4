"""The file `tokenizer.model`, which is one of two things: SentencePiece's model, or tiktoken's
table of tokens by rank.
"""

from __future__ import annotations

import binascii
import re

from registry.artifacts.contents import MAX_LINE, Wrong
from registry.artifacts.tokenizers.sentencepieces import MAX_PIECES, check_sentencepiece

RANKED = re.compile(rb"[A-Za-z0-9+/]{2,}={0,2} [0-9]")
RANK = re.compile(rb"([A-Za-z0-9+/=]{4,1368}) (0|[1-9][0-9]{0,6})")
FIRST = frozenset(b"\x0a\x12\x1a\x22\x2a")
"""With what a SentencePiece model can begin: one of its five fields."""
MEND = "Fetch the file again, or leave it out where tokenizer.json says the same."


def check_vocabulary(data: bytes, wrong: Wrong) -> None:
    """Note what is wrong with a tokenizer.model, by what its bytes are and not by who is said to
    have written it.
    """
    if RANKED.match(data):
        check_ranks(data, wrong)
    elif data[:1] and data[0] in FIRST:
        check_sentencepiece(data, wrong)
    else:
        wrong(
            "",
            "sentencepiece",
            "it is neither a SentencePiece model nor a table of tokens by rank",
            MEND,
        )


def check_ranks(data: bytes, wrong: Wrong) -> None:
    """A token a line, in base64, a blank and its rank, from the least on, none twice
    (tiktoken/load.py, load_tiktoken_bpe).
    """
    lines = data.removesuffix(b"\n").split(b"\n")
    if len(lines) > MAX_PIECES:
        wrong(
            "", "token-table", f"it has {len(lines)} lines, at most {MAX_PIECES} are accepted", MEND
        )
        return
    tokens: set[bytes] = set()
    last = -1
    for number, line in enumerate(lines, 1):
        token = _token(found[1]) if (found := RANK.fullmatch(line)) else b""
        if found is None or not token or token in tokens or int(found[2]) <= last:
            wrong(
                f"line {number}",
                "token-table",
                "each line holds another token of at most "
                f"{MAX_LINE} bytes in base64, a blank, and a rank above the last",
                MEND,
            )
            return
        tokens.add(token)
        last = int(found[2])


def _token(text: bytes) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        return b""
