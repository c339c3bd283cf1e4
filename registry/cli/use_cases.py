"""Use cases: usecase add, ls."""

from __future__ import annotations

from pathlib import Path

import click

from registry.cli.added import FILE
from registry.cli.output import emit, fields, json_option, table
from registry.cli.session import connect, document


@click.group()
def usecase() -> None:
    """Use cases: why something serves.

    \b
    Example:
      countersign usecase ls
    """


@usecase.command("add")
@click.argument("name", metavar="team/name")
@click.option("--purpose", help="What it is for, in a sentence.")
@click.option("--owner", help="Who answers for it.")
@click.option("--risk-tier", help="Its risk tier; policies select on it.")
@click.option("--suite", metavar="REF", help="The eval suite its gates read.")
@click.option(
    "--meta", type=FILE, help="The same fields as YAML; every other field goes into its details."
)
@json_option
def add(
    name: str,
    purpose: str | None,
    owner: str | None,
    risk_tier: str | None,
    suite: str | None,
    meta: Path | None,
    as_json: bool,
) -> None:
    """State a use case: its purpose, owner, risk tier and the suite that measures it.

    \b
    Example:
      countersign usecase add acme/claims --purpose "Sort claims" --owner ada --risk-tier limited
    """
    read = dict(document(meta))
    given = {"purpose": purpose, "owner": owner, "risk_tier": risk_tier, "suite": suite}
    known = {
        field: value if value is not None else read.pop(field, None)
        for field, value in given.items()
    }
    details = {
        **read.pop("details", {}),
        **{field: value for field, value in read.items() if field not in given},
    }
    with connect() as registry:
        made = registry.add_use_case(
            name, **{k: v for k, v in known.items() if v is not None}, details=details
        )
    if as_json:
        emit(made)
    else:
        fields(
            made.name,
            [
                ("Purpose", made.purpose),
                ("Owner", made.owner),
                ("Risk tier", made.risk_tier),
                ("Suite", made.suite),
            ],
        )


@usecase.command("ls")
@json_option
def list_use_cases(as_json: bool) -> None:
    """List use cases.

    \b
    Example:
      countersign usecase ls
    """
    with connect() as registry:
        cases = registry.use_cases()
    if as_json:
        emit(cases)
    else:
        rows = [(one.name, one.purpose, one.owner, one.risk_tier, one.suite) for one in cases]
        table(["Name", "Purpose", "Owner", "Risk tier", "Suite"], rows)
