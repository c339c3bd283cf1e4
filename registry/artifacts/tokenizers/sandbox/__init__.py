"""Examines and runs chat templates in a separate process with little time and memory and no files.

The service itself never parses a template. A process that does not end is killed together with all
it started, and the caller receives the name of the template and the reason.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from registry.artifacts.tokenizers.chat_templates import Offence, Templates
from registry.artifacts.tokenizers.conversations import GOLDEN, MOMENT
from registry.errors import Unavailable
from registry.views.chat_templates import GoldenView, RenderedView, TemplateDiffView

CHILD = Path(__file__).with_name("child.py")
# The child is isolated from the user's own packages, so it needs the folder of jinja2.
PACKAGES = sorted(
    {
        str(Path(spec.origin).parents[1])
        for name in ("jinja2", "markupsafe")
        if (spec := find_spec(name)) is not None and spec.origin is not None
    }
)
CPU_SECONDS = 1
MEMORY = 256 << 20
"""Bytes of address space, including the interpreter's own."""
WALL_SECONDS = 15.0
"""Seconds after which the machine is at fault, not the template.

The processor time bounds a template; this is much longer.
"""
WAIT_SECONDS = 10.0
"""How long to wait until another child may start."""
MAX_ANSWER = 8 << 20
"""Bytes of a child's answer."""
_CHILDREN = threading.BoundedSemaphore(2)
"""Two children at once, so that templates never use the whole machine."""


def look(texts: Mapping[str, str], tokens: Mapping[str, str] | None) -> list[Offence]:
    """What is wrong with templates by their syntax and, with `tokens`, by how they run.

    It is the `Look` of `chat_templates`. Raises Unavailable `sandbox-busy` or `sandbox-away`.
    """
    renders = (
        []
        if tokens is None
        else [
            _render(f"{name}:{number}", name, text, number, tokens)
            for name, text in texts.items()
            for number in range(len(GOLDEN))
        ]
    )
    lines, stopped = _ask(look=texts, render=renders)
    offences = [Offence(**offence) for line in lines for offence in line.get("offences", ())]
    offences += [
        Offence(line["template"], 0, "template-fails", line["failed"], False)
        for line in lines
        if "failed" in line
    ]
    if stopped is not None:
        offences.append(Offence(stopped[0], 0, "template-runs-away", stopped[1], False))
    return offences


def compare(
    own: Templates, base: Templates | None, tokens: Mapping[str, str]
) -> tuple[list[TemplateDiffView], list[GoldenView]]:
    """Compare templates with the base's line by line, and by the golden conversations."""
    before = base.texts if base else {}
    diffs = [
        {
            "name": name,
            "before": before.get(name, ""),
            "after": own.texts.get(name, ""),
            "from": f"base/{name}",
            "to": f"version/{name}",
        }
        for name in sorted({*before, *own.texts})
    ]
    sides = {"own": own.texts.get("default"), "base": before.get("default")}
    renders = [
        _render(f"{side}:{number}", side, text, number, tokens)
        for side, text in sides.items()
        if text is not None
        for number in range(len(GOLDEN))
    ]
    lines, stopped = _ask(diff=diffs, render=renders)
    rendered = {line["key"]: line for line in lines if "key" in line}
    changes = {line["name"]: line["diff"] for line in lines if "diff" in line}

    def side(name: str, number: int) -> RenderedView | None:
        if sides[name] is None:
            return None
        line = rendered.get(f"{name}:{number}")
        if line is None:
            return RenderedView(None, None, stopped[1] if stopped else "it was not rendered")
        return RenderedView(line.get("text"), line.get("raised"), line.get("failed"))

    goldens = [
        GoldenView(
            conversation.title,
            [dict(message) for message in conversation.messages],
            side("own", number),
            side("base", number),
        )
        for number, conversation in enumerate(GOLDEN)
    ]
    unread = [f"It could not be compared: {stopped[1]}."] if stopped else []
    return [
        TemplateDiffView(
            diff["name"],
            diff["name"] in own.texts,
            diff["name"] in before,
            changes.get(diff["name"], unread),
        )
        for diff in diffs
    ], goldens


