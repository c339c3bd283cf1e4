"""Base models and checkpoints by their roots: equal weights, and what a configuration names."""

from __future__ import annotations

from sqlalchemy import select

from registry.db.sight import Sighted
from registry.db.versions import Line, Node, Version
from registry.rules.refs import commit, read_repository


def of_tensors(session: Sighted, root: str, *, besides: str, first: str | None) -> str | None:
    """The reference of a registered base model or checkpoint that is not deleted, with
    this tensor root in another line.

    The one named `first` counts first, then the oldest.
    """
    statement = (
        select(Node.ref)
        .join(Version, Version.id == Node.id)
        .join(Line, Line.id == Version.line_id)
        .where(
            Version.tensor_root == root,
            Version.number.is_not(None),
            Version.state != "deleted",
            Line.kind != "adapter",
            Line.team + "/" + Line.name != besides,
            session.seen(Line.team),
        )
        .order_by(Node.ref != (first or ""), Node.seq)
        .limit(1)
    )
    return session.scalars(statement).one_or_none()


def roots_named(session: Sighted, name: str, revision: str | None) -> list[str]:
    """The base roots that a name may mean at a revision.

    The name is `team/name`, `team/name@v1` or the Hub dialect's `team/name.v1`. A revision that the
    line does not have is ignored, so the roots of all its versions are returned: the name alone is
    enough to recognise another base. The list is empty for a name that is not a base or checkpoint
    here, or belongs to a team that the actor does not see.
    """
    repository, _, selector = name.partition("@")
    team, _, repository_name = repository.partition("/")
    ref = read_repository(team, repository_name)
    if ref is None:
        return []
    if ref.number is not None:
        selector = f"v{ref.number}"
    rows = _roots(session, team, str(ref.name))
    meant = [
        root
        for number, manifest, root in rows
        if (selector or revision) in (f"v{number}", manifest, commit(manifest))
    ]
    return sorted(set(meant or [root for _, _, root in rows]))


def _roots(session: Sighted, team: str, name: str) -> list[tuple[int | None, str, str]]:
    statement = (
        select(Version.number, Version.manifest_digest, Version.base_root)
        .join(Line, Line.id == Version.line_id)
        .where(
            Line.team == team,
            Line.name == name,
            Line.kind != "adapter",
            Version.base_root.is_not(None),
            session.seen(Line.team),
        )
    )
    return [
        (row.number, row.manifest_digest, row.base_root or "") for row in session.execute(statement)
    ]
