"""The schema as SQL that makes it: a section a noun, and in it a block a table."""

from __future__ import annotations

import re
from collections import defaultdict

from sqlalchemy import Connection, text

from tests.schema.catalogue import Catalogue, Function, read
from tests.schema.spelling import wrapped

CLAUSES = r"deferrable|for each|when \(|execute function"
NOUNS: dict[str, str] = {
    "guards": "transition",
    "log": "event event_row event_pending leaf tree_head personal",
    "people": "account role_grant token token_use web_session signing_key",
    "blobs": "blob blob_sender",
    "nodes": "node line lineage_edge",
    "datasets": "dataset dataset_version",
    "training": "training_run lease",
    "versions": "version version_file version_tag",
    "evals": "eval_suite eval_suite_version eval_run eval_metric",
    "decisions": "use_case use_case_version policy_version review vote",
    "delivery": "channel rollout route_generation recall",
    "deprecations": "deprecation",
    "profiles": "serving_profile",
    "retention": "retention_class retention_setting legal_hold tombstone quota",
    "search": "version_search version_metric search_era search_row",
    "migrations": "alembic_version",
}
"""Each noun's tables and views, in reading order; a file of migrations/initial has its name."""

HEADING = """\
-- The schema as the migrations make it. `make schema` writes this file; change it by a migration.
-- A function that triggers of several nouns call stands under guards, any other above the first
-- trigger that calls it. A comment at the top of a function says why it is there.

create extension btree_gist;
set check_function_bodies = off;
"""
RIGHTS = """
select coalesce(r.rolname, 'public'), lower(a.privilege_type)
from pg_namespace n cross join lateral aclexplode(n.nspacl) a
left join pg_roles r on r.oid = a.grantee
where n.nspname = 'public' and a.grantee <> n.nspowner order by 1, 2
"""
JOBS = """
select c.relname, string_agg(lower(a.privilege_type), ', ' order by a.privilege_type), r.rolname
from pg_class c cross join lateral aclexplode(c.relacl) a join pg_roles r on r.oid = a.grantee
where c.relnamespace = 'procrastinate'::regnamespace and a.grantee <> c.relowner
group by c.relname, r.rolname order by 1, 3
"""


def nouns_of(catalogue: Catalogue) -> dict[str, list[str]]:
    """Noun -> its tables and views; ValueError when the catalogue has some that no noun lists."""
    listed = {noun: tables.split() for noun, tables in NOUNS.items()}
    known = {table for tables in listed.values() for table in tables}
    if known != set(catalogue.kinds):
        raise ValueError(
            f"NOUNS of {__name__} and the schema differ by {sorted(known ^ set(catalogue.kinds))}: "
            "list every table and view under its noun."
        )
    return listed


def called(catalogue: Catalogue, source: str) -> list[str]:
    """The functions that a piece of SQL calls, each after those that it calls itself."""
    order: list[str] = []

    def visit(body: str, seen: frozenset[str]) -> None:
        for name in re.findall(r"\b([a-z_]+)\(", body):
            if name in catalogue.functions and name not in seen and name not in order:
                visit(catalogue.functions[name].body, seen | {name})
                order.append(name)

    visit(source, frozenset())
    return order


def calls(catalogue: Catalogue, table: str) -> list[str]:
    """The functions that a table's triggers or a view's query call."""
    triggers = [f"{function}()" for function, _ in catalogue.triggers[table]]
    return called(catalogue, "\n".join([catalogue.views.get(table, ""), *triggers]))


def homes(catalogue: Catalogue, listed: dict[str, list[str]]) -> dict[str, list[str]]:
    """Where each function stands: under `guards`, above a table, or at the end of a noun when
    nothing in the database calls it.
    """
    callers: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for noun, tables in listed.items():
        for table in tables:
            for name in calls(catalogue, table):
                callers[name].append((noun, table))
    places: dict[str, list[str]] = defaultdict(list)
    shared = [name for name, by in callers.items() if len({noun for noun, _ in by}) > 1]
    places["guards"] = called(catalogue, "\n".join(f"{name}()" for name in sorted(shared)))
    for name, by in callers.items():
        if name not in places["guards"]:
            places[by[0][1]].append(name)
    for name in sorted(catalogue.functions.keys() - callers.keys()):
        places[_subject(catalogue.functions[name], listed)].append(name)
    return places


def _subject(function: Function, listed: dict[str, list[str]]) -> str:
    """The last noun whose tables a function names."""
    nouns = [
        noun
        for noun, tables in listed.items()
        if re.search(rf"\b({'|'.join(tables)})\b", function.body)
    ]
    return nouns[-1] if nouns else "guards"


def schema(connection: Connection) -> str:
    """The schema of a migrated database as SQL, one section a noun."""
    catalogue = read(connection)
    listed = nouns_of(catalogue)
    places = homes(catalogue, listed)
    sections = [HEADING, _rights(connection)]
    for noun, tables in listed.items():
        blocks = [_block(catalogue, table, places[table]) for table in tables]
        blocks += [catalogue.functions[name].definition for name in places[noun]]
        if noun == "guards":
            blocks.insert(1, _steps(connection))
        sections.append(f"\n\n-- {noun}\n\n" + "\n".join(blocks))
    return "".join([*sections, "\n\n", _jobs(connection)])


def _block(catalogue: Catalogue, table: str, functions: list[str]) -> str:
    """One table or view with its indexes, functions, triggers and grants."""
    made = [catalogue.functions[name].definition for name in functions]
    if catalogue.kinds[table] == "v":
        query = "\n".join(wrapped(line) for line in catalogue.views[table].splitlines())
        made.append(f"create view {table} as\n{query}\n")
    else:
        lines = [*catalogue.columns[table], *catalogue.constraints[table]]
        inside = "\n".join(wrapped(f"    {line},") for line in lines)
        made.insert(0, f"create table {table} (\n{inside[:-1]}\n);\n")
        indexes = [wrapped(f"{line};") + "\n" for line in catalogue.indexes[table]]
        made[0] += "".join(indexes)
    triggers = [wrapped(f"{line};", CLAUSES) + "\n" for _, line in catalogue.triggers[table]]
    grants = [wrapped(f"{line};") + "\n" for line in catalogue.grants[table]]
    return "\n".join(part for part in [*made, "".join(triggers + grants)] if part)


def _rights(connection: Connection) -> str:
    """Who may use the schema itself."""
    rights = [
        f"grant {what} on schema public to {who};\n"
        for who, what in connection.execute(text(RIGHTS))
    ]
    return "revoke all on schema public from public;\n" + "".join(rights)


def _steps(connection: Connection) -> str:
    """The steps that the states of each table may take."""
    steps: dict[str, list[str]] = defaultdict(list)
    for table, old, new in connection.execute(
        text(
            "select table_name, old_state, new_state from transition "
            'order by table_name collate "C", old_state collate "C", new_state collate "C"'
        )
    ):
        steps[table].append(f"('{table}', '{old}', '{new}')")
    rows = ",\n".join(wrapped("    " + ", ".join(rows), r"\(") for rows in steps.values())
    return f"insert into transition values\n{rows};\n"


def _jobs(connection: Connection) -> str:
    """What the roles may do in procrastinate's schema, whose tables its own SQL makes."""
    lines = [
        f"-- procrastinate.{name}: {what} to {role}\n"
        for name, what, role in connection.execute(text(JOBS))
    ]
    return "-- background jobs: the schema procrastinate, made by its own SQL\n\n" + "".join(lines)
