"""Lines, versions, data sets, training, lineage.

Must work beside the version of the code that is still running while it deploys.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "2026_11_22_catalogue"
down_revision = "2026_11_22_people"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Give up quickly rather than queue every writer behind a waiting lock.
    op.execute("SET LOCAL lock_timeout = '4s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.create_table(
        "node",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("seq", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("team", sa.Text(), nullable=False),
        sa.Column("ref", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "kind in ('base', 'adapter', 'checkpoint', 'dataset', 'suite', 'eval_run')",
            name=op.f("ck_node_kind"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_node")),
        sa.UniqueConstraint("id", "seq", name=op.f("uq_node_id_seq")),
        sa.UniqueConstraint("ref", name=op.f("uq_node_ref")),
        sa.UniqueConstraint("seq", name=op.f("uq_node_seq")),
    )
    op.create_table(
        "line",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("team", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("domain", sa.Text(), nullable=True),
        sa.Column("created_by", sa.Uuid(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("kind in ('base', 'adapter', 'checkpoint')", name=op.f("ck_line_kind")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_line")),
        sa.UniqueConstraint("team", "name", name=op.f("uq_line_team_name")),
    )
    op.create_table(
        "blob",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("id ~ '^[0-9a-f]{64}$' and size >= 0", name=op.f("ck_blob_digest")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_blob")),
    )
    op.create_table(
        "dataset",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("team", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_by", sa.Uuid(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dataset")),
        sa.UniqueConstraint("team", "name", name=op.f("uq_dataset_team_name")),
    )
    op.create_table(
        "dataset_version",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("dataset_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("blob_id", sa.Text(), nullable=False),
        sa.Column("record_root", sa.Text(), nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("splits", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("duplicates", sa.Integer(), nullable=False),
        sa.Column("overlap", sa.Integer(), nullable=False),
        sa.Column("meta", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_by", sa.Uuid(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "(number is null) = (state = 'draft') or (number is null and state = 'recalled')",
            name=op.f("ck_dataset_version_numbered"),
        ),
        sa.CheckConstraint("number > 0", name=op.f("ck_dataset_version_number")),
        sa.CheckConstraint(
            "record_root ~ '^sha256:[0-9a-f]{64}$'", name=op.f("ck_dataset_version_root")
        ),
        sa.CheckConstraint(
            "state in ('draft', 'registered', 'deprecated', 'recalled')",
            name=op.f("ck_dataset_version_state"),
        ),
        sa.ForeignKeyConstraint(["blob_id"], ["blob.id"], name=op.f("fk_dataset_version_blob_id")),
        sa.ForeignKeyConstraint(
            ["dataset_id"], ["dataset.id"], name=op.f("fk_dataset_version_dataset_id")
        ),
        sa.ForeignKeyConstraint(["id"], ["node.id"], name=op.f("fk_dataset_version_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dataset_version")),
        sa.UniqueConstraint(
            "dataset_id", "blob_id", name=op.f("uq_dataset_version_dataset_id_blob_id")
        ),
        sa.UniqueConstraint(
            "dataset_id", "number", name=op.f("uq_dataset_version_dataset_id_number")
        ),
    )
    op.create_index(
        op.f("ix_dataset_version_dataset_id"), "dataset_version", ["dataset_id"], unique=False
    )
    op.create_table(
        "training_run",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("line_id", sa.Uuid(), nullable=False),
        sa.Column("base_version_id", sa.Uuid(), nullable=False),
        sa.Column("dataset_version_id", sa.Uuid(), nullable=False),
        sa.Column("recipe", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("recipe_digest", sa.Text(), nullable=False),
        sa.Column("meta", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("requested_by", sa.Uuid(), nullable=True),
        sa.Column("trainer_id", sa.Uuid(), nullable=True),
        sa.Column("report", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("report_key", sa.Text(), nullable=True),
        sa.Column("report_signature", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(state = 'succeeded') = (report is not null)", name=op.f("ck_training_run_reported")
        ),
        sa.CheckConstraint(
            "recipe_digest ~ '^sha256:[0-9a-f]{64}$'", name=op.f("ck_training_run_recipe")
        ),
        sa.CheckConstraint(
            "state in ('queued', 'running', 'succeeded', 'failed', 'cancelled')",
            name=op.f("ck_training_run_state"),
        ),
        sa.CheckConstraint(
            "report is null or (report_key is not null and report_signature is not null)",
            name=op.f("ck_training_run_signed"),
        ),
        sa.ForeignKeyConstraint(
            ["base_version_id"], ["node.id"], name=op.f("fk_training_run_base_version_id")
        ),
        sa.ForeignKeyConstraint(
            ["dataset_version_id"], ["node.id"], name=op.f("fk_training_run_dataset_version_id")
        ),
        sa.ForeignKeyConstraint(["line_id"], ["line.id"], name=op.f("fk_training_run_line_id")),
        sa.ForeignKeyConstraint(
            ["report_key"], ["signing_key.id"], name=op.f("fk_training_run_report_key")
        ),
        sa.ForeignKeyConstraint(
            ["trainer_id"], ["account.id"], name=op.f("fk_training_run_trainer_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_training_run")),
    )
    op.create_index(op.f("ix_training_run_line_id"), "training_run", ["line_id"], unique=False)
    op.create_index(
        "ix_training_run_queued",
        "training_run",
        ["created_at"],
        unique=False,
        postgresql_where=sa.text("state = 'queued'"),
    )
    op.create_table(
        "lease",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("progress", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name=op.f("fk_lease_account_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_lease")),
    )
    op.create_table(
        "version",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("line_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("manifest_digest", sa.Text(), nullable=False),
        sa.Column("tensor_root", sa.Text(), nullable=True),
        sa.Column("base_root", sa.Text(), nullable=True),
        sa.Column("base_version_id", sa.Uuid(), nullable=True),
        sa.Column("training_run_id", sa.Uuid(), nullable=True),
        sa.Column("step", sa.Integer(), nullable=True),
        sa.Column("meta", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("facts", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_by", sa.Uuid(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "manifest_digest ~ '^sha256:[0-9a-f]{64}$'", name=op.f("ck_version_manifest")
        ),
        sa.CheckConstraint(
            "(number is null) = (state = 'draft') or (number is null and state = 'recalled')",
            name=op.f("ck_version_numbered"),
        ),
        sa.CheckConstraint(
            "state = 'draft' or tensor_root is not null", name=op.f("ck_version_rooted")
        ),
        sa.CheckConstraint(
            "state in ('draft', 'registered', 'deprecated', 'recalled')",
            name=op.f("ck_version_state"),
        ),
        sa.CheckConstraint("number > 0", name=op.f("ck_version_number")),
        sa.ForeignKeyConstraint(
            ["base_version_id"], ["version.id"], name=op.f("fk_version_base_version_id")
        ),
        sa.ForeignKeyConstraint(["id"], ["node.id"], name=op.f("fk_version_id")),
        sa.ForeignKeyConstraint(["line_id"], ["line.id"], name=op.f("fk_version_line_id")),
        sa.ForeignKeyConstraint(
            ["training_run_id"], ["training_run.id"], name=op.f("fk_version_training_run_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_version")),
        sa.UniqueConstraint(
            "line_id", "manifest_digest", name=op.f("uq_version_line_id_manifest_digest")
        ),
        sa.UniqueConstraint("line_id", "number", name=op.f("uq_version_line_id_number")),
        sa.UniqueConstraint(
            "training_run_id", "step", name=op.f("uq_version_training_run_id_step")
        ),
    )
    op.create_index(
        op.f("ix_version_base_version_id"), "version", ["base_version_id"], unique=False
    )
    op.create_index(op.f("ix_version_line_id"), "version", ["line_id"], unique=False)
    op.create_index(
        "ix_version_manifest_digest",
        "version",
        ["manifest_digest"],
        unique=False,
        postgresql_ops={"manifest_digest": "text_pattern_ops"},
    )
    op.create_index(
        "ix_version_tensor_root",
        "version",
        ["tensor_root"],
        unique=False,
        postgresql_ops={"tensor_root": "text_pattern_ops"},
    )
    op.create_table(
        "version_file",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("version_id", sa.Uuid(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("blob_id", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["blob_id"], ["blob.id"], name=op.f("fk_version_file_blob_id")),
        sa.ForeignKeyConstraint(
            ["version_id"], ["version.id"], name=op.f("fk_version_file_version_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_version_file")),
        sa.UniqueConstraint("version_id", "path", name=op.f("uq_version_file_version_id_path")),
    )
    op.create_index(op.f("ix_version_file_blob_id"), "version_file", ["blob_id"], unique=False)
    op.create_table(
        "lineage_edge",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("child_id", sa.Uuid(), nullable=False),
        sa.Column("child_seq", sa.BigInteger(), nullable=False),
        sa.Column("parent_id", sa.Uuid(), nullable=False),
        sa.Column("parent_seq", sa.BigInteger(), nullable=False),
        sa.Column("relation", sa.Text(), nullable=False),
        sa.Column("grade", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "grade in ('claimed', 'observed', 'verified')", name=op.f("ck_lineage_edge_grade")
        ),
        sa.CheckConstraint(
            "relation in ('tuned_on', 'adapts', 'continues', 'merged_from', 'quantised_from', 'derived_from', 'evaluated_on')",
            name=op.f("ck_lineage_edge_relation"),
        ),
        sa.CheckConstraint("parent_seq < child_seq", name=op.f("ck_lineage_edge_parent_older")),
        sa.ForeignKeyConstraint(
            ["child_id", "child_seq"],
            ["node.id", "node.seq"],
            name=op.f("fk_lineage_edge_child_id_child_seq"),
        ),
        sa.ForeignKeyConstraint(
            ["parent_id", "parent_seq"],
            ["node.id", "node.seq"],
            name=op.f("fk_lineage_edge_parent_id_parent_seq"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_lineage_edge")),
        sa.UniqueConstraint(
            "child_id",
            "parent_id",
            "relation",
            name=op.f("uq_lineage_edge_child_id_parent_id_relation"),
        ),
    )
    op.create_index("ix_lineage_edge_parent_id", "lineage_edge", ["parent_id"], unique=False)


def downgrade() -> None:
    op.drop_table("lineage_edge")
    op.drop_table("version_file")
    op.drop_table("version")
    op.drop_table("lease")
    op.drop_table("training_run")
    op.drop_table("dataset_version")
    op.drop_table("dataset")
    op.drop_table("blob")
    op.drop_table("line")
    op.drop_table("node")
