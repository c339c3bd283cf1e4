"""The command line. Each verb is in the file of its noun, which is imported when the verb runs.

This file may import only click and the standard library, so that `countersign --help` answers at
once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

import click

from registry import version

VERBS: dict[str, tuple[str, str]] = {
    "up": ("up:up", "Run a registry on this machine: database, API, console and clock."),
    "login": ("accounts:login", "Sign in to a registry and store the token."),
    "key": ("accounts:key", "Create, enrol and list signing keys."),
    "base": ("versions:base", "Register, list, show and retire base models."),
    "dataset": ("datasets:dataset", "Register, list, show and retire data sets."),
    "adapter": ("versions:adapter", "Register, list, show and retire adapters."),
    "checkpoint": ("versions:checkpoint", "Register, list, show and retire full weights."),
    "profile": (
        "profiles:profile",
        "Define and compare serving profiles: what a version may be served as.",
    ),
    "usecase": ("use_cases:usecase", "Define, change and list use cases: why something serves."),
    "train": ("training_runs:train", "Queue a training run."),
    "run": ("training_runs:run", "List, show and cancel training runs."),
    "eval": ("evals:evaluation", "Freeze eval suites and run them on versions."),
    "gate": ("gates:gate", "Check a version's evidence against a policy."),
    "submit": ("reviews:submit", "Submit a version for review."),
    "review": ("reviews:review", "List, show, decide and withdraw reviews."),
    "canary": ("rollouts:canary", "Start and show canaries."),
    "promote": ("rollouts:promote", "Make the canary of a channel its stable version."),
    "rollback": ("rollouts:rollback", "Undo the last step of a channel at once."),
    "recall": (
        "rollouts:recall",
        "Take a thing and all that derives from it out of service for good.",
    ),
    "status": ("rollouts:status", "Show what serves where, and what is possible now."),
    "history": ("rollouts:history", "Show every generation of a channel."),
    "search": (
        "search:search",
        "Find versions by name, tag, base, data set, licence, metric, state or digest.",
    ),
    "lineage": ("lineage:lineage", "Show where a thing comes from and what derives from it."),
    "verify": ("versions:verify", "Read every byte again and compare all digests."),
    "audit": ("audit:audit", "Read, check, prove and export the audit log."),
    "policy": ("policies:policy", "List, show, check and publish policies."),
    "retention": ("retention:retention", "Manage how long versions are kept."),
    "hold": ("holds:hold", "Place, list and lift legal holds."),
    "quota": ("quotas:quota", "Show and set the quotas of teams."),
    "gc": ("retention:gc", "Remove bytes that no version needs any more."),
    "token": ("accounts:token", "Create, list and revoke tokens."),
    "people": ("accounts:people", "List people and services."),
    "gateway": ("processes:gateway", "Run a gateway between applications and an engine."),
    "migrate": ("processes:migrate", "Migrate the database to the schema of this release."),
    "doctor": (
        "processes:doctor",
        "Check a stopped registry: rebuild its tables from the log and compare.",
    ),
}
"""Verb -> (the place of its command, its help line); a test compares the lines with the help."""


class Verbs(click.Group):
    """A group that lists its verbs without importing them, and imports one only to run it."""

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


def _version(ctx: click.Context, _: click.Parameter, is_set: bool) -> None:
    if is_set:
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
    help="Show the version and exit.",
)
@click.pass_context
def root(ctx: click.Context) -> None:
    """Countersign keeps adapters, proves where they come from, and ships none on one signature.

    \b
    Example:
      countersign up --home ./registry

    Commands use the registry of COUNTERSIGN_URL and COUNTERSIGN_TOKEN, or else that of `countersign
    login`.

    Exit codes: 0 ok, 1 fault, 2 usage, 3 refused by a rule or gate, 4 not signed in or not allowed,
    5 not found, 6 conflict, 7 unreachable, 8 does not verify.
    """
    if os.environ.get("NO_COLOR"):
        ctx.color = False


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit with its code.

    A failure is reported in three lines or, with --json, as a problem object.
    """
    from registry.cli.errors import INTERRUPTED, exit_code, report
    from registry.errors import Fault, Invalid, RegistryError

    arguments = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in arguments
    for stream in (sys.stdout, sys.stderr):
        _replace_unencodable(stream)
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
        # Otherwise the interpreter reports the error again when it flushes stdout at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        failure = Invalid("file", f"{error.filename or 'A file'}: {error.strerror}.")
    except Exception as error:
        if os.environ.get("COUNTERSIGN_TRACEBACK"):
            raise
        failure = Fault("bug", f"{type(error).__name__}: {error}")
    report(failure, as_json)
    sys.exit(exit_code(failure))


def _replace_unencodable(stream: Any) -> None:
    """Print `?` for a glyph that the terminal's encoding lacks, instead of failing."""
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="replace")
