"""One vocabulary of acts: each is a permission, one command's own, audited, and a heading of the
docs.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from registry.db.table import Table
from registry.rules.actions import STEP_UP, Action
from registry.rules.actors import PERMISSIONS, Role

ROOT = Path(__file__).parents[1]
COMMANDS = sorted((ROOT / "registry" / "commands").glob("[a-z]*.py"))
OPENERS = {"write", "check", "refuse", "judging"}
UNRECORDED = {
    "beat",
    "sending",
    "sent",
    "usable",
}  # all are upkeep: they decide nothing, and would drown the log


def functions(path: Path) -> dict[str, ast.FunctionDef]:
    return {
        node.name: node
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef)
    }


def opened(node: ast.AST) -> Iterator[Action]:
    """The actions for which this code opens, checks or refuses something of the store's."""
    for call in ast.walk(node):
        if (
            isinstance(call, ast.Call)
            and isinstance(call.func, ast.Attribute)
            and call.func.attr in OPENERS
        ):
            for argument in call.args:
                if isinstance(argument, ast.Attribute) and ast.unparse(argument.value) == "Action":
                    yield Action[argument.attr]


def reached(
    name: str, known: dict[str, ast.FunctionDef], seen: frozenset[str] = frozenset()
) -> set[Action]:
    """The actions of a command, through the private functions it calls."""
    found = set(opened(known[name]))
    for node in ast.walk(known[name]):
        if (
            isinstance(node, ast.Name)
            and node.id.startswith("_")
            and node.id in known
            and node.id not in seen
        ):
            found |= reached(node.id, known, seen | {name})
    return found


def commands() -> dict[tuple[str, str], set[Action]]:
    """Every command (a public function that is given the store) with the actions it performs."""
    return {
        (path.stem, name): reached(name, known)
        for path in COMMANDS
        for known in [functions(path)]
        for name, node in known.items()
        if not name.startswith("_") and any(argument.arg == "store" for argument in node.args.args)
    }


def test_every_action_is_one_command_s_own() -> None:
    performed: dict[Action, list[tuple[str, str]]] = {action: [] for action in Action}
    for command, actions in commands().items():
        for action in actions:
            performed[action].append(command)
    assert {action.value: who for action, who in performed.items() if len(who) != 1} == {}


def test_every_command_performs_one_action() -> None:
    found = {
        command: actions for command, actions in commands().items() if command[1] not in UNRECORDED
    }
    assert {command: len(actions) for command, actions in found.items()} == dict.fromkeys(found, 1)
    assert len(found) == len(Action)


def test_actions_follow_their_grammar() -> None:
    assert all(
        re.fullmatch(r"[a-z]+(-[a-z]+)*:[a-z]+(-[a-z]+)*", action.value) for action in Action
    )
    assert set(PERMISSIONS) == set(Action)
    assert set(Action) >= STEP_UP
    assert all(roles <= set(Role) for roles in PERMISSIONS.values())
    # Nobody is granted what only the registry itself does, and it does only what nobody is granted.
    assert {action for action, roles in PERMISSIONS.items() if not roles} == {
        Action.REVIEW_EXPIRE,
        Action.WORK_RECLAIM,
        Action.DRAFT_EXPIRE,
    }


def test_every_action_is_a_heading_of_the_docs() -> None:
    headings = re.findall(
        r"^### (\S+:\S+)$",
        (ROOT / "docs" / "actions.md").read_text(encoding="utf-8"),
        flags=re.MULTILINE,
    )
    assert sorted(headings) == sorted(action.value for action in Action)


def test_tables_bear_the_words_of_the_house() -> None:
    """A synonym in a table's name outlives every rename in the code."""
    avoided = {
        "model",
        "run",
        "checkpoint",
        "user",
        "project",
        "artifact",
        "experiment",
        "approval",
        "deployment",
    }
    tables = {mapper.class_.__tablename__ for mapper in Table.registry.mappers}
    assert tables & avoided == set()
