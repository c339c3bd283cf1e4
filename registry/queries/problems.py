"""What a check found wrong, in words, without end in number but not in memory."""

from __future__ import annotations

TOLD = 100


class Problems:
    """The first hundred problems, and how many there were: a log broken once is broken in every
    root after.
    """

    def __init__(self) -> None:
        self.count = 0
        self._told: list[str] = []

    def add(self, problem: str) -> None:
        """Note one more."""
        self.count += 1
        if self.count <= TOLD:
            self._told.append(problem)

    def told(self) -> list[str]:
        """The problems in the order they were found, and how many more there are."""
        more = self.count - len(self._told)
        return [*self._told, f"and {more} more"] if more else list(self._told)
