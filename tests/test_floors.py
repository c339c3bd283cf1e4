"""What import-linter does not see: how long a file may be, what it may be called, and where async
and SQL live. `make lint` checks who may import whom.
"""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILES = [
    path
    for room in ("registry", "trainer", "migrations", "tests")
    for path in sorted((ROOT / room).rglob("*.py"))
]
OURS = [path for path in FILES if path.parts[len(ROOT.parts)] in ("registry", "trainer")]
NAMELESS = {
    "utils",
    "util",
    "helpers",
    "helper",
    "common",
    "base",
    "service",
    "services",
    "manager",
    "misc",
    "core",
}
VAGUE = {"one", "found", "wanted", "said", "held", "told", "mine", "aside", "below", "came"}

# Rooms where a library or a streamed body asks for async; everything else is synchronous.
ASYNC = (
    "registry/api/",
    "registry/web/",
    "registry/app.py",
    "registry/clock.py",
    "registry/gateway/",
    "trainer/engine.py",
)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_no_file_is_too_long() -> None:
    lengths = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    # The verifier is one file that an auditor copies; tests/test_verifier.py bounds its length.
    del lengths["registry/verifier.py"]
    assert {name: length for name, length in lengths.items() if length > 500} == {}


def test_every_file_has_a_name_that_says_something() -> None:
    assert [
        name_of(path) for path in FILES if path.stem in NAMELESS or path.parent.name in NAMELESS
    ] == []


def test_every_name_says_what_it_is() -> None:
    """docs/style.md: a name that fits anything tells a reader nothing."""
    bound = []
    for path in OURS:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = getattr(node, "arg", None) if isinstance(node, ast.arg) else None
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                name = node.id
            if name in VAGUE:
                bound.append(f"{name_of(path)}:{node.lineno}: {name}")
    assert bound == []


def test_async_lives_where_it_pays() -> None:
    found = [
        f"{name_of(path)}:{node.lineno}"
        for path in OURS
        if not name_of(path).startswith(ASYNC)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncWith | ast.AsyncFor)
    ]
    assert found == []


def test_sql_lives_in_db_and_queries() -> None:
    """The floors forbid the import; this forbids its words, whoever hands them in."""
    words = {"select", "insert", "delete", "update", "text"}
    found = []
    for path in OURS:
        if name_of(path).startswith(("registry/db/", "registry/queries/", "registry/postgres/")):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom) and "sqlalchemy" in ast.unparse(node):
                found.append(f"{name_of(path)}:{node.lineno}: {ast.unparse(node)}")
            if name_of(path).startswith("registry/commands/") and isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if called in words or called.endswith(
                    ("session.execute", "session.scalars", "session.scalar")
                ):
                    found.append(f"{name_of(path)}:{node.lineno}: {called}")
    assert found == []


def test_only_composition_roots_read_settings_and_the_environment() -> None:
    roots = (
        "registry/app.py",
        "registry/clock.py",
        "registry/__main__.py",
        "registry/cli/",
        "registry/gateway/",
        "trainer/",
        "registry/settings.py",
        "registry/client/",
        "registry/postgres/",
        "registry/verifier.py",
        "registry/api/rest/",
        "registry/web/",
    )
    found = []
    for path in OURS:
        source = path.read_text(encoding="utf-8")
        if not name_of(path).startswith(roots) and (
            "os.environ" in source or "registry.settings" in source
        ):
            found.append(name_of(path))
    assert found == []
