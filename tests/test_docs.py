"""What the documentation says is what the code does: settings, kinds, acts, commands, records,
links and figures.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest

from registry.cli import root
from registry.errors import Invalid
from registry.rules.actions import STEP_UP, Action
from registry.rules.actors import PERMISSIONS, Role
from tests import generated
from trainer.demo import figures

ROOT = Path(__file__).parents[1]
DOCS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
RECORDS = sorted((ROOT / "docs" / "decisions").glob("*.md"))
README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULT = ROOT / "docs" / "demo-result.json"


def document(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def sections(text: str, level: int) -> dict[str, str]:
    """Heading -> what stands under it, for the headings of one level."""
    _, *parts = re.split(rf"^{'#' * level} (.+)$", text, flags=re.MULTILINE)
    names = parts[::2]
    assert len(names) == len(set(names)), "a heading stands there twice"
    return dict(zip(names, parts[1::2], strict=True))


@pytest.mark.parametrize("name", sorted(generated.PAGES))
def test_a_generated_page_is_fresh(name: str) -> None:
    assert document(name) == generated.PAGES[name](), "run make docs"


@pytest.mark.parametrize("name", sorted(generated.BLOCKS))
def test_generated_blocks_are_fresh(name: str) -> None:
    assert document(name) == generated.filled(name), "run make docs"


def test_every_variable_that_is_read_is_in_the_settings() -> None:
    inner = {"COUNTERSIGN_CHILD_OF"}  # by which a supervisor knows its children
    sources = [path for room in ("registry", "trainer") for path in (ROOT / room).rglob("*.py")]
    read = {
        name
        for path in sources
        for name in re.findall(r"\b(?:COUNTERSIGN|DEMO)_[A-Z_]*[A-Z]\b", path.read_text("utf-8"))
    }
    assert len(read) > 10
    documented = set(re.findall(r"`([A-Z_]+)`", document("settings.md")))
    assert read - inner - documented == set()


def test_the_architecture_names_every_place() -> None:
    text = document("architecture.md")
    for room in ("registry", "trainer"):
        for path in (ROOT / room).iterdir():
            if (path.is_dir() or path.suffix == ".py") and not path.name.startswith("_"):
                assert f"`{room}/{path.name}{'/' * path.is_dir()}`" in text, path.name


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 130


def test_the_index_links_every_page() -> None:
    pages = {
        path.relative_to(ROOT / "docs").as_posix()
        for path in (ROOT / "docs").rglob("*.md")
        if path.parent.name != "decisions"
    }
    linked = set(re.findall(r"\]\(([^)#]+)\)", document("README.md")))
    assert pages - {"README.md"} - linked == set()


def test_every_entry_says_something() -> None:
    for section in sections(document("actions.md"), 2).values():
        for heading, text in sections(section, 3).items():
            assert len(text.split()) > 5, heading


def test_every_action_tells_who_may() -> None:
    told = {
        name: text
        for part in sections(document("actions.md"), 2).values()
        for name, text in sections(part, 3).items()
    }
    assert set(told) == {action.value for action in Action}
    for action in Action:
        who = ", ".join(sorted(role.value for role in PERMISSIONS[action])) or "the registry itself"
        fresh = " Fresh sign-in." if action in STEP_UP else ""
        assert told[action.value].strip().splitlines()[0] == f"Who: {who}.{fresh}", action


def test_the_glossary_has_the_words_of_the_house() -> None:
    known = set(re.findall(r"\*\*([^*]+)\*\*", document("glossary.md")))
    words = {
        "adapter",
        "approval",
        "base model",
        "base root",
        "blob",
        "bundle",
        "canary",
        "channel",
        "checkpoint",
        "dataset",
        "dataset version",
        "defect",
        "environment",
        "eval metric",
        "eval run",
        "eval suite",
        "event",
        "evidence",
        "evidence root",
        "finding",
        "gate",
        "lease",
        "lineage edge",
        "policy version",
        "quorum",
        "recall",
        "recipe",
        "record root",
        "review",
        "rollback target",
        "rollout",
        "route generation",
        "save point",
        "team",
        "tensor root",
        "training run",
        "tree head",
        "use case",
        "version",
        "vote",
    }
    assert (words | {role.value for role in Role}) - known == set()


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem[:4])
def test_a_decision_record_is_whole_and_held_by_something_that_exists(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith(f"# {path.stem[:4]}: ")
    parts = sections(text, 2)
    assert list(parts) == ["Context", "Decision", "Consequences", "Alternatives", "Held by"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    contracts = {contract["name"] for contract in project["importlinter"]["contracts"]}
    holders = re.findall(r"^- (test|lint) (.+)$", parts["Held by"], flags=re.MULTILINE)
    assert holders
    assert len(holders) == len(parts["Held by"].strip().splitlines())
    for sort, name in holders:
        if sort == "test":
            file, _, function = name.strip("`").partition("::")
            assert f"def {function}(" in (ROOT / file).read_text(encoding="utf-8"), name
        elif name.startswith("`ruff: "):
            assert name[7:-1] in project["ruff"]["lint"]["select"]
        else:
            assert name.strip('"') in contracts, name


def test_records_are_numbered_without_gaps() -> None:
    assert [int(path.stem[:4]) for path in RECORDS] == list(range(1, len(RECORDS) + 1))


def anchors(page: Path) -> set[str]:
    """The headings of a page, as addresses spell them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for target, heading in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", text):
        if target.startswith("https://"):
            continue
        page = path.parent / target if target else path
        assert page.exists(), target
        assert not heading or heading in anchors(page), f"{target}#{heading}"
    for target in re.findall(r"`((?:registry|trainer|tests|docs|migrations)/[\w./-]+)`", text):
        there = target == RESULT.relative_to(ROOT).as_posix() or (ROOT / target).exists()
        assert there, f"{path.name} names {target}"


