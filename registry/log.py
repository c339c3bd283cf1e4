"""What the service says about itself: JSON lines on stderr, or one short line each on a terminal.

Who and what a line is about travels in context variables, so that no function passes a logger
around. Every command ends in exactly one canonical line (`command_line`), by which an operator
finds a request id. Tokens and passwords are masked on the way out: not logging them is the rule,
masking is the net below it.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from registry.rules.tokens import TOKEN

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
actor: ContextVar[str | None] = ContextVar("actor", default=None)
action: ContextVar[str | None] = ContextVar("action", default=None)

PASSWORD = re.compile(r"(://[^:/@\s]*):[^@/\s]+@")
LOGGER = logging.getLogger("registry")
COMMANDS = logging.getLogger("registry.command")


def configure(level: str = "info") -> None:
    """Send everything logged to stderr, once; call it first in a process, and start uvicorn with
    log_config=None.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Line() if sys.stderr.isatty() else JsonLine())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)
    for chatty in (
        "httpx",
        "httpcore",
        "alembic.runtime.plugins",
    ):  # they say nothing an operator needs
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.getLogger().level))


def command_line(
    action: str,
    actor: str | None,
    subject: str | None,
    outcome: str,
    ms: float,
    request_id: str | None,
) -> None:
    """Write the one canonical line of a command; outcome is `done`, or the kind of its refusal."""
    fields = {
        "action": action,
        "actor": actor,
        "subject": subject,
        "outcome": outcome,
        "ms": round(ms, 1),
        "request_id": request_id,
    }
    level = logging.INFO if outcome == "done" else logging.WARNING
    COMMANDS.log(level, "%s %s", action, outcome, extra={"fields": fields})


def mask(text: str) -> str:
    """Take secrets out of a text: tokens keep their public id, URLs their user."""
    return PASSWORD.sub(r"\1:***@", TOKEN.sub(r"cs_\1_***", text))


class JsonLine(logging.Formatter):
    """One JSON object a line: at, level, logger, message, then what is known of request, actor,
    action and command.
    """

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": _at(record).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return mask(json.dumps(line, ensure_ascii=False, default=str))


class Line(logging.Formatter):
    """The same for a person: time, level, message, and the fields that hold something."""

    def format(self, record: logging.LogRecord) -> str:
        fields = " ".join(
            f"{name}={value}" for name, value in _fields(record).items() if value is not None
        )
        head = (
            f"{_at(record).astimezone():%H:%M:%S} {record.levelname.lower():<7} "
            f"{record.getMessage()}"
        )
        trace = f"\n{self.formatException(record.exc_info)}" if record.exc_info else ""
        return mask(f"{head}  {fields}".rstrip() + trace)


def _at(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """The context of the line; a command's own fields go before it."""
    known = {"request_id": request_id.get(), "actor": actor.get(), "action": action.get()}
    context = {name: value for name, value in known.items() if value is not None}
    return context | getattr(record, "fields", {})
