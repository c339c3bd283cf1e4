"""Lists of repositories for the Hub dialect: filtered, sorted, a page at a time."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from sqlalchemy import and_, func, null, or_, select

from registry.db.store import Store
from registry.db.versions import Line, Version
from registry.errors import Invalid, NotFound
from registry.queries.pages import PageRequest, containing, seen, storable
from registry.queries.pulls import Repo, resolve
from registry.queries.versions import files_of
from registry.rules.actors import Actor
from registry.views.pulls import Pulled

CHANGED = select(func.max(Version.created_at)).where(
    Version.line_id == Line.id, Version.number.is_not(None)
)
SORTS = {
    "createdAt": Line.created_at,
    "lastModified": func.coalesce(CHANGED.scalar_subquery(), Line.created_at),
}


@dataclass(frozen=True, slots=True)
class RepoFilter:
    """Which repositories: of one team, with `words` in their name, and of every one of `kinds`.

    `sort` is a key of `SORTS`, newest first; anything else sorts by name.
    """

    team: str | None = None
    words: str | None = None
    kinds: frozenset[str] = frozenset()
    sort: str = ""


def repos(
    store: Store, actor: Actor, filters: RepoFilter, page: PageRequest, *, with_files: bool = False
) -> tuple[list[Pulled], str | None]:
    """One page of repositories whose main the actor may pull, and the cursor of the next page.

    A page may be shorter than its limit, because what the actor may not pull is left out. Raises
    Invalid `bad-cursor`.
    """
    name, moment = Line.team + "/" + Line.name, SORTS.get(filters.sort)
    order = (name,) if moment is None else (moment.desc(), name)
    statement = (
        select(Line, null() if moment is None else moment)
        .where(seen(actor, Line.team))
        .order_by(*order)
        .limit(page.limit + 1)
    )
    if page.cursor:
        at, _, last_name = (
            page.cursor.rpartition("|") if moment is not None else ("", "", page.cursor)
        )
        follows = name > storable(last_name)
        if moment is not None:
            follows = or_(moment < _moment(at), and_(moment == _moment(at), follows))
        statement = statement.where(follows)
    if filters.team is not None:
        statement = statement.where(Line.team == storable(filters.team))
    if filters.words:
        statement = statement.where(name.ilike(containing(filters.words)))
    for kind in filters.kinds:
        statement = statement.where(Line.kind == kind)
    with store.read(actor) as session:
        rows = session.execute(statement).all()
        pulled: list[Pulled] = []
        for line, _ in rows[: page.limit]:
            with suppress(NotFound):
                repo = Repo(line.id, line.team, line.name, line.kind)
                pulled.append(resolve(session, actor, repo, "main"))
        if with_files:
            files = files_of(session, [main.id for main in pulled])
            pulled = [replace(main, files=tuple(files.get(main.id, []))) for main in pulled]
    if len(rows) <= page.limit:
        return pulled, None
    last, changed = rows[page.limit - 1]
    return pulled, last.ref if changed is None else f"{changed.isoformat()}|{last.ref}"


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise Invalid(
            "bad-cursor",
            "The cursor belongs to another list, or was truncated.",
            "Begin again without one.",
        ) from None
