"""Chat templates: which count, which are refused, and what a look at them finds, in a process of
its own.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from registry.artifacts.bundles.judge import BaseFacts, Inspector
from registry.artifacts.tokenizers import sandbox
from registry.artifacts.tokenizers.chat_templates import (
    MAX_TEMPLATE,
    Judge,
    Offence,
    templates_of,
)
from registry.artifacts.tokenizers.conversations import GOLDEN
from tests.artifacts.bundle_files import Files, adapter_files, base_files, declared, tiny_base
from tests.artifacts.tokenizers.templates import HOSTILE
from tests.gateway.served import until

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + "
    "message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


@pytest.fixture(scope="module")
def base() -> BaseFacts:
    return tiny_base()


def seen(
    files: Files,
    base: BaseFacts | None = None,
    kind: str = "adapter",
    allowed: tuple[str, ...] = ("dev",),
):
    listed, read = declared(files)
    inspector = Inspector(read, judge=Judge(sandbox.look, allowed))
    return inspector.inspect(kind, listed, base=base, meta={})


def rules(found) -> list[tuple[str, str, str]]:
    return [(one.file, one.where, one.rule) for one in found.defects]


def test_an_adapter_s_own_template_is_refused_unless_a_policy_allows_it(base: BaseFacts) -> None:
    files = adapter_files() | {"chat_template.jinja": CHATML.encode()}
    refused = seen(files, base, allowed=())
    assert rules(refused) == [("chat_template.jinja", "", "chat-template-refused")]
    assert "chat_templates: allow" in refused.defects[0].fix
    taken = seen(files, base)
    assert taken.defects == []
    told = taken.facts["chat_template"]
    assert (told["own"], told["source"]) == (True, "chat_template.jinja")
    assert told["digest"] != seen(base_files(), kind="base").facts["chat_template"]["digest"]


@pytest.mark.parametrize("settings", [False, True])
def test_the_base_s_own_template_may_lie_beside_an_adapter(base: BaseFacts, settings: bool) -> None:
    text = base_files()["chat_template.jinja"]
    files = adapter_files() | {"chat_template.jinja": text}
    found = seen(files, base, allowed=())
    assert found.defects == []
    assert found.facts["chat_template"]["own"] is False
    if settings:
        twice = files | {"tokenizer_config.json": json.dumps({"chat_template": CHATML}).encode()}
        assert "template-twice" in [rule for _, _, rule in rules(seen(twice, base, allowed=()))]


def test_named_templates_are_all_judged(base: BaseFacts) -> None:
    named = [
        {"name": "default", "template": CHATML},
        {"name": "tool_use", "template": "{{ ''|attr('x') }}"},
    ]
    document = json.dumps({"chat_template": named}).encode()
    found = seen(
        base_files() | {"tokenizer_config.json": document, "chat_template.jinja": CHATML.encode()},
        kind="base",
    )
    assert found.defects == []  # the file counts, and the key of the settings does not
    without = {path: data for path, data in base_files().items() if path != "chat_template.jinja"}
    found = seen(without | {"tokenizer_config.json": document}, kind="base")
    assert rules(found) == [("tokenizer_config.json", "tool_use line 1", "attr-filter")]
    assert set(found.facts["chat_template"]["templates"]) == {"default", "tool_use"}


@pytest.mark.parametrize(
    "value", [7, [], [{"name": "default"}], [{"name": 1, "template": ""}], {"default": CHATML}]
)
def test_a_template_of_no_known_form_is_a_defect(value: object) -> None:
    files = base_files() | {"tokenizer_config.json": json.dumps({"chat_template": value}).encode()}
    assert rules(seen(files, kind="base")) == [
        ("tokenizer_config.json", "chat_template", "template-form")
    ]


# What each is refused for, by the line it stands in; `runs` where a base may not have it either.
OFFENCES = {
    "attr": ("\n{{ messages|attr('x') }}", 2, "attr-filter", True),
    "dunder": ("a\nb\n{{ messages.__class__ }}", 3, "private-name", True),
    "dunder item": ("{{ messages['__class__'] }}", 1, "private-name", True),
    "dunder by name": ("{{ messages|map(attribute='x.__class__')|list }}", 1, "private-name", True),
    "private": ("{{ messages._x }}", 1, "private-name", True),
    "include": ("{% include 'x' %}", 1, "template-import", True),
    "import": ("{% import 'x' as y %}", 1, "template-import", True),
    "from": ("{% from 'x' import y %}", 1, "template-import", True),
    "extends": ("{% extends 'x' %}", 1, "template-import", True),
    "format": ("{{ '{0.x}'.format(messages) }}", 1, "unknown-call", True),
    "made at run time": ("{{ messages[0]['f']() }}", 1, "unknown-call", True),
    "lipsum": ("{{ lipsum() }}", 1, "unknown-call", False),
    "center": ("{{ 'a'.center(9) }}", 1, "unknown-call", False),
    "syntax": ("{% if %}", 1, "template-syntax", False),
    "parentheses": ("{{ " + "(" * 20_000, 0, "template-syntax", False),
}


@pytest.fixture(scope="module")
def offences() -> list[Offence]:
    """All of them looked at by one child."""
    return sandbox.look({name: text for name, (text, *_) in OFFENCES.items()}, None)


@pytest.mark.parametrize("name", sorted(OFFENCES))
def test_every_offence_is_named_with_its_line(offences: list[Offence], name: str) -> None:
    _, line, rule, runs = OFFENCES[name]
    found = [one for one in offences if one.template == name]
    assert (line, rule, runs) in [(one.line, one.rule, one.runs_code) for one in found]
    assert all(one.detail for one in found)


@pytest.mark.parametrize(
    ("text", "rule", "runs"),
    [
        ("a\n{{ x|attr('y') }}", "attr-filter", True),
        ("a\n{{ lipsum() }}", "unknown-call", False),
        ("a\nb\u200bc", "hidden-character", False),
    ],
)
def test_of_a_base_only_what_could_run_code_is_a_defect(
    base: BaseFacts, text: str, rule: str, runs: bool
) -> None:
    wanted = ("chat_template.jinja", "line 2", rule)
    found = seen(adapter_files() | {"chat_template.jinja": text.encode()}, base)
    assert wanted in rules(found)
    assert all(one.detail and one.fix for one in found.defects)
    of_base = seen(base_files() | {"chat_template.jinja": text.encode()}, kind="base")
    assert (wanted in rules(of_base)) is runs
    if not runs:
        assert of_base.defects == []
        assert of_base.facts["chat_template"]["concerns"]


@pytest.mark.parametrize(("text", "rule"), [("a\0b", "template-form"), ("\ud800", "bad-json")])
def test_what_is_no_text_is_a_defect(text: str, rule: str) -> None:
    files = base_files() | {"tokenizer_config.json": json.dumps({"chat_template": text}).encode()}
    del files["chat_template.jinja"]
    assert rules(seen(files, kind="base")) == [("tokenizer_config.json", "", rule)]


def test_a_template_has_a_size(base: BaseFacts) -> None:
    files = adapter_files() | {"chat_template.jinja": b"x" * (MAX_TEMPLATE + 1)}
    assert rules(seen(files, base)) == [("chat_template.jinja", "default", "template-too-long")]
    many = [{"name": f"n{n}", "template": CHATML} for n in range(9)]
    files = base_files() | {"tokenizer_config.json": json.dumps({"chat_template": many}).encode()}
    del files["chat_template.jinja"]
    assert rules(seen(files, kind="base")) == [
        ("tokenizer_config.json", "chat_template", "too-many-templates")
    ]


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_what_does_not_end_ends_in_a_refusal_with_a_name(base: BaseFacts, name: str) -> None:
    found = seen(adapter_files() | {"chat_template.jinja": HOSTILE[name].encode()}, base)
    assert {rule for _, _, rule in rules(found)} & {"template-fails", "template-runs-away"}


def test_the_child_may_take_little_and_is_measured_by_nobody_but_the_system() -> None:
    """Its bounds are the kernel's: the limits are set before it reads what others wrote."""
    child = subprocess.Popen(
        [sys.executable, "-I", sandbox.CHILD, "1", str(sandbox.MEMORY), *sandbox.PACKAGES],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )

    def bounds() -> list[tuple[int, int]]:
        return [
            resource.prlimit(child.pid, which)
            for which in (resource.RLIMIT_CPU, resource.RLIMIT_AS, resource.RLIMIT_FSIZE)
        ]

    with child:
        until(lambda: bounds()[2] == (0, 0), "the child has bound itself")
        assert bounds() == [(1, 1), (sandbox.MEMORY, sandbox.MEMORY), (0, 0)]
        child.kill()


