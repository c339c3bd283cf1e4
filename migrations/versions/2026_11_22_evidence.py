"""Suites, eval runs, policies, use cases, reviews.

Must work beside the version of the code that is still running while it deploys.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "2026_11_22_evidence"
down_revision = "2026_11_22_catalogue"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Give up quickly rather than queue every writer behind a waiting lock.
    op.execute("SET LOCAL lock_timeout = '4s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.create_table(
        "eval_suite",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("team", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_by", sa.Uuid(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_eval_suite")),
        sa.UniqueConstraint("team", "name", name=op.f("uq_eval_suite_team_name")),
    )
    op.create_table(
        "eval_suite_version",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("suite_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("dataset_version_id", sa.Uuid(), nullable=False),
        sa.Column("split", sa.Text(), nullable=False),
        sa.Column("metric", sa.Text(), nullable=False),
        sa.Column("decoding", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("items", sa.Integer(), nullable=False),
        sa.Column("blob_id", sa.Text(), nullable=False),
        sa.Column("created_by", sa.Uuid(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "digest ~ '^sha256:[0-9a-f]{64}$'", name=op.f("ck_eval_suite_version_digest")
        ),
        sa.CheckConstraint("items > 0", name=op.f("ck_eval_suite_version_items")),
        sa.ForeignKeyConstraint(
            ["blob_id"], ["blob.id"], name=op.f("fk_eval_suite_version_blob_id")
        ),
        sa.ForeignKeyConstraint(
            ["dataset_version_id"],
            ["dataset_version.id"],
            name=op.f("fk_eval_suite_version_dataset_version_id"),
        ),
        sa.ForeignKeyConstraint(["id"], ["node.id"], name=op.f("fk_eval_suite_version_id")),
        sa.ForeignKeyConstraint(
            ["suite_id"], ["eval_suite.id"], name=op.f("fk_eval_suite_version_suite_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_eval_suite_version")),
        sa.UniqueConstraint(
            "suite_id", "digest", name=op.f("uq_eval_suite_version_suite_id_digest")
        ),
        sa.UniqueConstraint(
            "suite_id", "number", name=op.f("uq_eval_suite_version_suite_id_number")
        ),
    )
    op.create_index(
        op.f("ix_eval_suite_version_suite_id"), "eval_suite_version", ["suite_id"], unique=False
    )
    op.create_table(
        "eval_run",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("subject_id", sa.Uuid(), nullable=False),
        sa.Column("suite_version_id", sa.Uuid(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("requested_by", sa.Uuid(), nullable=True),
        sa.Column("trainer_id", sa.Uuid(), nullable=True),
        sa.Column("samples_blob_id", sa.Text(), nullable=True),
        sa.Column("report", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("report_key", sa.Text(), nullable=True),
        sa.Column("report_signature", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(state = 'succeeded') = (report is not null)", name=op.f("ck_eval_run_reported")
        ),
        sa.CheckConstraint(
            "state in ('queued', 'running', 'succeeded', 'failed', 'cancelled')",
            name=op.f("ck_eval_run_state"),
        ),
        sa.CheckConstraint(
            "report is null or (report_key is not null and samples_blob_id is not null)",
            name=op.f("ck_eval_run_signed"),
        ),
        sa.ForeignKeyConstraint(["id"], ["node.id"], name=op.f("fk_eval_run_id")),
        sa.ForeignKeyConstraint(
            ["report_key"], ["signing_key.id"], name=op.f("fk_eval_run_report_key")
        ),
        sa.ForeignKeyConstraint(
            ["samples_blob_id"], ["blob.id"], name=op.f("fk_eval_run_samples_blob_id")
        ),
        sa.ForeignKeyConstraint(
            ["subject_id"], ["version.id"], name=op.f("fk_eval_run_subject_id")
        ),
        sa.ForeignKeyConstraint(
            ["suite_version_id"],
            ["eval_suite_version.id"],
            name=op.f("fk_eval_run_suite_version_id"),
        ),
        sa.ForeignKeyConstraint(
            ["trainer_id"], ["account.id"], name=op.f("fk_eval_run_trainer_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_eval_run")),
    )
    op.create_index(
        "ix_eval_run_queued",
        "eval_run",
        ["created_at"],
        unique=False,
        postgresql_where=sa.text("state = 'queued'"),
    )
    op.create_index(op.f("ix_eval_run_subject_id"), "eval_run", ["subject_id"], unique=False)
    op.create_index(
        "uq_eval_run_active",
        "eval_run",
        ["subject_id", "suite_version_id"],
        unique=True,
        postgresql_where=sa.text("state in ('queued', 'running')"),
    )
    op.create_table(
        "eval_metric",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("eval_run_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("ci_low", sa.Double(), nullable=False),
        sa.Column("ci_high", sa.Double(), nullable=False),
        sa.Column("higher_is_better", sa.Boolean(), nullable=False),
        sa.CheckConstraint(
            "n > 0 and ci_low <= value and value <= ci_high", name=op.f("ck_eval_metric_interval")
        ),
        sa.ForeignKeyConstraint(
            ["eval_run_id"], ["eval_run.id"], name=op.f("fk_eval_metric_eval_run_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_eval_metric")),
        sa.UniqueConstraint("eval_run_id", "name", name=op.f("uq_eval_metric_eval_run_id_name")),
    )
    op.create_table(
        "use_case",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("team", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("risk_tier", sa.Text(), nullable=False),
        sa.Column("suite_id", sa.Uuid(), nullable=False),
        sa.Column("details", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_by", sa.Uuid(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "risk_tier in ('minimal', 'limited', 'high')", name=op.f("ck_use_case_risk_tier")
        ),
        sa.ForeignKeyConstraint(["suite_id"], ["eval_suite.id"], name=op.f("fk_use_case_suite_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_use_case")),
        sa.UniqueConstraint("team", "name", name=op.f("uq_use_case_team_name")),
    )
    op.create_table(
        "policy_version",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("environment", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("rules", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("published_by", sa.Uuid(), nullable=True),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "digest ~ '^sha256:[0-9a-f]{64}$'", name=op.f("ck_policy_version_digest")
        ),
        sa.CheckConstraint(
            "environment in ('dev', 'staging', 'production')",
            name=op.f("ck_policy_version_environment"),
        ),
        sa.CheckConstraint("number > 0", name=op.f("ck_policy_version_number")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_policy_version")),
        sa.UniqueConstraint(
            "environment", "number", name=op.f("uq_policy_version_environment_number")
        ),
    )
    op.create_table(
        "review",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("version_id", sa.Uuid(), nullable=False),
        sa.Column("environment", sa.Text(), nullable=False),
        sa.Column("use_case_id", sa.Uuid(), nullable=False),
        sa.Column("policy_version_id", sa.Uuid(), nullable=False),
        sa.Column("evidence", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("evidence_root", sa.Text(), nullable=False),
        sa.Column("verdict", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("note_commitment", sa.Text(), nullable=False),
        sa.Column("submitted_by", sa.Uuid(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(state = 'open') = (decided_at is null)", name=op.f("ck_review_decided")
        ),
        sa.CheckConstraint(
            "environment in ('dev', 'staging', 'production')", name=op.f("ck_review_environment")
        ),
        sa.CheckConstraint(
            "evidence_root ~ '^sha256:[0-9a-f]{64}$'", name=op.f("ck_review_evidence")
        ),
        sa.CheckConstraint(
            "state <> 'approved' or expires_at is not null", name=op.f("ck_review_approval_expires")
        ),
        sa.CheckConstraint(
            "state in ('open', 'approved', 'rejected', 'changes_requested', 'withdrawn', 'expired', 'voided')",
            name=op.f("ck_review_state"),
        ),
        sa.ForeignKeyConstraint(
            ["policy_version_id"], ["policy_version.id"], name=op.f("fk_review_policy_version_id")
        ),
        sa.ForeignKeyConstraint(
            ["submitted_by"], ["account.id"], name=op.f("fk_review_submitted_by")
        ),
        sa.ForeignKeyConstraint(
            ["use_case_id"], ["use_case.id"], name=op.f("fk_review_use_case_id")
        ),
        sa.ForeignKeyConstraint(["version_id"], ["version.id"], name=op.f("fk_review_version_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_review")),
        sa.UniqueConstraint("number", name=op.f("uq_review_number")),
    )
    op.create_index(op.f("ix_review_version_id"), "review", ["version_id"], unique=False)
    op.create_index(
        "uq_review_live",
        "review",
        ["version_id", "environment"],
        unique=True,
        postgresql_where=sa.text("state in ('open', 'approved')"),
    )
    op.create_table(
        "vote",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("review_id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("team", sa.Text(), nullable=True),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("reason_commitment", sa.Text(), nullable=False),
        sa.Column("decision", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("decision_digest", sa.Text(), nullable=False),
        sa.Column("signature", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "decision_digest ~ '^sha256:[0-9a-f]{64}$'", name=op.f("ck_vote_decision")
        ),
        sa.CheckConstraint(
            "reason_commitment ~ '^sha256:[0-9a-f]{64}$'", name=op.f("ck_vote_reason")
        ),
        sa.CheckConstraint(
            "verdict in ('approve', 'reject', 'request_changes')", name=op.f("ck_vote_verdict")
        ),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name=op.f("fk_vote_account_id")),
        sa.ForeignKeyConstraint(["key_id"], ["signing_key.id"], name=op.f("fk_vote_key_id")),
        sa.ForeignKeyConstraint(["review_id"], ["review.id"], name=op.f("fk_vote_review_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_vote")),
        sa.UniqueConstraint("review_id", "account_id", name=op.f("uq_vote_review_id_account_id")),
    )


def downgrade() -> None:
    op.drop_table("vote")
    op.drop_table("review")
    op.drop_table("policy_version")
    op.drop_table("use_case")
    op.drop_table("eval_metric")
    op.drop_table("eval_run")
    op.drop_table("eval_suite_version")
    op.drop_table("eval_suite")
