"""The table at the end of the demo: what it did, how long each step took, and the outcome."""

from __future__ import annotations

from typing import Any

from trainer.demo.stage import Stage

TITLES = {
    "inputs": "Prepare the inputs",
    "people": "Create accounts and keys",
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
    "recall": "Recall the half-trained version",
    "proof": "Export and verify offline",
}


def _rate(accuracy: dict[str, Any]) -> str:
    interval = f"{accuracy['low']:.1%} to {accuracy['high']:.1%}"
    return f"{accuracy['value']:.1%} of {accuracy['n']} (95 % interval {interval})"


def ending(stage: Stage) -> str:
    """The table as plain text, only from the result file."""
    result = stage.result
    lines = ["", f"{'What was done':<42}seconds"]
    for step, title in TITLES.items():
        lines.append(f"  {title:<40}{result['seconds'][step]:>7.1f}")
    lines.append(f"  {'In all, start and stop included':<40}{result['total_seconds']:>7.1f}")
    training, arms, log = result["training"], result.get("arms", {}), result["log"]
    speed = f"{training['tokens_per_second']:.0f} tokens/s"
    canary = f"{arms.get('candidate', 0)} of {arms.get('requests', 0)} requests"
    facts = {
        "Base, exactly right": _rate(result["accuracy_base"]),
        "Adapter, exactly right": _rate(result["accuracy_adapter"]),
        "Training": f"{training['seconds']:.0f} s, {training['steps']} steps, {speed}",
        "Peak memory of training": f"{training['peak_memory_bytes'] / 2**20:,.0f} MB",
        "Canary": f"{canary} answered by the candidate",
        "Log": f"{log['events']} events, {log['votes']} signed votes, valid offline",
    }
    lines += ["", *(f"{name:<26}{value}" for name, value in facts.items())]
    return "\n".join(lines)
