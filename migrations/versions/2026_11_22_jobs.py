"""Background jobs: procrastinate's own tables, in a schema of their own.

Must work beside the version of the code that is still running while it deploys.
"""

from alembic import context, op
from procrastinate.schema import SchemaManager

revision = "2026_11_22_jobs"
down_revision = "2026_11_22_decisions"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '4s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.execute("create schema procrastinate")
    op.execute("set local search_path to procrastinate")
    schema = SchemaManager.get_schema()
    if context.is_offline_mode():
        op.execute(schema)
    else:
        # Many statements at once and percent signs: past SQLAlchemy's parameter handling, in the same transaction.
        op.get_bind().connection.driver_connection.execute(schema)
    op.execute("set local search_path to public")
    op.execute("grant usage on schema procrastinate to countersign_app")
    op.execute(
        "grant select, insert, update, delete on all tables in schema procrastinate to countersign_app"
    )
    op.execute("grant usage on all sequences in schema procrastinate to countersign_app")


def downgrade() -> None:
    op.execute("drop schema procrastinate cascade")
