"""Use cases: usecase add, update, show, ls."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from registry.cli.output import emit, fields, json_option, table
from registry.cli.parameters import FILE, REASON
from registry.cli.session import connect, document

if TYPE_CHECKING:
    from registry.views.use_cases import UseCaseView


@click.group()
def usecase() -> None:
    """Define, change and list use cases: why something serves.

    \b
    Example:
      countersign usecase ls
    """


@usecase.command("add")
@click.argument("name", metavar="team/name")
@click.option("--purpose", help="What it is for, in one sentence.")
@click.option("--owner", help="Who is responsible for it.")
@click.option("--risk-tier", help="Its risk tier: minimal, limited or high. Reviewers see it.")
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
    _show(added, as_json)


@usecase.command("update")
@click.argument("name", metavar="team/name")
@REASON
@click.option("--purpose", help="What it is for, in one sentence.")
@click.option("--owner", help="Who is responsible for it.")
@click.option("--risk-tier", help="Its risk tier: minimal, limited or high. Reviewers see it.")
@click.option("--suite", metavar="REF", help="The eval suite version that its gates read.")
@click.option("--meta", type=FILE, help="YAML that replaces its details.")
@json_option
def update(name: str, reason: str, meta: Path | None, as_json: bool, **options: str | None) -> None:
    """Replace what a use case says by its next version.

    Its open reviews and its approvals are void: they rest on what it said before. What serves
    keeps serving.

    \b
    Example:
      countersign usecase update acme/claims --suite acme/gold@v2 --reason "Twice as many items"
    """
    changes: dict[str, Any] = {key: value for key, value in options.items() if value is not None}
    if meta is not None:
        changes["details"] = dict(document(meta))
    with connect() as registry:
        changed = registry.update_use_case(name, reason, **changes)
    _show(changed, as_json)


@usecase.command("show")
@click.argument("name", metavar="team/name")
@json_option
def show(name: str, as_json: bool) -> None:
    """Show every version of a use case, newest first.

    Each says who changed it, and why.

    \b
    Example:
      countersign usecase show acme/claims
    """
    with connect() as registry:
        versions = registry.use_case_versions(name)
    if as_json:
        emit(versions)
        return
    for version in versions:
        _show(version, as_json)


def _show(case: UseCaseView, as_json: bool) -> None:
    if as_json:
        emit(case)
        return
    fields(
        f"{case.name}, version {case.version}",
        [
            ("Purpose", case.purpose),
            ("Owner", case.owner),
            ("Risk tier", case.risk_tier),
            ("Suite", case.suite),
            *((f"details {key}", value) for key, value in case.details.items()),
            ("Changed by", case.changed_by),
            ("Because", case.reason),
            ("Since", case.created_at),
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
