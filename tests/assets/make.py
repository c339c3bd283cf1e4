"""Named good and bad bundles, the same bytes on every machine: `python -m tests.assets.make FOLDER`
writes them out.

The tests make them in memory. What is made is held by `digests.txt`, a line a case; `--digests`
prints it anew.
"""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path

from tests.assets import texts, weights
from tests.assets.cases import Case, sound

CASES: dict[str, Case] = {"sound": Case("base", sound), **weights.CASES, **texts.CASES}
DIGESTS = Path(__file__).with_name("digests.txt")


def digests() -> str:
    """One line a case: the first 16 hex digits over its files in order of their paths, and its
    name.
    """
    lines = []
    for name, case in CASES.items():
        whole = hashlib.sha256()
        for path, content in sorted(case.make().items()):
            whole.update(
                len(path.encode()).to_bytes(4, "big")
                + path.encode()
                + hashlib.sha256(content).digest()
            )
        lines.append(f"{whole.hexdigest()[:16]} {name}\n")
    return "".join(lines)


def write(folder: Path) -> None:
    """A folder a case, under good or bad; cases whose paths no file system takes are left out, and
    named.
    """
    for name, case in CASES.items():
        place = (
            folder
            / ("bad" if case.defects else "good")
            / re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip("-")
        )
        if name.startswith("path: "):
            print(f"left out: {name}", file=sys.stderr)
            continue
        place.mkdir(parents=True)
        for path, content in case.make().items():
            (place / path).write_bytes(content)


if __name__ == "__main__":
    if sys.argv[1:] == ["--digests"]:
        print(digests(), end="")
    else:
        write(Path(sys.argv[1]))
