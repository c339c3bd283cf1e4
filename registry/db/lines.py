"""Open lines: the one function for every command that may name a new line."""

from __future__ import annotations

from contextlib import suppress
from uuid import uuid4

from sqlalchemy import text

from registry.db.sight import Sighted
from registry.db.store import Tx
from registry.db.versions import Line, line
from registry.errors import Conflict, NotFound
from registry.rules.refs import Ref, check_new_line, line_domain


def open_line(tx: Tx, ref: Ref, kind: str, domain: object) -> Line:
    """The line of that name and kind, locked; a new line is created with this business domain.

    The first request that names a domain sets it; later ones change nothing. Raises Invalid
    `bad-line-name` or `bad-team` for a new name that no client of the Hub can pull, or that reads
    as a version of another line; Conflict `line-kind` when the line is of another kind.
    """
    present = _present(tx, ref)
    if present is None:
        assert ref.team is not None and ref.name is not None
        return tx.add(
            Line(
                id=uuid4(),
                kind=kind,
                team=ref.team,
                name=check_new_line(ref),
                domain=line_domain(None, domain),
                created_by=tx.actor.account,
                created_at=tx.now,
            )
        )
    _must_be(present, kind, ref)
    present.domain = line_domain(present.domain, domain)
    return present


def expected_domain(session: Sighted, ref: Ref, kind: str, domain: str | None) -> str | None:
    """The domain that `open_line` would leave the line with; raises what it would raise."""
    try:
        present = line(session, ref)
    except NotFound:
        check_new_line(ref)
        return line_domain(None, domain)
    _must_be(present, kind, ref)
    return line_domain(present.domain, domain)


def _must_be(present: Line, kind: str, ref: Ref) -> None:
    if present.kind != kind:
        raise Conflict("line-kind", f"{ref.line} is of kind {present.kind}, not {kind}.")


def _present(tx: Tx, ref: Ref) -> Line | None:
    """The line, locked. If there is none, its name is reserved until this transaction ends."""
    with suppress(NotFound):
        return line(tx.session, ref, lock=True)
    tx.session.execute(
        text("select pg_advisory_xact_lock(hashtextextended(:line, 8))"), {"line": ref.line}
    )
    with suppress(NotFound):
        return line(tx.session, ref, lock=True)
    return None
