"""The commands that pages print exist, with their options, and are offered to who may run them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from itertools import product

import click
import pytest
from jinja2 import nodes

from registry import verifier
from registry.cli import root
from registry.web.pages import ENVIRONMENT
from registry.web.reviews import CLI_VERB, command_line
from registry.web.shelves import BY_KIND, SHELVES
from tests.build import World, a_person
from tests.web.conftest import Console
from tests.web.test_truth import HTML

COMMANDS = {
    "countersign submit": ("engineer",),
    "countersign canary start": ("engineer",),
    "countersign adapter add": ("engineer",),
    "countersign base add": ("engineer",),
    "countersign checkpoint add": ("engineer",),
    "countersign dataset add": ("engineer",),
    "countersign train ": ("engineer",),
    "countersign profile add": ("engineer",),
    "countersign eval run": ("engineer", "reviewer"),
    "countersign eval suite add": ("engineer", "reviewer"),
    "countersign hold place": ("admin", "reviewer"),
    "countersign policy publish": ("admin",),
    "countersign usecase update": ("engineer", "reviewer"),
    "countersign review approve": ("reviewer",),
}
"""Command -> the roles that may run it."""


def texts(node: nodes.Node) -> Iterator[str]:
    """Every text that an expression or a part of a template may print.

    A kind of line is tried in full; any other value stands as X.
    """
    if isinstance(node, nodes.Const):
        yield str(node.value)
    elif isinstance(node, nodes.TemplateData):
        yield node.data
    elif isinstance(node, nodes.Concat):
        parts = [
            [str(part.value)]
            if isinstance(part, nodes.Const)
            else [*BY_KIND]
            if isinstance(part, nodes.Getattr) and part.attr == "kind"
            else ["X"]
            for part in node.nodes
        ]
        yield from ("".join(words) for words in product(*parts))
    else:
        for child in node.iter_child_nodes():
            yield from texts(child)


def in_templates() -> set[str]:
    """Every command in a template, also where no test reaches the page that prints it."""
    loader = ENVIRONMENT.loader
    assert loader is not None
    return {
        command.strip()
        for name in loader.list_templates()
        for text in texts(ENVIRONMENT.parse(loader.get_source(ENVIRONMENT, name)[0]))
        for line in re.findall(r"countersign(?:-verify)? [^<\n]*", text)
        for command in line.split("&&")
    }


PRINTED = sorted(
    in_templates()
    | {shelf.add_command for shelf in SHELVES}
    | {command_line(7, verdict, "it's good") for verdict in CLI_VERB}
)


def refusal(text: str) -> str:
    """Why the command line would not take a command, or ''; no type of a value is checked."""
    words = shlex.split(text)[1:]
    command: click.Command = root
    while isinstance(command, click.Group):
        name = words.pop(0) if words else ""
        inner = command.get_command(click.Context(command), name)
        if inner is None:
            return f"no verb {name}"
        command = inner
    context = click.Context(command)
    try:
        options, surplus, _ = command.make_parser(context).parse_args(words)
    except click.UsageError as error:
        return error.format_message()
    missing = [
        parameter.name
        for parameter in command.get_params(context)
        if parameter.required and not isinstance(options.get(str(parameter.name)), str | tuple)
    ]
    return " ".join([*surplus, *(f"{name} is missing" for name in missing)])


@pytest.mark.parametrize("text", PRINTED)
def test_a_printed_command_exists_with_its_options(text: str) -> None:
    if text.startswith("countersign-verify"):
        with pytest.raises(SystemExit) as ended:
            verifier.main([*shlex.split(text)[1:], "--help"])
        assert ended.value.code == 0
    else:
        assert refusal(text) == ""


def test_the_commands_are_read_out_of_the_templates() -> None:
    assert len(PRINTED) > 30
    for text in (
        "countersign key enroll",
        "countersign checkpoint template X",
        "countersign profile add X --engine vllm --build 0.33.0",
        "countersign-verify pack.zip --key log.pub",
        "countersign audit as-of X --env X",
    ):
        assert text in PRINTED


@pytest.mark.parametrize(
    "text",
    [
        "countersign eval freeze team/name --data team/rows",
        "countersign policy apply FILE",
        "countersign train RECIPE",
        "countersign train --adapter a/b --base REF --data REF",
        "countersign hold place --case X --reason X",
        "countersign key",
    ],
)
def test_an_invented_command_would_be_noticed(text: str) -> None:
    assert refusal(text) != ""


def test_every_command_with_a_role_is_one_that_pages_print() -> None:
    printed = [f"{text} " for text in PRINTED]
    for command in COMMANDS:
        assert any(text.startswith(f"{command.strip()} ") for text in printed), command


@pytest.mark.parametrize("role", ["reviewer", "auditor", "admin", "engineer"])
def test_nobody_is_offered_a_command_that_their_role_forbids(
    console: Console, quiet: World, role: str
) -> None:
    bare = f"bare{role}"
    person = a_person(console.store, role, team=bare)
    pages = [
        "/reviews",
        "/reviews?state=open",
        "/adapters?team=none",
        "/adapters",
        "/bases",
        "/checkpoints",
        "/deployments",
        "/deployments?environment=dev",
        "/audit",
        "/audit/as-of",
        "/retention",
        "/settings",
        "/search",
        "/search?q=nothing-like-it",
        "/datasets?q=nothing",
        "/datasets",
        "/suites",
        "/suites?q=nothing",
        "/runs",
        "/runs?state=failed",
        "/policies",
        f"/adapters/{quiet.team}/adapter/v/1",
        f"/bases/{quiet.team}/tiny/v/1",
        f"/reviews/{quiet.review}",
        f"/deployments/dev/{quiet.team}/adapter/dev",
    ]
    with console.signed_in(person) as client:
        for path in pages:
            page = client.get(path, headers=HTML)
            for command, roles in COMMANDS.items():
                if role not in roles:
                    assert f'data-copy="{command}' not in page.text, (path, command)
