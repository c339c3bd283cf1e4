"""What drafts still lack, judged again from their rows, so that it can be read at any time."""

from __future__ import annotations

from typing import cast

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


def of_version(store: Store, actor: Actor, version: VersionView) -> list[FindingView]:
    """What a draft of a base model, adapter or checkpoint lacks.

    The domain may stand in its line instead of the draft.
    """
    ref = parse_line(version.line)
    with store.read(actor) as session:
        domain = session.query(Line.domain).filter(
            Line.team == ref.team, Line.name == ref.name, seen(actor, Line.team)
        )
        meta = {"domain": domain.scalar(), **version.meta}
    return [
        FindingView(finding.field, finding.detail, finding.fix)
        for finding in judge.missing_facts(
            cast(judge.Kind, version.kind), version.base is not None, meta
        )
    ]