def _render(
    key: str, template: str, text: str, number: int, tokens: Mapping[str, str]
) -> dict[str, Any]:
    conversation = GOLDEN[number]
    variables = {
        **tokens,
        "messages": conversation.messages,
        "tools": conversation.tools,
        "documents": None,
        "add_generation_prompt": conversation.add_generation_prompt,
    }
    return {"key": key, "template": template, "text": text, "variables": variables}


def render(text: str, variables: Mapping[str, Any], moment: str = MOMENT) -> RenderedView:
    """Render one template with these variables, as transformers would at that moment."""
    lines, stopped = _ask(
        render=[{"key": "", "template": "default", "text": text, "variables": variables}],
        moment=moment,
    )
    line = next(
        (answer for answer in lines if "key" in answer),
        {"failed": stopped[1] if stopped else "it was not rendered"},
    )
    return RenderedView(line.get("text"), line.get("raised"), line.get("failed"))


def _ask(
    look: Mapping[str, str] | None = None,
    diff: Sequence[Mapping[str, Any]] = (),
    render: Sequence[Mapping[str, Any]] = (),
    moment: str = MOMENT,
) -> tuple[list[dict[str, Any]], tuple[str, str] | None]:
    """The child's answers, and (template, reason) for the template at which it was stopped.

    Raises Unavailable `sandbox-busy` or `sandbox-away` when no child can be started.
    """
    request = json.dumps(
        {"look": dict(look or {}), "diff": list(diff), "render": list(render), "moment": moment}
    )
    if not _CHILDREN.acquire(timeout=WAIT_SECONDS):
        raise Unavailable("sandbox-busy", "Too many chat templates are being examined.")
    try:
        lines, status = _run(request.encode())
    finally:
        _CHILDREN.release()
    begun = [line["begins"] for line in lines if "begins" in line]
    if status == 0:
        return lines, None
    if not begun:
        raise Unavailable(
            "sandbox-away",
            "The process that examines chat templates did not start.",
            "Try again. If that fails too, look at the server's log.",
        )
    return lines, (begun[-1], _reason(status))


def _reason(status: int) -> str:
    if status in (-signal.SIGXCPU, -signal.SIGKILL):
        return f"it did not end within {CPU_SECONDS} s of processor time"
    return f"it crashed the process that ran it, which has {MEMORY >> 20} MiB of memory"


def _run(request: bytes) -> tuple[list[dict[str, Any]], int]:
    """Start a child, send it the request, and return its lines and exit status.

    A child that does not end in time is killed.
    """
    try:
        child = subprocess.Popen(
            [sys.executable, "-I", str(CHILD), str(CPU_SECONDS), str(MEMORY), *PACKAGES],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={},
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        raise Unavailable(
            "sandbox-away",
            f"No process to examine chat templates could be started: {error.strerror}.",
            "Try again. If that fails too, check the server's limits.",
        ) from error
    assert child.stdin is not None and child.stdout is not None
    overdue = threading.Event()
    timer = threading.Timer(WALL_SECONDS, _kill, (child, overdue))
    timer.start()
    try:
        with suppress(BrokenPipeError):
            child.stdin.write(request)
            child.stdin.close()
        output = child.stdout.read(MAX_ANSWER)
    finally:
        with suppress(BrokenPipeError):
            child.stdin.close()
        child.stdout.close()  # A broken pipe ends a child that writes more than is read.
        status = child.wait()
        timer.cancel()
    if overdue.is_set():
        raise Unavailable(
            "sandbox-busy",
            f"A chat template got less than {CPU_SECONDS} s of processor time in "
            f"{WALL_SECONDS:g} s: the machine is overloaded.",
        )
    complete = output.decode("utf-8", "replace").rpartition("\n")[0]
    lines = []
    for line in complete.splitlines():
        with suppress(ValueError):
            lines.append(json.loads(line))
    return lines, status


def _kill(child: subprocess.Popen[bytes], overdue: threading.Event) -> None:
    """Kill the child and everything it may have started."""
    overdue.set()
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