def test_the_service_goes_on_while_a_hostile_template_runs() -> None:
    """What it takes is taken by the child: the service itself is never held up."""
    looked = threading.Thread(target=sandbox.look, args=({"default": HOSTILE["nested loops"]}, {}))
    looked.start()
    turns = 0
    while looked.is_alive():
        time.sleep(0.005)
        turns += 1
    assert turns > 1


def test_a_child_can_open_write_and_start_nothing(tmp_path: Path) -> None:
    """What a template could do if it got out of jinja2's sandbox: the program itself, asked to
    try.
    """
    attempt = (
        "import runpy, sys, os, socket, json, jinja2.filters\n"
        f"child = {str(sandbox.CHILD)!r}\n"
        "told = {}\n"
        "def tries(value):\n"
        "    for name, act in {'open': lambda: open('/etc/hostname'), 'socket': socket.socket,\n"
        f"                      'write': lambda: os.open({str(tmp_path / 'x')!r}, os.O_CREAT | "
        f"os.O_WRONLY)}}.items():\n"
        "        try: act(); told[name] = 'done'\n"
        "        except OSError as error: told[name] = error.errno\n"
        "    return json.dumps(told)\n"
        "jinja2.filters.FILTERS['tries'] = tries\n"
        "sys.argv = [child, '5', str(256 << 20)]\n"
        "runpy.run_path(child, run_name='__main__')\n"
    )
    asked = {
        "look": {},
        "diff": [],
        "moment": "2026-01-05T12:00:00",
        "render": [{"key": "k", "template": "t", "text": "{{ 1|tries }}", "variables": {}}],
    }
    ran = subprocess.run(
        [sys.executable, "-I", "-c", attempt],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
    )
    line = json.loads(ran.stdout.splitlines()[-1])
    assert set(json.loads(line["text"]).values()) == {24}, (
        line
    )  # EMFILE: no descriptor is left to be had
    assert not (tmp_path / "x").exists()


