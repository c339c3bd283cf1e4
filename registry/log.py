"""The service's own log on stderr: JSON lines, or short lines on a terminal.

Context variables carry the request, the actor and the action, so that no function passes a logger
around. Every command ends in exactly one canonical line (`log_command`), by which an operator finds
a request id. Code never logs tokens and passwords; masking every line is the safety net.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from registry.rules.tokens import TOKEN

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
actor: ContextVar[str | None] = ContextVar("actor", default=None)
action: ContextVar[str | None] = ContextVar("action", default=None)

PASSWORD = re.compile(r"(://[^:/@\s]*):[^@/\s]+@")
LOGGER = logging.getLogger("registry")
COMMANDS = logging.getLogger("registry.command")
QUIET = ("httpx", "httpcore", "alembic.runtime.plugins")
"""Loggers whose messages below a warning are of no use to an operator."""


def configure(level: str = "info") -> None:
    """Send everything logged to stderr.

    Call it first in a process, and start uvicorn with log_config=None so that it keeps this.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Line() if sys.stderr.isatty() else JsonLine())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)
    for name in QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))


@dataclass(frozen=True, slots=True)
class Command:
    """A finished command: `outcome` is `done` or the kind of its refusal, `ms` its milliseconds."""

    action: str
    actor: str | None
    subject: str | None
    outcome: str
    ms: float
    request_id: str | None


def log_command(command: Command) -> None:
    """Write the one canonical line of a command: information when done, a warning when refused."""
    fields = asdict(command) | {"ms": round(command.ms, 1)}
    level = logging.INFO if command.outcome == "done" else logging.WARNING
    COMMANDS.log(level, "%s %s", command.action, command.outcome, extra={"fields": fields})


def mask(text: str) -> str:
    """The text without secrets: tokens keep their public id, URLs their user."""
    return PASSWORD.sub(r"\1:***@", TOKEN.sub(r"cs_\1_***", text))


class JsonLine(logging.Formatter):
    """One JSON object a line: at, level, logger, message, then the fields of the context."""

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
    """One line for people: time, level, message, and the fields that are not null."""

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
    """The context of the line; a command's own fields take precedence."""
    known = {"request_id": request_id.get(), "actor": actor.get(), "action": action.get()}
    context = {name: value for name, value in known.items() if value is not None}
    return context | getattr(record, "fields", {})