def typed() -> dict[str, list[str]]:
    """Every command in the console blocks of the documentation, and its words."""
    commands = {}
    for page in DOCS:
        text = page.read_text(encoding="utf-8")
        for block in re.findall(r"^```console\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
            block = re.sub(r"\\\n\s*|(?<=\|)\n\s*", "", block)
            for line in re.findall(r"^\w* ?\$ (.+)$", block, flags=re.MULTILINE):
                for command in re.split(r" [|>]\s*", line):
                    if command.startswith("countersign "):
                        commands[command] = shlex.split(command, comments=True)
    return commands


@pytest.mark.parametrize("words", typed().values(), ids=typed().keys())
def test_a_documented_command_is_one_of_the_command_line(words: list[str]) -> None:
    command: click.Command = root
    context, rest = click.Context(root), words[1:]
    while isinstance(command, click.Group):
        name, *rest = rest
        verb = command.get_command(context, name)
        assert verb is not None, f"there is no {name}"
        command, context = verb, click.Context(verb, parent=context, info_name=name)
    given, left, _ = command.make_parser(context).parse_args(list(rest))
    assert left == []
    for parameter in command.params:
        assert not parameter.required or given.get(parameter.name) is not None, parameter.name
        value = given.get(parameter.name)
        if isinstance(parameter.type, click.Choice):
            for choice in value if isinstance(value, list) else [value] * (value is not None):
                parameter.type.convert(choice, parameter, context)


@pytest.mark.parametrize("name", figures.FILES)
def test_figures_come_from_the_committed_result(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert text.count("<!-- figures: ") == text.count("<!-- /figures -->") == 1
    result = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else None
    assert text == figures.rewrite(text, result), (
        "run: python -m trainer.demo.figures docs/demo-result.json"
    )


def a_result() -> dict[str, Any]:
    """What a demo that ran to its end leaves, with figures of no machine."""
    accuracy = {"value": 0.5, "n": 64, "low": 0.38, "high": 0.62}
    return {
        "base": "tiny",
        "began": "2026-11-22T20:00:00+00:00",
        "ready_seconds": 7.5,
        "total_seconds": 61.2,
        "seconds": {"inputs": 1.5, "training": 20.25},
        "accuracy_base": accuracy,
        "accuracy_adapter": accuracy,
        "training": {
            "steps": 48,
            "seconds": 20.1,
            "tokens_per_second": 900.4,
            "loss_first": 4.2,
            "loss_last": 0.3,
            "trainable_parameters": 12345,
            "peak_memory_bytes": 512 << 20,
        },
        "arms": {"candidate": 9, "stable": 191, "requests": 200},
        "requests_per_second": 20.0,
        "log": {"events": 70, "votes": 2, "root": "sha256:00"},
        **{
            f"{step}_seconds_to_gateway": 0.75
            for step in ("promotion", "rollback", "promotion_again")
        },
    }


def test_figures_are_written_into_their_blocks_and_nowhere_else(tmp_path: Path) -> None:
    result, page = tmp_path / "result.json", tmp_path / "page.md"
    result.write_text(json.dumps(a_result()))
    page.write_text(
        "before 0 %\n<!-- figures: summary -->\nold\n<!-- /figures -->\nbetween\n<!-- figures: "
        "times -->\n"
        "<!-- /figures -->\nafter\n"
    )
    assert figures.main([str(result), str(page)]) == 0
    first, second = page.read_text().split("between")
    assert first.startswith("before 0 %\n<!-- figures: summary -->\n| Main job on tiny |")
    assert "| Peak memory of training | 512 MB |" in first
    assert "50.0% of 64 (95 % interval 38.0% to 62.0%)" in first
    assert "old" not in first
    assert "| Train | 20.2 |" in second
    assert second.endswith("<!-- /figures -->\nafter\n")
    before = page.read_text()
    assert figures.main([str(result), str(page)]) == 0
    assert page.read_text() == before


def test_a_demo_that_did_not_end_gives_no_figures() -> None:
    with pytest.raises(Invalid, match="did not end"):
        figures.rewrite(README, {"base": "tiny"})


def test_nothing_tracked_names_this_machine_or_an_index() -> None:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    place = re.compile(
        r"(?<![\w.$}])/(?:work/(?:main|shared)|root/|tmp/\w|home/\w+/)|(?:index-url|find-links)[ "
        r"=]+\w+://"
    )
    for name in filter(None, listed.split("\0")):
        path = ROOT / name
        if path == Path(__file__) or not path.is_file():
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        assert (found := place.search(text)) is None, f"{name}: {found and found.group()}"
