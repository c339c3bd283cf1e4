"""Looks at chat templates and runs them: a program of its own, started by path, that the service
never imports.

It knows the standard library and jinja2. Before it reads a byte of what others wrote it gives up
what a template could abuse: CPU time, memory, files (none can be opened, neither can a socket),
children. The service may be sure that whatever happens here ends, and ends small.
"""

from __future__ import annotations

import resource
import sys

if __name__ == "__main__":
    CPU, MEMORY = int(sys.argv[1]), int(sys.argv[2])
    for limit, value in (
        (resource.RLIMIT_CPU, CPU),
        (resource.RLIMIT_AS, MEMORY),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
    ):
        resource.setrlimit(limit, (value, value))
    sys.path += sys.argv[3:]

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

from jinja2 import Template, TemplateError, TemplateSyntaxError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

CALLS = frozenset({"raise_exception", "strftime_now", "range", "namespace", "dict", "caller"})
METHODS = frozenset(
    {
        "capitalize",
        "count",
        "endswith",
        "find",
        "get",
        "index",
        "isalnum",
        "isalpha",
        "isdigit",
        "isspace",
        "items",
        "join",
        "keys",
        "lower",
        "lstrip",
        "partition",
        "removeprefix",
        "removesuffix",
        "replace",
        "rfind",
        "rpartition",
        "rsplit",
        "rstrip",
        "split",
        "splitlines",
        "startswith",
        "strip",
        "title",
        "upper",
        "values",
    }
)
"""What about eighty templates in use call, and their kin. `format` reaches into objects; `center`
and the like make much out of little; what changes a list or a table is refused by the sandbox
anyway.
"""
REACHING = frozenset({"attr"})
BY_NAME = frozenset(
    {"map", "selectattr", "rejectattr", "groupby", "sort", "unique", "min", "max", "sum"}
)
PRIVATE = re.compile(r"(?:^|\.)__")
MAX_DIFF = 2000
"""Lines of one difference."""
MAX_TEXT = 64 << 10
"""Characters of one rendering."""


class Generation(Extension):
    """`{% generation %}`: marks what an assistant said, for training; it renders its body and
    nothing else.
    """

    tags = {"generation"}  # noqa: RUF012 - jinja2's own form

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_said"), [], [], body).set_lineno(line)

    def _said(self, caller: Any) -> str:
        return str(caller())


class PlainNamespace(Namespace):
    """As transformers has it: no name that begins with an underscore can be stored."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # the same signature trick as jinja2's
        self, *rest = args
        attrs = dict(*rest, **kwargs)
        for name in attrs:
            _plain_name(name)
        Namespace.__init__(self, attrs)

    def __setitem__(self, name: str, value: Any) -> None:
        _plain_name(name)
        Namespace.__setitem__(self, name, value)


def _plain_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace may hold no name like {name!r}")


class PlainDict:
    """`dict` without its class."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)


def environment(moment: str) -> ImmutableSandboxedEnvironment:
    """The environment transformers 5.23 renders in (utils/chat_template_utils.py), with a clock
    that stands still.
    """
    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )

    def raise_exception(message: object) -> None:
        raise TemplateError(str(message))

    def tojson(
        x: Any,
        ensure_ascii: bool = False,
        indent: Any = None,
        separators: Any = None,
        sort_keys: bool = False,
    ) -> str:
        return json.dumps(
            x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )

    def strftime_now(form: str) -> str:
        return datetime.fromisoformat(moment).strftime(form)

    made.filters["tojson"] = tojson
    made.globals |= {
        "raise_exception": raise_exception,
        "strftime_now": strftime_now,
        "dict": PlainDict(),
        "namespace": PlainNamespace,
    }
    return made


def offences(
    made: ImmutableSandboxedEnvironment, text: str
) -> Iterator[tuple[int, str, str, bool]]:
    """(line, rule, what is wrong, whether it could run code) of a template, by its syntax tree;
    nothing is run.
    """
    try:
        tree = made.parse(text)
    except TemplateSyntaxError as error:
        yield error.lineno, "template-syntax", f"it is no template: {error.message}", False
        return
    except (RecursionError, ValueError, OverflowError) as error:
        yield 0, "template-syntax", f"it cannot be read: {type(error).__name__}", False
        return
    macros = {macro.name for macro in tree.find_all(nodes.Macro)}
    for node in tree.find_all(nodes.Node):
        for rule, detail, runs in _wrong(node, macros):
            yield node.lineno, rule, detail, runs


