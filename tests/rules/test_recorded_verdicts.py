"""Verdicts recorded with the code of ad6f983: the same policy and evidence still give the same
bytes.

A review keeps the verdict it was opened with, and whoever judges its evidence again must come to
the same one. Numbers and outcomes must never change; when a sentence is reworded on purpose,
record again (`python -m tests.rules.test_recorded_verdicts`) and check that only the last column
differs.
"""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from registry.errors import Invalid
from registry.rules.gates import judge

RECORD = Path(__file__).with_name("recorded_verdicts.csv")
COUNTS = ["both", "only_adapter", "only_base", "neither"]
INPUTS = [
    *COUNTS,
    "miscounted",
    "metric",
    "confidence",
    "min_items",
    "min_gain_points",
    "exact",
    "items",
    "train_rows",
    "allowed",
    "template",
    "chat_templates",
]
ANSWERS = ["outcomes", "numbers", "details"]


def policy_of(row: dict[str, Any]) -> dict[str, Any]:
    evidence: dict[str, Any] = {}
    if row["min_items"] is not None:
        evidence["superiority"] = {
            "metric": "exact_match",
            "over": "base",
            "confidence": row["confidence"],
            "min_items": row["min_items"],
            "min_gain_points": row["min_gain_points"],
        }
    if row["allowed"] is not None:
        evidence["contamination"] = {"exact": row["allowed"]}
    allowed = {"chat_templates": "allow"} if row["chat_templates"] == "allow" else {}
    return {"environment": "dev", "evidence": evidence, **allowed}


def evidence_of(row: dict[str, Any]) -> dict[str, Any]:
    evidence: dict[str, Any] = {"v": 1, "eval": None, "contamination": None}
    if row["both"] is not None:
        counts = {key: row[key] for key in COUNTS}
        evidence["eval"] = {
            "metric": row["metric"],
            "adapter": {"correct": row["both"] + row["only_adapter"] + row["miscounted"]},
            "base": {"correct": row["both"] + row["only_base"]},
            "paired": {"n": sum(counts.values()), **counts},
        }
    if row["items"] is not None:
        known = {key: row[key] for key in ("items", "train_rows", "exact")}
        evidence["contamination"] = {**known, "examples": []}
    if row["template"] is not None:
        evidence["chat_template"] = {"source": "chat_template.jinja", "digest": row["template"]}
    return evidence


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def answers(row: dict[str, Any]) -> list[str]:
    """The outcome of the verdict and of each rule, and digests of all numbers and sentences."""
    try:
        verdict = judge(policy_of(row), evidence_of(row))
    except Invalid as refusal:
        return [refusal.kind, "", ""]
    outcomes = [verdict.outcome, *(f"{each.rule}={each.outcome}" for each in verdict.rules)]
    numbers = digest([{**asdict(each), "detail": None} for each in verdict.rules])
    return [" ".join(outcomes), numbers, digest([each.detail for each in verdict.rules])]


def recorded() -> list[dict[str, str]]:
    with RECORD.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def inputs(line: dict[str, str]) -> dict[str, Any]:
    return {key: json.loads(line[key]) if line[key] else None for key in INPUTS}


def test_the_same_evidence_gets_the_verdict_that_was_recorded() -> None:
    lines = recorded()
    assert len(lines) == 600
    words = {word for line in lines for word in line["outcomes"].split()}
    rules = ("superiority", "contamination", "chat_template")
    possible = {f"{rule}={outcome}" for rule in rules for outcome in ("pass", "fail")}
    possible |= {"superiority=inconclusive", "contamination=inconclusive", "bad-evidence"}
    assert possible <= words  # the record covers every rule and every outcome
    for line in lines:
        row = inputs(line)
        assert answers(row) == [line[key] for key in ANSWERS], row


def record() -> None:
    """Write the answers of the code as it is, for the inputs in the record."""
    lines = recorded()
    with RECORD.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*INPUTS, *ANSWERS])
        for line in lines:
            writer.writerow([*(line[key] for key in INPUTS), *answers(inputs(line))])


if __name__ == "__main__":
    record()
