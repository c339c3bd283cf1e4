"""Serving profiles.

Must work beside the version of the code that is still running while it deploys.
"""

from alembic import op

revision = "2026_11_23_profiles"
down_revision = "2026_11_22_jobs"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Give up quickly rather than queue every writer behind a waiting lock.
    op.execute("SET LOCAL lock_timeout = '4s'")
    op.execute("SET LOCAL statement_timeout = '60s'")


def downgrade() -> None:
    pass
