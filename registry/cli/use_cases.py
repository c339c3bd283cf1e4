"""Use cases: usecase add, ls."""

from __future__ import annotations

from pathlib import Path

import click

from registry.cli.output import emit, fields, json_option, table
from registry.cli.parameters import FILE
from registry.cli.session import connect, document


@click.group()
def usecase() -> None:
    """Define and list use cases: why something serves.

    \b
    Example:
      countersign usecase ls
    """


@usecase.command("add")
@click.argument("name", metavar="team/name")
@click.option("--purpose", help="What it is for, in one sentence.")
@click.option("--owner", help="Who is responsible for it.")
@click.option("--risk-tier", help="Its risk tier, which policies may select by.")
@click.option("--suite", metavar="REF", help="The eval suite that its gates read.")
@click.option(
    "--meta", type=FILE, help="YAML with the same fields; all other fields become its details."
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
    """Define a use case: purpose, owner, risk tier and eval suite.

    \b
    Example:
      countersign usecase add acme/claims --purpose "Sort claims" --owner ada --risk-tier limited
    """
    from_file = dict(document(meta))
    options = {"purpose": purpose, "owner": owner, "risk_tier": risk_tier, "suite": suite}
    known = {
        field: value if value is not None else from_file.pop(field, None)
        for field, value in options.items()
    }
    details = {
        **from_file.pop("details", {}),
        **{field: value for field, value in from_file.items() if field not in options},
    }
    with connect() as registry:
        added = registry.add_use_case(
            name,
            **{field: value for field, value in known.items() if value is not None},
            details=details,
        )
    if as_json:
        emit(added)
        return
    fields(
        added.name,
        [
            ("Purpose", added.purpose),
            ("Owner", added.owner),
            ("Risk tier", added.risk_tier),
            ("Suite", added.suite),
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
        rows = [(case.name, case.purpose, case.owner, case.risk_tier, case.suite) for case in cases]
        table(["Name", "Purpose", "Owner", "Risk tier", "Suite"], rows)
