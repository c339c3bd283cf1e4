"""What is known of a version's effect on its base: by its weights, and as trainers measured it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry.db.evals import EvalRun
from registry.db.versions import Version
from registry.views.versions import MeasuredView


def measured(session: Session, ids: Collection[UUID]) -> dict[UUID, MeasuredView]:
    """The effect that eval runs measured on each of these versions, by version.

    Of several runs the one with the smallest effect counts: no lucky run may hide another.
    """
    statement = (
        select(EvalRun.subject_id, EvalRun.id, EvalRun.report["effect"])
        .where(
            EvalRun.subject_id.in_(ids),
            EvalRun.state == "succeeded",
            EvalRun.report["effect"]["largest"].astext.is_not(None),
        )
        .order_by(EvalRun.finished_at, EvalRun.id)
    )
    least: dict[UUID, MeasuredView] = {}
    for subject, run, effect in session.execute(statement):
        view = MeasuredView(run, effect["largest"], effect["mean"], effect["prompts"])
        if subject not in least or view.largest < least[subject].largest:
            least[subject] = view
    return least


def evidence(version: Version, view: MeasuredView | None) -> dict[str, Any] | None:
    """The effect as the gate reads it, with what was `measured` of the version.

    None for a base model, which is compared with nothing.
    """
    by_weights = version.facts.get("effect")
    if by_weights is None:
        return None
    return {
        **{key: by_weights.get(key) for key in ("state", "parts", "idle", "same_as")},
        "measured": view
        and {
            "run": str(view.run),
            "largest": view.largest,
            "mean": view.mean,
            "prompts": view.prompts,
        },
    }


def left_out(version: Version) -> dict[str, Any] | None:
    """The weights that a version was registered without; None where there are none."""
    companions = [
        {"path": entry["path"], "size": entry["size"], "holds": entry["companion"]}
        for entry in version.facts.get("left_out", [])
        if entry["companion"]
    ]
    return {"files": companions} if companions else None
