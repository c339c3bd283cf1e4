"""The types of arguments and the options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from registry.rules.refs import ENVIRONMENTS

Kind = Literal["base", "adapter", "checkpoint"]

ENVIRONMENT = click.Choice(ENVIRONMENTS)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
HOME = click.Path(path_type=Path, file_okay=False)

IN_ENVIRONMENT = click.option(
    "--env", "environment", required=True, type=ENVIRONMENT, help="The environment."
)
ONLY_ENVIRONMENT = click.option(
    "--env", "environment", type=ENVIRONMENT, help="Only this environment."
)
FOR_USE_CASE = click.option(
    "--usecase", required=True, metavar="team/name", help="The use case that it will serve."
)
ON_CHANNEL = click.option(
    "--channel", help="The channel, if not the default one of the environment."
)
REASON = click.option(
    "--reason",
    required=True,
    help="Why, in one sentence. The log contains only a commitment to it.",
)
FOLLOW = click.option(
    "--follow",
    "following",
    is_flag=True,
    help="Wait until it ends. Exit with 1 unless it succeeds.",
)
