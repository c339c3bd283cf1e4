"""The session that loaders take: it carries who asks, so that no loader can forget what they may
not see.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Engine, true
from sqlalchemy.orm import InstrumentedAttribute, Session

from registry.rules.actors import Actor

Team = InstrumentedAttribute[str] | ColumnElement[Any]


def seen(actor: Actor, team: Team) -> ColumnElement[bool]:
    """SQL: this row's team is one the actor sees; in SQL, so that pages stay full and counts
    exact.
    """
    teams = actor.teams()
    return true() if teams is None else team.in_(teams)


class Sighted(Session):
    """A session on behalf of an actor; only Store opens one.

    What is loaded by a name, number or id that somebody gave takes such a session and answers
    NotFound for another team's rows, exactly as for rows that do not exist. What is reached from a
    row already loaded takes any session. The registry's own reads say `store.read(SYSTEM)`.
    """

    def __init__(self, engine: Engine, actor: Actor) -> None:
        super().__init__(engine, expire_on_commit=False)
        self.actor = actor

    def seen(self, team: Team) -> ColumnElement[bool]:
        """SQL: this row's team is one that whoever asks may see."""
        return seen(self.actor, team)
