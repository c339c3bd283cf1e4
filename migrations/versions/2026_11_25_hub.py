"""A gateway's token may be bound to one environment, nobody else's.

Must work beside the version of the code that is still running while it deploys: that one writes no environments.
"""

from alembic import op

revision = "2026_11_25_hub"
down_revision = "2026_11_23_tags"
branch_labels = None
depends_on = None

BOUND = (
    'not jsonb_path_exists(scopes, \'$[*] ? (exists(@.environment) && !(@.role == "gateway" && '
    '(@.environment == "dev" || @.environment == "staging" || @.environment == "production")))\')'
)


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '4s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    # Validated at once: tokens are few, and while they are read only the minting of one waits.
    op.execute(
        "-- squawk-ignore constraint-missing-not-valid\n"
        f"alter table token add constraint ck_token_environment check ({BOUND})"
    )


def downgrade() -> None:
    raise RuntimeError(
        "cannot be undone: under the code before, a token bound to one environment would pull for all"
    )
