"""The problems that a check found, in words, in bounded memory."""

from __future__ import annotations

MAX_LISTED = 100


class Problems:
    """The first hundred problems and the number of all.

    The rest is only counted, because one break in the log makes every later root wrong.
    """

    def __init__(self) -> None:
        self.count = 0
        self._first: list[str] = []

    def add(self, problem: str) -> None:
        """Add one problem."""
        self.count += 1
        if self.count <= MAX_LISTED:
            self._first.append(problem)

    def listed(self) -> list[str]:
        """The first problems in the order of `add`, and how many follow them."""
        rest = self.count - len(self._first)
        return [*self._first, f"and {rest} more"] if rest else list(self._first)
