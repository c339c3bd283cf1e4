"""Examines chat templates and runs them: a separate program that the service never imports.

It is started by its path and uses the standard library and jinja2. Before it reads a byte that
others wrote, it gives up what a template could abuse: CPU time, memory, files and sockets (none can
be opened), child processes. Whatever happens here therefore ends, and its result is small.
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

FUNCTIONS = frozenset({"raise_exception", "strftime_now", "range", "namespace", "dict", "caller"})
"""The functions that templates may call besides their own macros."""
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
"""The methods that about eighty templates in use call, and similar ones.

`format` reaches into objects. `center` and the like make long texts out of short ones. The sandbox
itself refuses methods that change a list or a table.
"""
ATTRIBUTE_FILTERS = frozenset({"attr"})
"""Filters that read an attribute by a name made at run time."""
NAMED_ATTRIBUTE_FILTERS = frozenset(
    {"map", "selectattr", "rejectattr", "groupby", "sort", "unique", "min", "max", "sum"}
)
"""Filters and tests that read an attribute by a name in the template."""
PRIVATE = re.compile(r"(?:^|\.)__")
MAX_DIFF = 2000
"""Lines of one unified difference."""
MAX_OFFENCES = 100
"""Offences listed for one template."""
MAX_TEXT = 64 << 10
"""Characters of one rendering."""


class Generation(Extension):
    """`{% generation %}`, which marks the text of an assistant for training; renders its body."""

    tags = {"generation"}  # noqa: RUF012 - jinja2's own form

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller: Any) -> str:
        return str(caller())


class PlainNamespace(Namespace):
    """The namespace of transformers: it stores no name that begins with an underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # The same trick of signatures as in jinja2.
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
        raise SecurityError(f"a namespace cannot store a name like {name!r}")


