"""What a trainer measured of an adapter's effect: how far it moves the logits of its base.

The weights say whether an adapter can change anything, the probe whether it does: names that a
loader drops, or numbers too small to count, leave every logit as it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from registry.errors import Invalid
from registry.fields import Field, described, integer, number, problems

FIELDS: dict[str, Field] = {
    "largest": number(0, 1e30),
    "mean": number(0, 1e30),
    "prompts": integer(1, 1024),
    "positions": integer(1, 1_000_000),
}
"""The largest and the mean absolute difference, over so many positions of so many prompts."""


def check_effect(report: Mapping[str, Any]) -> None:
    """Raise Invalid `bad-report` unless the report measures no effect, or one in the right form."""
    effect = report.get("effect")
    if effect is None:
        return
    wrong = problems(effect, FIELDS)
    if not wrong and effect["mean"] <= effect["largest"]:
        return
    detail = (
        described("The report's effect cannot be used", wrong)
        if wrong
        else ("The report's effect has a mean above its largest difference.")
    )
    raise Invalid(
        "bad-report", detail, f"Report {', '.join(FIELDS)}, or null where nothing was measured."
    )
