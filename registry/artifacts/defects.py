"""What is wrong with a bundle, told whole but bounded: a hostile bundle must not make its refusal
the attack.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from registry.errors import Defect

MOST = 500
"""Defects told one by one; of the rest, how many of which kind in which file."""
WIDTHS = {"file": 200, "where": 200, "detail": 600, "fix": 300}
"""Characters of each part of a defect."""


def shown(text: str, most: int) -> str:
    """A text as it may be shown: cut, and without what steers a terminal, hides, or turns the
    direction of writing.
    """
    if not text.isprintable():
        text = "".join(
            letter if letter.isprintable() else letter.encode("unicode_escape").decode()
            for letter in text[:most]
        )
    return text if len(text) <= most else text[: most - 1] + "…"


class Defects(list[Defect]):
    """A list that keeps the first MOST defects and counts the others; `told` says both."""

    def __init__(self) -> None:
        super().__init__()
        self._rest: dict[str, Counter[str]] = {}

    def append(self, defect: Defect) -> None:
        if len(self) < MOST:
            parts = {name: shown(getattr(defect, name), most) for name, most in WIDTHS.items()}
            super().append(Defect(rule=defect.rule, **parts))
        else:
            self._rest.setdefault(defect.rule, Counter())[defect.file] += 1

    def extend(self, defects: Iterable[Defect]) -> None:
        for defect in defects:
            self.append(defect)
        if isinstance(defects, Defects):
            for rule, files in defects._rest.items():
                self._rest.setdefault(rule, Counter()).update(files)

    def told(self) -> list[Defect]:
        """The defects, and where there are more than can be told one by one, a last one that counts
        the rest.
        """
        if not self._rest:
            return list(self)
        count = sum(files.total() for files in self._rest.values())
        groups = [
            f"{files.total()} x {rule} in {len(files)} files"
            if len(files) > 1
            else f"{files.total()} x {rule} in {file}"
            for rule, files in sorted(self._rest.items())
            for file in list(files)[:1]
        ]
        detail = f"{count} more defects are not listed: {'; '.join(groups)}"
        return [
            *self,
            Defect(
                "", "", "more-defects", shown(detail, 4000), "Fix those listed, and add it again."
            ),
        ]
