"""Channels, rollouts, route generations, recalls.

Must work beside the version of the code that is still running while it deploys.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "2026_11_22_delivery"
down_revision = "2026_11_22_evidence"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Give up quickly rather than queue every writer behind a waiting lock.
    op.execute("SET LOCAL lock_timeout = '4s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    # A trusted extension: the database's owner may install it. The exclusion constraint compares uuids by it.
    op.execute("create extension if not exists btree_gist")
    op.create_table(
        "channel",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("line_id", sa.Uuid(), nullable=False),
        sa.Column("environment", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("use_case_id", sa.Uuid(), nullable=False),
        sa.Column("base_version_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "environment in ('dev', 'staging', 'production')", name=op.f("ck_channel_environment")
        ),
        sa.CheckConstraint("name !~ '^(v[0-9]+$|v0|sha256|draft-)'", name=op.f("ck_channel_name")),
        sa.ForeignKeyConstraint(
            ["base_version_id"], ["version.id"], name=op.f("fk_channel_base_version_id")
        ),
        sa.ForeignKeyConstraint(["line_id"], ["line.id"], name=op.f("fk_channel_line_id")),
        sa.ForeignKeyConstraint(
            ["use_case_id"], ["use_case.id"], name=op.f("fk_channel_use_case_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_channel")),
        sa.UniqueConstraint(
            "line_id", "environment", "name", name=op.f("uq_channel_line_id_environment_name")
        ),
    )
    op.create_table(
        "rollout",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("channel_id", sa.Uuid(), nullable=False),
        sa.Column("version_id", sa.Uuid(), nullable=False),
        sa.Column("review_id", sa.Uuid(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("weight_bp", sa.Integer(), nullable=False),
        sa.Column("rollback_target_id", sa.Uuid(), nullable=True),
        sa.Column("started_by", sa.Uuid(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(state in ('pending', 'shadowing', 'canary', 'paused', 'inconclusive', 'promoting')) = (ended_at is null)",
            name=op.f("ck_rollout_ended"),
        ),
        sa.CheckConstraint(
            "state in ('pending', 'shadowing', 'canary', 'paused', 'inconclusive', 'promoting') or weight_bp = 0",
            name=op.f("ck_rollout_terminal_weight"),
        ),
        sa.CheckConstraint(
            "state in ('pending', 'shadowing', 'canary', 'paused', 'inconclusive', 'promoting', 'succeeded', "
            "'aborted', 'rolled_back', 'expired', 'superseded')",
            name=op.f("ck_rollout_state"),
        ),
        sa.CheckConstraint("weight_bp between 0 and 10000", name=op.f("ck_rollout_weight")),
        sa.ForeignKeyConstraint(["channel_id"], ["channel.id"], name=op.f("fk_rollout_channel_id")),
        sa.ForeignKeyConstraint(["review_id"], ["review.id"], name=op.f("fk_rollout_review_id")),
        sa.ForeignKeyConstraint(
            ["rollback_target_id"], ["version.id"], name=op.f("fk_rollout_rollback_target_id")
        ),
        sa.ForeignKeyConstraint(["version_id"], ["version.id"], name=op.f("fk_rollout_version_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rollout")),
    )
    op.create_index(op.f("ix_rollout_channel_id"), "rollout", ["channel_id"], unique=False)
    op.create_index(
        "uq_rollout_active",
        "rollout",
        ["channel_id"],
        unique=True,
        postgresql_where=sa.text(
            "state in ('pending', 'shadowing', 'canary', 'paused', 'inconclusive', 'promoting')"
        ),
    )
    op.create_table(
        "route_generation",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("channel_id", sa.Uuid(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("stable_version_id", sa.Uuid(), nullable=True),
        sa.Column("candidate_version_id", sa.Uuid(), nullable=True),
        sa.Column("weight_bp", sa.Integer(), nullable=False),
        sa.Column("salt", sa.Text(), nullable=False),
        sa.Column("killed", sa.Boolean(), nullable=False),
        sa.Column("rollout_id", sa.Uuid(), nullable=True),
        sa.Column("actor_id", sa.Uuid(), nullable=True),
        sa.Column("reason_commitment", sa.Text(), nullable=False),
        sa.Column("valid_from", sa.DateTime(timezone=True), nullable=False),
        sa.Column("valid_to", sa.DateTime(timezone=True), nullable=True),
        postgresql.ExcludeConstraint(
            (sa.column("channel_id"), "="),
            (sa.text("tstzrange(valid_from, valid_to)"), "&&"),
            using="gist",
            name="ex_route_generation_range",
        ),
        sa.CheckConstraint(
            "kind in ('canary', 'promote', 'rollback', 'recall')",
            name=op.f("ck_route_generation_kind"),
        ),
        sa.CheckConstraint(
            "(candidate_version_id is null) = (weight_bp = 0)",
            name=op.f("ck_route_generation_candidate_weight"),
        ),
        sa.CheckConstraint("generation > 0", name=op.f("ck_route_generation_generation")),
        sa.CheckConstraint(
            "not killed or candidate_version_id is null", name=op.f("ck_route_generation_killed")
        ),
        sa.CheckConstraint(
            "valid_to is null or valid_to > valid_from", name=op.f("ck_route_generation_range")
        ),
        sa.CheckConstraint(
            "weight_bp between 0 and 10000", name=op.f("ck_route_generation_weight")
        ),
        sa.ForeignKeyConstraint(
            ["candidate_version_id"],
            ["version.id"],
            name=op.f("fk_route_generation_candidate_version_id"),
        ),
        sa.ForeignKeyConstraint(
            ["channel_id"], ["channel.id"], name=op.f("fk_route_generation_channel_id")
        ),
        sa.ForeignKeyConstraint(
            ["rollout_id"], ["rollout.id"], name=op.f("fk_route_generation_rollout_id")
        ),
        sa.ForeignKeyConstraint(
            ["stable_version_id"],
            ["version.id"],
            name=op.f("fk_route_generation_stable_version_id"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_route_generation")),
        sa.UniqueConstraint(
            "channel_id", "generation", name=op.f("uq_route_generation_channel_id_generation")
        ),
    )
    op.create_index(
        "ix_route_generation_candidate",
        "route_generation",
        ["candidate_version_id"],
        unique=False,
        postgresql_where=sa.text("valid_to is null"),
    )
    op.create_index(
        "ix_route_generation_stable",
        "route_generation",
        ["stable_version_id"],
        unique=False,
        postgresql_where=sa.text("valid_to is null"),
    )
    op.create_index(
        "uq_route_generation_open",
        "route_generation",
        ["channel_id"],
        unique=True,
        postgresql_where=sa.text("valid_to is null"),
    )
    op.create_table(
        "recall",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("node_id", sa.Uuid(), nullable=False),
        sa.Column("reason_commitment", sa.Text(), nullable=False),
        sa.Column("ordered_by", sa.Uuid(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["node_id"], ["node.id"], name=op.f("fk_recall_node_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_recall")),
        sa.UniqueConstraint("node_id", name=op.f("uq_recall_node_id")),
    )


def downgrade() -> None:
    op.drop_table("recall")
    op.drop_table("route_generation")
    op.drop_table("rollout")
    op.drop_table("channel")
