"""The session that loaders take.

It knows the actor, so that no loader can forget what the actor may not see.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Engine, true
from sqlalchemy.orm import InstrumentedAttribute, Session

from registry.rules.actors import Actor

Team = InstrumentedAttribute[str] | ColumnElement[Any]


def seen(actor: Actor, team: Team) -> ColumnElement[bool]:
    """An SQL condition: the actor sees this row's team.

    It is in SQL so that pages are full and counts exact.
    """
    teams = actor.teams()
    return true() if teams is None else team.in_(teams)


class Sighted(Session):
    """A session on behalf of an actor; only Store opens one.

    A function that loads by a name, number or id from a request takes such a session. It raises
    NotFound for another team's rows, exactly as for rows that do not exist. A function that starts
    from a loaded row takes any session. The registry itself reads with `store.read(SYSTEM)`.
    """

    def __init__(self, engine: Engine, actor: Actor) -> None:
        super().__init__(engine, expire_on_commit=False)
        self.actor = actor

    def seen(self, team: Team) -> ColumnElement[bool]:
        """An SQL condition: the session's actor sees this row's team."""
        return seen(self.actor, team)