class PlainDict:
    """The function `dict` without its class."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)


def environment(moment: str) -> ImmutableSandboxedEnvironment:
    """The environment in which transformers 5.23 renders, with a fixed time.

    See its utils/chat_template_utils.py.
    """
    renderer = ImmutableSandboxedEnvironment(
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

    renderer.filters["tojson"] = tojson
    renderer.globals |= {
        "raise_exception": raise_exception,
        "strftime_now": strftime_now,
        "dict": PlainDict(),
        "namespace": PlainNamespace,
    }
    return renderer


def offences(
    renderer: ImmutableSandboxedEnvironment, text: str
) -> Iterator[tuple[int, str, str, bool]]:
    """What is wrong with a template by its syntax tree; nothing is run.

    Yields (line, rule, detail, whether it could run code).
    """
    try:
        tree = renderer.parse(text)
    except TemplateSyntaxError as error:
        yield error.lineno, "template-syntax", f"it is not a template: {error.message}", False
        return
    except (RecursionError, ValueError, OverflowError) as error:
        yield 0, "template-syntax", f"it cannot be read: {type(error).__name__}", False
        return
    macros = {macro.name for macro in tree.find_all(nodes.Macro)}
    for node in tree.find_all(nodes.Node):
        for rule, detail, runs_code in _wrong(node, macros):
            yield node.lineno, rule, detail, runs_code


def _wrong(node: nodes.Node, macros: set[str]) -> Iterator[tuple[str, str, bool]]:
    match node:
        case nodes.Include() | nodes.Import() | nodes.FromImport() | nodes.Extends():
            yield (
                "template-import",
                f"{type(node).__name__.lower()} brings in another template",
                True,
            )
        case nodes.Filter(name=name) if name in ATTRIBUTE_FILTERS:
            yield (
                "attr-filter",
                f"the filter {name} reaches attributes by a name made at run time",
                True,
            )
        case nodes.Filter(name=name) | nodes.Test(name=name) if name in NAMED_ATTRIBUTE_FILTERS:
            for inner in node.find_all(nodes.Const):
                if isinstance(inner.value, str) and PRIVATE.search(inner.value):
                    yield "private-name", f"{name} receives the name {inner.value[:40]!r}", True
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
                f"the method {name[:40]} is not one that templates may call",
                name in ("format", "format_map"),
            )
        case nodes.Call(node=nodes.Name(name=name)) if name not in FUNCTIONS and name not in macros:
            yield (
                "unknown-call",
                f"{name[:40]} is neither a macro of the template nor a function that it may call",
                False,
            )
        case nodes.Call(node=called) if not isinstance(
            called, nodes.Getattr | nodes.Name | nodes.ExtensionAttribute
        ):
            yield "unknown-call", "it calls something that is known only at run time", True
    if isinstance(node, nodes.NSRef) and node.attr.startswith("_"):
        yield "private-name", f"a namespace receives the name {node.attr[:40]}", True


@lru_cache(maxsize=16)
def compiled(renderer: ImmutableSandboxedEnvironment, text: str) -> Template:
    """A template compiled once for all conversations: compiling takes longer than rendering."""
    return renderer.from_string(text)


def rendered(
    renderer: ImmutableSandboxedEnvironment, text: str, variables: Mapping[str, Any]
) -> dict[str, str]:
    """The result of a template for a conversation: `text`, `raised` or `failed`.

    `raised`: it refuses this conversation, by raise_exception or because it reads what is missing;
    many templates in use know no tools. `failed`: it does what no template may do.
    """
    pieces: list[str] = []
    length = 0
    try:
        for piece in compiled(renderer, text).generate(**variables):
            pieces.append(piece)
            length += len(piece)
            if length > MAX_TEXT:
                return {
                    "failed": f"it writes more than {MAX_TEXT} characters for a conversation of "
                    "a few lines"
                }
    except MemoryError:
        pieces.clear()
        return {"failed": "it needs more memory than a template may use"}
    except RecursionError:
        return {"failed": "it calls itself without end"}
    except SecurityError as error:
        return {"failed": f"the sandbox stopped it: {str(error)[:200]}"}
    except OverflowError as error:
        return {"failed": f"a number in it is too large: {str(error)[:200]}"}
    except TemplateError as error:
        return {"raised": str(error)[:300]}
    except Exception as error:
        return {"raised": f"{type(error).__name__}: {str(error)[:200]}"}
    return {"text": "".join(pieces)}


def difference(before: str, after: str, names: tuple[str, str]) -> list[str]:
    """A unified difference by lines; a long one is cut, and its last line counts the others."""
    lines = list(difflib.unified_diff(before.splitlines(), after.splitlines(), *names, lineterm=""))
    omitted = len(lines) - MAX_DIFF
    return lines if omitted <= 0 else [*lines[:MAX_DIFF], f"... {omitted} more lines"]


def answer(request: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The answers to a request, one after the other.

    Each template is announced before it is examined, so that the service knows which one did not
    end.
    """
    renderer = environment(request["moment"])
    for name, text in request["look"].items():
        yield {"begins": name}
        listed = [
            {"template": name, "line": line, "rule": rule, "detail": detail, "runs_code": runs_code}
            for line, rule, detail, runs_code in offences(renderer, text)
        ]
        yield {"offences": listed[:MAX_OFFENCES]}
    for pair in request["diff"]:
        yield {"begins": pair["name"]}
        yield {
            "name": pair["name"],
            "diff": difference(pair["before"], pair["after"], (pair["from"], pair["to"])),
        }
    failed: set[str] = set()
    for job in request["render"]:
        if job["template"] in failed:
            continue
        yield {"begins": job["template"]}
        result = {
            "key": job["key"],
            "template": job["template"],
            **rendered(renderer, job["text"], job["variables"]),
        }
        # One failure proves as much as seven, and each may use the time that is meant for all.
        if "failed" in result:
            failed.add(job["template"])
        yield result


def warm() -> None:
    """Use what is otherwise loaded at its first use.

    That is the codecs of texts and what rewrites the trace of an error.
    """
    renderer = environment("2026-01-05T12:00:00")
    renderer.from_string(
        "{{ 'a\\n' | tojson ~ strftime_now('%d %b %Y') ~ {'b': 1} | dictsort }}"
    ).render()
    for text in (
        "{{ raise_exception('no') }}",
        "{{ 1 / 0 }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    ):
        rendered(renderer, text, {})


def main() -> None:
    request = json.load(sys.stdin)
    warm()
    # From here on no file can be opened, not even an installed one: three descriptors are in use,
    # and there is no fourth.
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
    for line in answer(request):
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
