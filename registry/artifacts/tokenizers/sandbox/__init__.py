"""Where chat templates are looked at and run: in a process of its own, with little time, little
memory and no files.

The service itself never parses a template. What does not end is killed with all it started; who
asked hears which template it was and why.
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

from registry.artifacts.tokenizers.chat_templates import GOLDEN, MOMENT, Offence, Templates
from registry.errors import Unavailable
from registry.views.chat_templates import GoldenView, RenderedView, TemplateDiffView

CHILD = Path(__file__).with_name("child.py")
# Isolated from the user's own packages, the child must be told where jinja2 lies if it lies there.
PACKAGES = sorted(
    {
        str(Path(found.origin).parents[1])
        for name in ("jinja2", "markupsafe")
        if (found := find_spec(name)) is not None and found.origin is not None
    }
)
CPU_SECONDS = 1
MEMORY = 256 << 20
"""Bytes of address space, the interpreter's own included."""
WALL_SECONDS = 15.0
"""Much longer than the processor time, which is what bounds a template: past this the machine is at
fault, not it.
"""
PATIENCE = 10.0
"""Seconds to wait for a place."""
MAX_ANSWER = 8 << 20
_PLACES = threading.BoundedSemaphore(2)
"""So many children at once: looking at templates never takes the whole machine."""


def look(texts: Mapping[str, str], tokens: Mapping[str, str] | None) -> list[Offence]:
    """What is wrong with templates by their syntax, and, when given `tokens`, by how they run
    (`rules.Look`).
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
    found = [Offence(**one) for line in lines for one in line.get("offences", ())]
    found += [
        Offence(line["template"], 0, "template-fails", line["failed"], False)
        for line in lines
        if "failed" in line
    ]
    if stopped is not None:
        found.append(Offence(stopped[0], 0, "template-runs-away", stopped[1], False))
    return found


def compare(
    own: Templates, base: Templates | None, tokens: Mapping[str, str]
) -> tuple[list[TemplateDiffView], list[GoldenView]]:
    """Templates line by line against the base's, and the golden conversations under both."""
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
    made = {line["key"]: line for line in lines if "key" in line}
    told = {line["name"]: line["diff"] for line in lines if "diff" in line}

    def side(name: str, number: int) -> RenderedView | None:
        if sides[name] is None:
            return None
        line = made.get(f"{name}:{number}")
        if line is None:
            return RenderedView(None, None, stopped[1] if stopped else "it was not rendered")
        return RenderedView(line.get("text"), line.get("raised"), line.get("failed"))

    goldens = [
        GoldenView(
            one.title,
            [dict(message) for message in one.messages],
            side("own", number),
            side("base", number),
        )
        for number, one in enumerate(GOLDEN)
    ]
    unread = [f"It could not be compared: {stopped[1]}."] if stopped else []
    return [
        TemplateDiffView(
            one["name"],
            one["name"] in own.texts,
            one["name"] in before,
            told.get(one["name"], unread),
        )
        for one in diffs
    ], goldens


def _render(
    key: str, template: str, text: str, number: int, tokens: Mapping[str, str]
) -> dict[str, Any]:
    one = GOLDEN[number]
    given = {
        **tokens,
        "messages": one.messages,
        "tools": one.tools,
        "documents": None,
        "add_generation_prompt": one.add_generation_prompt,
    }
    return {"key": key, "template": template, "text": text, "given": given}


def render(text: str, given: Mapping[str, Any], moment: str = MOMENT) -> RenderedView:
    """One template on what it is given, as transformers would render it at that moment."""
    lines, stopped = _ask(
        render=[{"key": "", "template": "default", "text": text, "given": given}], moment=moment
    )
    line = next(
        (one for one in lines if "key" in one),
        {"failed": stopped[1] if stopped else "it was not rendered"},
    )
    return RenderedView(line.get("text"), line.get("raised"), line.get("failed"))


def _ask(
    look: Mapping[str, str] | None = None,
    diff: Sequence[Mapping[str, Any]] = (),
    render: Sequence[Mapping[str, Any]] = (),
    moment: str = MOMENT,
) -> tuple[list[dict[str, Any]], tuple[str, str] | None]:
    """The child's answers, and (template, why) of the one at which it had to be stopped.

    Raises Unavailable when no child can be started.
    """
    asked = json.dumps(
        {"look": dict(look or {}), "diff": list(diff), "render": list(render), "moment": moment}
    )
    if not _PLACES.acquire(timeout=PATIENCE):
        raise Unavailable("sandbox-busy", "Too many chat templates are being looked at.")
    try:
        lines, ended = _run(asked.encode())
    finally:
        _PLACES.release()
    begun = [line["begins"] for line in lines if "begins" in line]
    if ended == 0:
        return lines, None
    if not begun:
        raise Unavailable(
            "sandbox-away",
            "The process that looks at chat templates did not start.",
            "Try again; if it stays, look at the server's log.",
        )
    return lines, (begun[-1], _why(ended))


def _why(ended: int) -> str:
    if ended in (-signal.SIGXCPU, -signal.SIGKILL):
        return f"it did not end within {CPU_SECONDS} s of processor time"
    return f"it took the process that ran it down (it may have {MEMORY >> 20} MiB)"


def _run(asked: bytes) -> tuple[list[dict[str, Any]], int]:
    """Start a child, feed it, read what it says until it ends or must be ended; its lines and its
    exit status.
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
            f"No process to look at chat templates could be started: {error.strerror}.",
            "Try again; if it stays, look at the server's limits.",
        ) from error
    assert child.stdin is not None and child.stdout is not None
    overdue = threading.Event()
    timer = threading.Timer(WALL_SECONDS, _kill, (child, overdue))
    timer.start()
    try:
        with suppress(BrokenPipeError):
            child.stdin.write(asked)
            child.stdin.close()
        said = child.stdout.read(MAX_ANSWER)
    finally:
        with suppress(BrokenPipeError):
            child.stdin.close()
        child.stdout.close()  # one that says more than anybody reads is ended by its broken pipe
        ended = child.wait()
        timer.cancel()
    if overdue.is_set():
        raise Unavailable(
            "sandbox-busy",
            f"A chat template got less than {CPU_SECONDS} s of processor time in "
            f"{WALL_SECONDS:g} s: the machine is overloaded.",
        )
    whole = said.decode("utf-8", "replace").rpartition("\n")[0]
    lines = []
    for line in whole.splitlines():
        with suppress(ValueError):
            lines.append(json.loads(line))
    return lines, ended


def _kill(child: subprocess.Popen[bytes], overdue: threading.Event) -> None:
    """The child and whatever it may have started."""
    overdue.set()
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
