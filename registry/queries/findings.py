"""What drafts still lack, judged again from their rows, so that it can be read at any time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast
from uuid import UUID

from sqlalchemy import select

from registry.artifacts.bundles import judge
from registry.artifacts.datasets import rows
from registry.db.store import Store
from registry.db.versions import Line
from registry.queries.pages import seen
from registry.rules.actors import Actor
from registry.rules.refs import parse_line
from registry.views.datasets import DatasetVersionView
from registry.views.versions import FindingView, VersionView


def of_dataset(data: DatasetVersionView) -> list[FindingView]:
    """What a draft of a data set lacks."""
    return [
        FindingView(finding.field, finding.detail, finding.fix)
        for finding in rows.missing_facts(data.meta)
    ]


def of_versions(
    store: Store, actor: Actor, line: str, versions: Iterable[VersionView]
) -> dict[UUID, list[FindingView]]:
    """What each draft among these versions of a line lacks, by version.

    The domain may stand in the line instead of the draft.
    """
    drafts = [version for version in versions if version.state == "draft"]
    if not drafts:
        return {}
    ref = parse_line(line)
    with store.read(actor) as session:
        domain = session.scalar(
            select(Line.domain).where(
                Line.team == ref.team, Line.name == ref.name, seen(actor, Line.team)
            )
        )
    return {draft.id: _missing(draft, domain) for draft in drafts}


def _missing(draft: VersionView, domain: str | None) -> list[FindingView]:
    kind, meta = cast(judge.Kind, draft.kind), {"domain": domain, **draft.meta}
    return [
        FindingView(finding.field, finding.detail, finding.fix)
        for finding in judge.missing_facts(kind, draft.base is not None, meta)
    ]
