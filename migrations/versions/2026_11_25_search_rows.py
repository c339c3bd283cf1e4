"""The search rows of all versions made anew, from the view they are a copy of.

Must work beside the version of the code that is still running while it deploys: it locks rows, and no table.
"""

from alembic import op

revision = "2026_11_25_search_rows"
down_revision = "2026_11_25_search"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Give up quickly rather than queue every writer behind a waiting lock.
    op.execute("SET LOCAL lock_timeout = '4s'")
    op.execute(
        "SET LOCAL statement_timeout = '900s'"
    )  # a hundred thousand versions take about a minute
    op.execute("select search_rebuild()")


def downgrade() -> None:
    raise RuntimeError(
        "This migration cannot be undone: the old search rows are no longer made. Restore a backup instead."
    )
