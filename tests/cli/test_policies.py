"""policy: check a file, publish it, print what was published; on a real registry."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest

from registry.documents import strict_yaml
from registry.fields import MISSING, Fields
from registry.rules.policies import FIELDS, parse
from tests.cli.conftest import Run
from tests.cli.live import live
from tests.cli.test_main_job import Desk

PAGE = (Path(__file__).parents[2] / "docs" / "policies.md").read_text(encoding="utf-8")
(EXAMPLE,) = re.findall(r"^```yaml\n(.+?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
BAD = """\
environment: moon
quorum: {approvals: 1, roles: [reviewer], distinct_teams: true}
votes: signed
evidence: {superiority: {metric: exact_match}, vibes: {}}
fallback_to_base: true
aproval_days: 180
"""
WRONG = [
    "environment",
    "quorum.approvals",
    "evidence.superiority.over",
    "evidence.superiority.confidence",
    "evidence.superiority.min_items",
    "evidence.superiority.min_gain_points",
    "evidence.vibes",
    "approval_days",
    "aproval_days",
]


def written(folder: Path, text: str) -> Path:
    path = folder / "policy.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_policy_is_published_shown_and_published_again(
    fresh_database: str, cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with live(fresh_database, tmp_path / "home") as registry:
        desk = Desk(cli, registry, tmp_path, monkeypatch)
        desk.hire("ada", "admin", "it")
        desk.hire("nora", "engineer", "legal")

        shown = desk.run("nora", "policy", "show", "production")
        builtin = resources.files("registry").joinpath("policies/production.yaml")
        assert shown.out == builtin.read_text("utf-8")
        assert "production-v1" in shown.err
        assert "current" in shown.err
        file = written(tmp_path, shown.out)
        unchanged = desk.run("ada", "policy", "publish", file)
        assert (unchanged.code, "policy-unchanged" in unchanged.err) == (6, True)

        stricter = shown.out.replace("approvals: 2", "approvals: 3")
        written(tmp_path, stricter)
        refused = desk.run("nora", "policy", "publish", file)
        assert (refused.code, refused.out) == (4, "")
        checked = desk.ask("nora", "policy", "check", file)
        published = desk.ask("ada", "policy", "publish", file)
        assert (published["ref"], published["current"]) == ("production-v2", True)
        assert published["digest"] == checked["digest"]
        assert published["rules"] == checked["rules"]
        assert published["rules"]["quorum"]["approvals"] == 3
        assert desk.run("nora", "policy", "show", "production").out == stricter
        assert desk.run("nora", "policy", "show", "production-v1").out == shown.out
        by_ref = {each["ref"]: each["current"] for each in desk.ask("nora", "policy", "ls")}
        assert (by_ref["production-v1"], by_ref["production-v2"]) == (False, True)

        again = desk.run("ada", "policy", "publish", written(tmp_path, EXAMPLE))
        assert again.code == 0, again.err
        assert "production-v3" in again.out

        written(tmp_path, BAD)
        words = desk.run("ada", "policy", "publish", file)
        assert (words.code, words.out) == (2, "")
        lines = [line.strip() for line in words.err.splitlines()]
        assert [line[2:].partition(":")[0] for line in lines if line[:2] == "- "] == WRONG
        assert (
            "- quorum.approvals: must be an integer from 2 to 20 "
            "(nothing ships on one signature), not 1" in lines
        )
        problem = desk.run("ada", "policy", "publish", file, "--json").problem()
        assert problem["kind"] == "bad-policy"
        assert sorted(problem["facts"]["problems"]) == sorted(WRONG)
        assert len(desk.ask("nora", "policy", "ls")) == 5


def test_a_file_is_checked_without_a_registry(cli: Run, tmp_path: Path) -> None:
    checked = cli("policy", "check", written(tmp_path, EXAMPLE))
    assert (checked.code, checked.err) == (0, "")
    assert "policy.yaml is a policy for production" in checked.out
    refused = cli("policy", "check", written(tmp_path, BAD), "--json")
    assert (refused.code, refused.out) == (2, "")
    assert list(refused.problem()["facts"]["problems"]) == WRONG


@pytest.mark.parametrize("text", ["[]", "votes: signed\nvotes: signed\n", "votes: &a signed\n"])
def test_what_is_no_table_with_one_meaning_is_refused(cli: Run, tmp_path: Path, text: str) -> None:
    refused = cli("policy", "check", written(tmp_path, text))
    assert (refused.code, refused.out) == (2, "")


def test_a_file_that_is_not_text_is_refused(cli: Run, tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_bytes(b"\xff\xfe")
    for verb in ("check", "publish"):
        refused = cli("policy", verb, tmp_path / "policy.yaml")
        assert (refused.code, "bad-yaml" in refused.err) == (2, True), refused.err


def rows(fields: Fields, prefix: str = "") -> Iterator[str]:
    """The table of keys in the documentation."""
    for key, field in fields.items():
        if field.fields is not None:
            yield from rows(field.fields, f"{prefix}{key}.")
        else:
            missing = "error" if field.default is MISSING else f"`{field.default}`"
            yield f"| `{prefix}{key}` | {field.expected} | {missing} |"


def test_the_page_tells_every_key_and_its_example_holds_all_of_them() -> None:
    told = [line for line in PAGE.splitlines() if line.startswith("| `")]
    assert told == list(rows(FIELDS))
    example = strict_yaml.loads(EXAMPLE)
    parse(example)
    for key in (re.findall(r"`([a-z_.]+)`", line)[0] for line in told):
        value = example
        for part in key.split("."):
            value = value[part]
