"""The file `tokenizer.model`: a SentencePiece model, or tiktoken's table of tokens by rank."""

from __future__ import annotations

import binascii
import re

from registry.artifacts.contents import MAX_LINE, Wrong
from registry.artifacts.tokenizers.sentencepieces import MAX_PIECES, check_sentencepiece

RANKED = re.compile(rb"[A-Za-z0-9+/]{2,}={0,2} [0-9]")
RANK = re.compile(rb"([A-Za-z0-9+/=]{4,1368}) (0|[1-9][0-9]{0,6})")
FIRST = frozenset(b"\x0a\x12\x1a\x22\x2a")
"""The possible first bytes of a SentencePiece model: the tags of its five fields."""
FIX = "Fetch the file again, or leave it out where tokenizer.json has the same content."


def check_vocabulary(data: bytes, wrong: Wrong) -> None:
    """Record what is wrong with a tokenizer.model.

    Its bytes decide what it is, not the tokenizer class that the bundle names.
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
            FIX,
        )


def check_ranks(data: bytes, wrong: Wrong) -> None:
    """Record what is wrong with a table of tokens by rank.

    Each line has a token in base64, a blank and its rank. Ranks rise, and no token is repeated
    (tiktoken/load.py, load_tiktoken_bpe).
    """
    lines = data.removesuffix(b"\n").split(b"\n")
    if len(lines) > MAX_PIECES:
        wrong(
            "",
            "token-table",
            f"it has {len(lines)} lines, but at most {MAX_PIECES} are accepted",
            FIX,
        )
        return
    tokens: set[bytes] = set()
    last = -1
    for number, line in enumerate(lines, 1):
        match = RANK.fullmatch(line)
        token = _token(match[1]) if match else b""
        if match is None or not token or token in tokens or int(match[2]) <= last:
            wrong(
                f"line {number}",
                "token-table",
                f"each line has a new token of at most {MAX_LINE} bytes in base64, a blank, and a "
                "rank above the last",
                FIX,
            )
            return
        tokens.add(token)
        last = int(match[2])


def _token(text: bytes) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        return b""
