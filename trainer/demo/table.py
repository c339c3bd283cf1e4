"""The table the demo ends with: what it did, how long each step took, what came out."""

from __future__ import annotations

from typing import Any

from trainer.demo.stage import Stage

TITLES = {
    "inputs": "Fetch and unpack the inputs",
    "people": "Let people in",
    "base": "Register the base model",
    "data": "Register the data set, freeze the suite",
    "training": "Train",
    "evaluation": "Evaluate base and adapter",
    "submission": "Check the gate, submit",
    "self_approval": "Refuse self-approval",
    "approval": "Two signed approvals",
    "canary": "Canary with real requests",
    "promotion": "Promote",
    "rollback": "Roll back",
    "promotion_again": "Promote again",
    "recall": "Recall the save point",
    "proof": "Export and verify offline",
}


def _rate(found: dict[str, Any]) -> str:
    return f"{found['value']:.1%} of {found['n']} ({found['low']:.1%} to {found['high']:.1%})"


def ending(stage: Stage) -> str:
    """Plain text, from the result file alone."""
    result = stage.result
    lines = ["", "What was done                             seconds"]
    for step, title in TITLES.items():
        lines.append(f"  {title:<40}{result['seconds'][step]:>7.1f}")
    lines.append(f"  {'In all, start and stop included':<40}{result['total_seconds']:>7.1f}")
    arms = result.get("arms", {})
    facts = {
        "Base, exactly right": _rate(result["accuracy_base"]),
        "Adapter, exactly right": _rate(result["accuracy_adapter"]),
        "Training": f"{result['training']['seconds']:.0f} s, {result['training']['steps']} steps, "
        f"{result['training']['tokens_per_second']:.0f} tokens/s",
        "Peak memory of training": f"{result['training']['peak_memory_bytes'] / 2**20:,.0f} MB",
        "Canary": f"{arms.get('candidate', 0)} of {arms.get('requests', 0)} requests by the "
        "candidate",
        "Log": f"{result['log']['events']} events, {result['log']['votes']} signed votes, valid "
        "offline",
        "Console": f"{stage.url}/",
    }
    lines += ["", *(f"{name:<26}{value}" for name, value in facts.items())]
    return "\n".join(lines)
