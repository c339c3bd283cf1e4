"""The initial schema: the SQL of migrations/initial, noun by noun.

These files are history, like any other migration. migrations/schema.sql shows the current schema.
"""

from pathlib import Path

from alembic import context, op
from procrastinate.schema import SchemaManager

revision = "2026_11_30_initial"
down_revision = None
branch_labels = None
depends_on = None

INITIAL = Path(__file__).parents[1] / "initial"
# Tables come after those that their foreign keys reference.
NOUNS = (
    "roles",
    "guards",
    "log",
    "people",
    "blobs",
    "nodes",
    "datasets",
    "training",
    "versions",
    "evals",
    "decisions",
    "delivery",
    "deprecations",
    "profiles",
    "retention",
    "search",
)


def upgrade() -> None:
    # Give up quickly: while the migration waits for a lock, every writer waits behind it.
    op.execute("SET LOCAL lock_timeout = '4s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    # Shared functions come first, and read tables that are created later.
    op.execute("SET LOCAL check_function_bodies = off")
    for noun in NOUNS:
        run(noun)
    op.execute("create schema procrastinate")
    op.execute("set local search_path to procrastinate")
    execute(SchemaManager.get_schema())
    op.execute("set local search_path to public")
    run("jobs")


def run(noun: str) -> None:
    execute((INITIAL / f"{noun}.sql").read_text(encoding="utf-8").rstrip().removesuffix(";"))


def execute(statements: str) -> None:
    """Run many statements at once. Without parameters, percent signs and colons are plain SQL."""
    if context.is_offline_mode():
        op.execute(statements)
    else:
        op.get_bind().exec_driver_sql(statements, execution_options={"no_parameters": True})


def downgrade() -> None:
    # Without the tables and their guards, nothing would prove what was decided.
    raise RuntimeError(
        "The initial migration cannot be undone: it would destroy the evidence. "
        "Restore a backup instead."
    )
