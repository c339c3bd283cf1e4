"""The defects of a bundle, all of them but bounded: the refusal must not become the attack."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from registry.errors import Defect

MAX_DEFECTS = 500
"""Defects listed one by one; the others are counted by kind and file."""
MAX_LENGTHS = {"file": 200, "where": 200, "detail": 600, "fix": 600}
"""Characters of each part of a defect."""


def shown(text: str, max_length: int) -> str:
    """A text that is safe to show.

    It is cut to `max_length` characters. Characters that control a terminal, are invisible or
    change the direction of writing are escaped.
    """
    if not text.isprintable():
        text = "".join(
            letter if letter.isprintable() else letter.encode("unicode_escape").decode()
            for letter in text[:max_length]
        )
    return text if len(text) <= max_length else text[: max_length - 1] + "…"


class Defects(list[Defect]):
    """A list that keeps the first MAX_DEFECTS defects and counts the others."""

    def __init__(self) -> None:
        super().__init__()
        self._rest: dict[str, Counter[str]] = {}

    def append(self, defect: Defect) -> None:
        if len(self) < MAX_DEFECTS:
            parts = {
                name: shown(getattr(defect, name), length) for name, length in MAX_LENGTHS.items()
            }
            super().append(Defect(rule=defect.rule, **parts))
        else:
            self._rest.setdefault(defect.rule, Counter())[defect.file] += 1

    def extend(self, defects: Iterable[Defect]) -> None:
        for defect in defects:
            self.append(defect)
        if isinstance(defects, Defects):
            for rule, files in defects._rest.items():
                self._rest.setdefault(rule, Counter()).update(files)

    def listed(self) -> list[Defect]:
        """The defects; if there are more than MAX_DEFECTS, the last one counts the others."""
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
