"""Help answers at once, is true, and covers the options that other programs rely on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from inspect import cleandoc

import click
import pytest

from registry.cli import VERBS, root
from tests.cli.conftest import Run

# Options and subcommands other programs rely on.
WORDING = {
    "base add": "--name --base --domain --meta --json",
    "adapter add": "--name --base --domain --meta --json",
    "checkpoint add": "--name --base --domain --meta --json",
    "dataset add": "--name --meta --json",
    "token create": "--account --role --team --home --json",
    "submit": "--env --usecase --note --json",
    "review approve": "--reason --json",
    "review reject": "--reason --json",
    "review request-changes": "--reason --json",
    "canary start": "--env --share --channel --json",
    "promote": "--env --channel --json",
    "rollback": "--env --reason --channel --json",
    "recall": "--reason --json",
    "history": "--env --channel --json",
    "audit as-of": "--env --json",
    "audit export": "--out --json",
    "verify": "--json",
    "login": "--token-stdin",
    "key enroll": "--label",
    "train": "--adapter --base --data --recipe --domain --follow",
    "eval run": "--suite --follow",
    "eval suite add": "--dataset --split --metric --max-new-tokens --template",
    "gate check": "--env --usecase",
    "up": "--home --port --json",
    "doctor": "--home",
    "gateway": "--port --engine --environment --cache",
}


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command with its full name, groups and leaves."""

    def walk(
        name: str, command: click.Command, parent: click.Context
    ) -> Iterator[tuple[str, click.Command]]:
        yield name, command
        if isinstance(command, click.Group):
            context = click.Context(command, info_name=name, parent=parent)
            for verb in command.list_commands(context):
                child = command.get_command(context, verb)
                assert child is not None
                yield from walk(f"{name} {verb}", child, context)

    top = click.Context(root, info_name="countersign")
    for verb in root.list_commands(top):
        command = root.get_command(top, verb)
        assert command is not None, verb
        yield from walk(verb, command, top)


ALL = dict(commands())


def test_the_table_says_what_the_commands_say() -> None:
    for verb, (_, line) in VERBS.items():
        assert (ALL[verb].help or "").partition("\n")[0] == line, verb


@pytest.mark.parametrize("name", sorted(ALL))
def test_each_command_has_one_sentence_and_an_example(name: str) -> None:
    text = cleandoc(ALL[name].help or "")
    first = text.partition("\n")[0]
    assert first.endswith("."), name
    assert first[0].isupper(), name
    assert f"Example:\n  countersign {name.split()[0]}" in text, name


@pytest.mark.parametrize("name", sorted(WORDING))
def test_the_contract_s_options_are_there(name: str) -> None:
    options = {option for param in ALL[name].params for option in param.opts}
    assert set(WORDING[name].split()) <= options


def test_json_is_everywhere() -> None:
    """The gateway answers over HTTP and prints no data; groups only lead on."""
    without = {
        name
        for name, command in ALL.items()
        if not isinstance(command, click.Group)
        and not any("--json" in param.opts for param in command.params)
    }
    assert without == {"gateway"}


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["review", "approve", "--help"], ["train", "--help"]]
)
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    """Start-up is what a person feels first: what help does not need, help must not import."""
    program = f"""
import sys
from registry.cli import main
try:
    main({arguments!r})
except SystemExit as ended:
    assert not ended.code, ended.code
heavy = set(
    "httpx pydantic fastapi sqlalchemy torch transformers mlflow cryptography yaml numpy".split()
)
print("HEAVY", sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "HEAVY []"


def test_the_version_is_that_of_the_installed_package(cli: Run) -> None:
    assert cli("--version").out == f"countersign {metadata.version('countersign')}\n"


def test_no_help_line_of_a_group_is_cut_on_a_narrow_terminal() -> None:
    """click shortens a first sentence that does not fit one line, and ends it with dots."""
    for name, command in ALL.items():
        if isinstance(command, click.Group):
            context = click.Context(command, info_name=name, terminal_width=80)
            lines = command.get_help(context).partition("Commands:")[2].splitlines()
            assert [line for line in lines if line.endswith("...")] == [], name


def test_top_help_imports_no_command_at_all() -> None:
    program = (
        "import sys, registry.cli as c\ntry: c.main(['--help'])\nexcept SystemExit: pass\n"
        "print([m for m in sys.modules if m.startswith('registry.cli.') and not "
        "m.endswith('errors')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_an_unknown_verb_is_a_usage_error(cli: Run) -> None:
    result = cli("shipit")
    assert result.code == 2
    assert "shipit" in result.err
    assert result.out == ""
    assert cli("shipit", "--json").problem()["kind"] == "usage"