def _wrong(node: nodes.Node, macros: set[str]) -> Iterator[tuple[str, str, bool]]:
    match node:
        case nodes.Include() | nodes.Import() | nodes.FromImport() | nodes.Extends():
            yield (
                "template-import",
                f"{type(node).__name__.lower()} brings in another template",
                True,
            )
        case nodes.Filter(name=name) if name in REACHING:
            yield (
                "attr-filter",
                f"the filter {name} reaches attributes by a name made at run time",
                True,
            )
        case nodes.Filter(name=name) | nodes.Test(name=name) if name in BY_NAME:
            for inner in node.find_all(nodes.Const):
                if isinstance(inner.value, str) and PRIVATE.search(inner.value):
                    yield "private-name", f"{name} is given the name {inner.value[:40]!r}", True
        case nodes.Getattr(attr=name) if name.startswith("_"):
            yield "private-name", f"the attribute {name[:40]} is one of Python's own", True
        case nodes.Getitem(arg=nodes.Const(value=str(name))) if name.startswith("__"):
            yield "private-name", f"the attribute {name[:40]} is one of Python's own", True
        case nodes.Name(name=name) | nodes.NSRef(name=name) if name.startswith("__"):
            yield "private-name", f"the name {name[:40]} is one of Python's own", True
        case nodes.Call(node=nodes.Getattr(attr=name)) if (
            name not in METHODS and not name.startswith("_")
        ):
            yield (
                "unknown-call",
                f"the method {name[:40]} is none that templates call",
                name in ("format", "format_map"),
            )
        case nodes.Call(node=nodes.Name(name=name)) if name not in CALLS and name not in macros:
            yield (
                "unknown-call",
                f"{name[:40]} is neither a macro of its own nor a function templates may call",
                False,
            )
        case nodes.Call(node=called) if not isinstance(
            called, nodes.Getattr | nodes.Name | nodes.ExtensionAttribute
        ):
            yield "unknown-call", "something is called that is known only at run time", True
    if isinstance(node, nodes.NSRef) and node.attr.startswith("_"):
        yield "private-name", f"a namespace is given the name {node.attr[:40]}", True


@lru_cache(maxsize=16)
def compiled(made: ImmutableSandboxedEnvironment, text: str) -> Template:
    """Compiled once for all conversations: that takes longer than to render."""
    return made.from_string(text)


def rendered(
    made: ImmutableSandboxedEnvironment, text: str, given: Mapping[str, Any]
) -> dict[str, str]:
    """What a template makes of a conversation: `text`, `raised` or `failed`.

    `raised` is how it says no to this conversation, by raise_exception or because it reads what is
    not there: many in use know no tools. `failed` is what none may do to any.
    """
    held: list[str] = []
    length = 0
    try:
        for piece in compiled(made, text).generate(**given):
            held.append(piece)
            length += len(piece)
            if length > MAX_TEXT:
                return {
                    "failed": f"it writes more than {MAX_TEXT} characters for a conversation of a "
                    "few lines"
                }
    except MemoryError:
        held.clear()
        return {"failed": "it asks for more memory than a template may have"}
    except RecursionError:
        return {"failed": "it calls itself without end"}
    except SecurityError as error:
        return {"failed": f"the sandbox stopped it: {str(error)[:200]}"}
    except OverflowError as error:
        return {"failed": f"it counts too far: {str(error)[:200]}"}
    except TemplateError as error:
        return {"raised": str(error)[:300]}
    except Exception as error:
        return {"raised": f"{type(error).__name__}: {str(error)[:200]}"}
    return {"text": "".join(held)}


def difference(before: str, after: str, names: tuple[str, str]) -> list[str]:
    """A unified difference by lines, the end of a long one left out and said so."""
    lines = list(difflib.unified_diff(before.splitlines(), after.splitlines(), *names, lineterm=""))
    left = len(lines) - MAX_DIFF
    return lines if left <= 0 else [*lines[:MAX_DIFF], f"... {left} more lines"]


def answer(asked: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Each thing asked, one after the other: what begins is said first, so that whoever waits knows
    what did not end.
    """
    made = environment(asked["moment"])
    for name, text in asked["look"].items():
        yield {"begins": name}
        found = [
            {"template": name, "line": line, "rule": rule, "detail": detail, "runs_code": runs}
            for line, rule, detail, runs in offences(made, text)
        ]
        yield {"offences": found[:100]}
    for one in asked["diff"]:
        yield {"begins": one["name"]}
        yield {
            "name": one["name"],
            "diff": difference(one["before"], one["after"], (one["from"], one["to"])),
        }
    over: set[str] = set()
    for one in asked["render"]:
        if one["template"] in over:
            continue
        yield {"begins": one["template"]}
        told = {
            "key": one["key"],
            "template": one["template"],
            **rendered(made, one["text"], one["given"]),
        }
        if (
            "failed" in told
        ):  # one conversation says as much as seven, and each may cost what was given to all
            over.add(one["template"])
        yield told


def warm() -> None:
    """Use what is else loaded at its first use: codecs of texts, what rewrites the trace of an
    error.
    """
    made = environment("2026-01-05T12:00:00")
    made.from_string(
        "{{ 'a\\n' | tojson ~ strftime_now('%d %b %Y') ~ {'b': 1} | dictsort }}"
    ).render()
    for text in (
        "{{ raise_exception('no') }}",
        "{{ 1 / 0 }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    ):
        rendered(made, text, {})


def main() -> None:
    asked = json.load(sys.stdin)
    warm()
    # From here on not even what is installed can be opened: three descriptors are in use, and there
    # is no fourth.
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
    for line in answer(asked):
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
