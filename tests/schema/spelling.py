"""PostgreSQL's own spelling of a definition, as one would write it, in lines of the width."""

from __future__ import annotations

import re
import textwrap

WIDTH = 100
VALUE = r"[a-z_.]+(?:\([a-z_]+\))?"
LITERAL = r"'(?:[^']|'')*'"
# One comparison in parentheses of its own, which `and` and `or` around it do not need.
COMPARISON = re.compile(
    rf"(?:(?<=\()|(?<=\band )|(?<=\bor ))\(({VALUE} (?:is (?:not )?null"
    rf"|between [0-9]+ and [0-9]+|(?:not )?in \([^()]*\)|[<>=!~]+ (?:{LITERAL}|[a-z0-9_.]+)))\)"
    r"(?=\)| and | or )"
)


def spelled(line: str) -> str:
    """PostgreSQL's own spelling, as one would write it: in lower case, `in` for `= any (array`."""
    parts = re.split(f'({LITERAL}|"[^"]*")', line)
    line = "".join(part if at % 2 else part.lower() for at, part in enumerate(parts))
    line = re.sub(r"(?<=')::(?:text|jsonpath)(?!\[)", "", line).replace("public.", "")
    line = re.sub(r" = any \(array\[([^]]*)\]\)", r" in (\1)", line)
    line = re.sub(r" <> all \(array\[([^]]*)\]\)", r" not in (\1)", line)
    line = re.sub(
        r"(?<=')\s*::interval", "", re.sub(rf"({LITERAL})::interval", r"interval \1", line)
    )
    line = line.replace("timestamp with time zone", "timestamptz").replace(" using btree", "")
    line = re.sub(r"(check|where|when) \(\((.*)\)\)(?= deferrable| execute|$)", r"\1 (\2)", line)
    line = re.sub(r" where \((.*)\)$", r" where \1", line)
    line = re.sub(
        rf"({VALUE}) >= ([0-9]+) and \1 <= ([0-9]+)",
        r"\1 between \2 and \3",
        COMPARISON.sub(r"\1", line),
    )
    return COMPARISON.sub(r"\1", line)


def wrapped(line: str, pieces: str = "(?!)") -> str:
    """Break a line past the width: first where the pattern says, then at blanks, and last inside a
    literal, whose two halves on two lines SQL reads as one.
    """
    margin = line[: len(line) - len(line.lstrip())]
    out = [margin]
    for piece in re.split(f" (?={pieces})", line.lstrip()):
        words = [piece]
        if len(margin) + 4 + len(piece) > WIDTH:
            words = [
                part
                for word in re.findall(rf"(?:{LITERAL}|[^' ])+", piece)
                for part in ([word] if len(word) < WIDTH - 8 else _parts(word))
            ]
        for word in words:
            full = len(out[-1]) + 1 + len(word) > WIDTH
            if out[-1].strip() and (full or word[:1] == out[-1][-1:] == "'"):
                out.append(margin + "    ")
            out[-1] += (" " if out[-1].strip() else "") + word
    return "\n".join(part.rstrip() for part in out)


def _parts(word: str) -> list[str]:
    """A word with a long literal in it, cut at the literal's blanks."""
    before, literal, after = word.partition(re.findall(LITERAL, word)[0])
    lines = textwrap.wrap(literal[1:-1], WIDTH - 20, drop_whitespace=False)
    quoted = [f"'{line}'" for line in lines]
    return [before, *quoted[:-1], quoted[-1] + after]
