"""Every (family, kind) of error the code can raise, read from its source: what docs/problems.md has
to explain.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from registry import errors
from registry.db import refusals

ROOT = Path(__file__).parents[1]
FAMILY = {
    name: found.family
    for name, found in vars(errors).items()
    if isinstance(found, type) and hasattr(found, "family")
}

Around = tuple[ast.FunctionDef | ast.AsyncFunctionDef, ...]

# Kinds put together when they are raised: the text between the braces, and what it can be.
PUT_TOGETHER = {
    "gate-{verdict.outcome}": ("fail", "inconclusive"),
    "work-{work.state}": ("failed", "cancelled"),
}


def raised() -> set[tuple[str, str]]:
    """All of them; AssertionError names a place whose kind cannot be read, so that none is
    overlooked.
    """
    # What PostgreSQL itself refuses stands in tables, not in calls.
    found = {("conflict", kind) for kind, _, _ in refusals.CONSTRAINTS.values()}
    found |= {(error.family, kind) for error, kind in refusals.SQLSTATES.values()}
    for path in sorted([*(ROOT / "registry").rglob("*.py"), *(ROOT / "trainer").rglob("*.py")]):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for call, around in _calls(tree, ()):
            name = call.func.id if isinstance(call.func, ast.Name) else ""
            if name == "BundleRejected":
                found.add(("rejected", "bundle-rejected"))
            elif (
                name in FAMILY
                and call.args
                and (path.name, ast.unparse(call.args[0])) != ("refusals.py", "kind")
            ):
                kinds = set(_texts(call.args[0], around, tree))
                assert kinds, (
                    f"{path.relative_to(ROOT)}:{call.lineno}: which kind is "
                    f"{ast.unparse(call.args[0])}?"
                )
                found |= {(FAMILY[name], kind) for kind in kinds}
    return found


def _calls(node: ast.AST, around: Around) -> Iterator[tuple[ast.Call, Around]]:
    """Every call, with the functions it stands in."""
    if isinstance(node, ast.Call):
        yield node, around
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        around = (*around, node)
    for child in ast.iter_child_nodes(node):
        yield from _calls(child, around)


def _texts(node: ast.expr, around: Around, tree: ast.Module) -> Iterator[str]:
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.IfExp(body=body, orelse=orelse):
            yield from _texts(body, around, tree)
            yield from _texts(orelse, around, tree)
        case ast.JoinedStr():
            form = ast.unparse(node)[2:-1]
            opening, closing = form.index("{"), form.index("}")
            yield from (
                form[:opening] + text + form[closing + 1 :] for text in PUT_TOGETHER.get(form, ())
            )
        case ast.Starred(value=ast.Name(id=name)):
            yield from _assigned(name, tree, tree)
        case ast.Name(id=name):
            for function in around:
                yield from _assigned(name, function, tree)
                names = [one.arg for one in function.args.args]
                if name in names:
                    # A helper that is told the kind: its callers in the same file know it.
                    for call in ast.walk(tree):
                        if (
                            isinstance(call, ast.Call)
                            and getattr(call.func, "id", None) == function.name
                        ):
                            yield from _texts(call.args[names.index(name)], (), tree)


def _assigned(name: str, where: ast.AST, tree: ast.Module) -> Iterator[str]:
    """What is assigned to a name, alone or as one of several, from texts written there."""
    for node in ast.walk(where):
        if not isinstance(node, ast.Assign):
            continue
        targets = (
            node.targets[0].elts if isinstance(node.targets[0], ast.Tuple) else [node.targets[0]]
        )
        for place, target in enumerate(targets):
            if isinstance(target, ast.Name) and target.id == name:
                for value in ast.walk(node.value):
                    if isinstance(value, ast.Tuple):
                        yield from _texts(value.elts[place], (), tree)
