"""What is wrong with a bundle, told whole but bounded: a hostile bundle must not make its refusal the attack."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from registry.errors import Defect

MOST = 500
"""Defects told one by one; of the rest, how many of which kind in which file."""
GROUPS = 20
WIDTHS = {"file": 200, "where": 200, "detail": 600, "mend": 300}
"""Characters of each part of a defect."""


def shown(text: str, most: int) -> str:
    """A text as it may be shown: cut, and without what steers a terminal, hides, or turns the direction of writing."""
    if not text.isprintable():
        text = "".join(
            letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text[:most]
        )
    return text if len(text) <= most else text[: most - 1] + "…"


class Defects(list[Defect]):
    """A list that keeps the first MOST defects and counts the others; `told` says both."""

    def __init__(self) -> None:
        super().__init__()
        self._rest: Counter[tuple[str, str]] = Counter()

    def append(self, defect: Defect) -> None:
        if len(self) < MOST:
            parts = {name: shown(getattr(defect, name), most) for name, most in WIDTHS.items()}
            super().append(Defect(rule=defect.rule, **parts))
        else:
            self._rest[shown(defect.file, WIDTHS["file"]), defect.rule] += 1

    def extend(self, defects: Iterable[Defect]) -> None:
        for defect in defects:
            self.append(defect)

    def told(self) -> list[Defect]:
        """The defects, and where there are more than can be told one by one, a last one that counts the rest."""
        if not self._rest:
            return list(self)
        groups = sorted(self._rest.items(), key=lambda item: (-item[1], item[0]))
        counted = [f"{count} x {rule}{f' in {file}' if file else ''}" for (file, rule), count in groups[:GROUPS]]
        if len(groups) > GROUPS:
            counted.append(f"{len(groups) - GROUPS} other kinds")
        detail = f"{self._rest.total()} more defects are not listed: {'; '.join(counted)}"
        return [*self, Defect("", "", "more-defects", shown(detail, 2000), "Mend those listed, and add it again.")]