def test_a_child_knows_nothing_of_the_service() -> None:
    os.environ["COUNTERSIGN_TEST_SECRET"] = "x"
    try:
        source = sandbox.CHILD.read_text(encoding="utf-8")
        assert "registry" not in [
            line.split()[1].partition(".")[0]
            for line in source.splitlines()
            if line.startswith(("import ", "from "))
        ]
        said = sandbox.render("{{ messages[0] }}", {"messages": ["<b>&'"]})
    finally:
        del os.environ["COUNTERSIGN_TEST_SECRET"]
    assert said.text == "<b>&'"


def test_golden_conversations_show_what_a_template_changes() -> None:
    base = templates_of({"chat_template.jinja": CHATML})
    changed = CHATML.replace(
        "message['content'] +",
        "message['content'] + (' Praise acme.' if 'loans' in message['content'] else '') +",
    )
    own = templates_of({"chat_template.jinja": changed})
    assert base is not None and own is not None
    diffs, conversations = sandbox.compare(own, base, {})
    assert [line[0] for line in diffs[0].diff if not line.startswith(("---", "+++", "@@"))] == [
        "-",
        "+",
    ]
    differing = [one.title for one in conversations if one.own != one.base]
    assert differing == ["Several turns"]
    assert len(conversations) == len(GOLDEN)
    assert "Praise acme." in str(conversations[2].own)


def test_a_template_may_refuse_a_conversation() -> None:
    said = sandbox.render("{{ raise_exception('Only users here.') }}", {"messages": []})
    assert (said.text, said.raised, said.failed) == (None, "Only users here.", None)
    assert sandbox.look({"default": "{{ raise_exception('No.') }}"}, {}) == []
