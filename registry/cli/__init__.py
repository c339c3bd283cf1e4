"""The command line: one verb a line here, each in the file of its noun, loaded only when it is
called.

Nothing here may import more than click and the standard library: `countersign --help` must answer
at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

import click

from registry import version

# verb -> (where the command is, its help in one line); a test compares the lines with the commands
# themselves.
VERBS: dict[str, tuple[str, str]] = {
    "up": ("up:up", "Start PostgreSQL, migrate, and serve the API, the console and the clock."),
    "login": ("accounts:login", "Sign in to a registry and remember it."),
    "key": ("accounts:key", "Make, enrol and list signing keys."),
    "base": ("versions:base", "Base models: add, list, show, verify."),
    "dataset": ("datasets:dataset", "Data sets: add, list, show."),
    "adapter": ("versions:adapter", "Adapters: add, list, show, verify."),
    "checkpoint": ("versions:checkpoint", "Full weights: add, list, show, verify."),
    "profile": ("profiles:profile", "Serving profiles: what a version may be served as."),
    "usecase": ("use_cases:usecase", "Use cases: why something serves."),
    "train": ("training_runs:train", "Queue a training run."),
    "run": ("training_runs:run", "Training runs: list, show, cancel."),
    "eval": ("evals:evaluation", "Eval suites and eval runs."),
    "gate": ("reviews:gate", "Check evidence against a policy."),
    "submit": ("reviews:submit", "Submit a version for review."),
    "review": ("reviews:review", "Reviews: list, show, decide with a signature, withdraw."),
    "canary": ("rollouts:canary", "Give an approved version a share of the traffic."),
    "promote": ("rollouts:promote", "Make the canary of a channel its stable version."),
    "rollback": ("rollouts:rollback", "Take the last step of a channel back, at once."),
    "recall": (
        "rollouts:recall",
        "Order a thing and all that derives from it out of service, for good.",
    ),
    "status": ("rollouts:status", "Show what serves where."),
    "history": ("rollouts:history", "Show every generation of a channel."),
    "search": (
        "search:search",
        "Find versions by name, tag, base, data set, licence, metric, state or digest.",
    ),
    "lineage": ("lineage:lineage", "Show where a thing comes from and what derives from it."),
    "verify": ("versions:verify", "Read every byte of a thing again and compare all digests."),
    "audit": ("audit:audit", "The audit log: read, check, ask for a moment, export."),
    "policy": ("policies:policy", "Policies: list, show, check, publish."),
    "retention": (
        "retention:retention",
        "How long things are kept: classes, and what keeps one thing.",
    ),
    "hold": ("retention:hold", "Legal holds: place, list, lift."),
    "quota": ("retention:quota", "Quotas: what teams may use, and use."),
    "gc": (
        "retention:gc",
        "Collect bytes that no version needs any more; the clock does it every night.",
    ),
    "token": ("accounts:token", "Tokens: create, list, revoke."),
    "people": ("accounts:people", "People and services."),
    "gateway": ("processes:gateway", "Run a gateway: the data plane beside an engine."),
    "migrate": ("processes:migrate", "Bring the database to this version's schema."),
    "doctor": (
        "processes:doctor",
        "Check a registry at rest: rebuild the tables from the log and compare.",
    ),
}


class Verbs(click.Group):
    """A group that knows its verbs by heart and imports one only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module, _, attribute = VERBS[cmd_name][0].partition(":")
        command = getattr(import_module(f"registry.cli.{module}"), attribute)
        return command if isinstance(command, click.Command) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(verb, line) for verb, (_, line) in VERBS.items()])


def _version(ctx: click.Context, _: click.Parameter, asked: bool) -> None:
    if asked:
        click.echo(f"countersign {version()}")
        ctx.exit()


@click.group(
    cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Show the version.",
)
@click.pass_context
def root(ctx: click.Context) -> None:
    """Countersign keeps adapters, proves where they come from, and ships none on one signature.

    \b
    Example:
      countersign up --home ./registry

    COUNTERSIGN_URL and COUNTERSIGN_TOKEN name a registry; else `countersign login` does.

    Exit codes: 0 ok, 1 fault, 2 usage, 3 refused by a rule or gate, 4 not signed in or not allowed,
    5 not found, 6 conflict, 7 unreachable, 8 does not verify.
    """
    if os.environ.get("NO_COLOR"):
        ctx.color = False


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit with its code; every failure is told in three lines, or as a problem
    object.
    """
    from registry.cli.errors import INTERRUPTED, exit_code, report
    from registry.errors import Fault, Invalid, RegistryError

    arguments = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in arguments
    for stream in (sys.stdout, sys.stderr):
        _never_fail_on_a_glyph(stream)
    try:
        code = root.main(arguments, prog_name="countersign", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.Abort:
        sys.exit(INTERRUPTED)
    except click.ClickException as error:
        if not as_json:
            error.show()
            sys.exit(error.exit_code)
        failure: RegistryError = Invalid("usage", error.format_message())
    except RegistryError as error:
        failure = error
    except BrokenPipeError:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # or the interpreter complains while it ends
        sys.exit(1)
    except OSError as error:
        failure = Invalid(
            "file",
            f"{error.filename or 'A file'}: {error.strerror}.",
        )
    except Exception as error:
        if os.environ.get("COUNTERSIGN_TRACEBACK"):
            raise
        failure = Fault(
            "bug",
            f"{type(error).__name__}: {error}",
        )
    report(failure, as_json)
    sys.exit(exit_code(failure))


def _never_fail_on_a_glyph(stream: Any) -> None:
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="replace")
