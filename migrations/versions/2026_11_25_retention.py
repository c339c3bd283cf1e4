"""Retention: classes and where they hold, legal holds, tombstones, collected bytes, quotas. Their guards come next.

Must work beside the version of the code that is still running while it deploys.
"""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_25_retention"
down_revision = "2026_11_25_hub"
branch_labels = None
depends_on = None

NEW = ("retention_class", "retention_setting", "legal_hold", "tombstone", "quota")
STEPS = (
    ("draft", "deleted"),
    ("registered", "deleted"),
    ("deprecated", "deleted"),
    ("deleted", "recalled"),
)


def upgrade() -> None:
    # Give up quickly rather than queue every writer behind a waiting lock.
    op.execute("SET LOCAL lock_timeout = '4s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.create_table(
        "retention_class",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("keep_days", sa.Integer(), nullable=False),
        sa.Column("counted_from", sa.Text(), nullable=False),
        sa.Column("after", sa.Text(), nullable=False),
        sa.Column("draft_days", sa.Integer(), nullable=False),
        sa.Column("reason_commitment", sa.Text(), nullable=False),
        sa.Column("defined_by", sa.Uuid(), nullable=True),
        sa.Column("defined_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("after in ('may-go', 'due')", name=op.f("ck_retention_class_after")),
        sa.CheckConstraint(
            "counted_from in ('registration', 'service')",
            name=op.f("ck_retention_class_counted_from"),
        ),
        sa.CheckConstraint(
            "keep_days between 0 and 36500 and draft_days between 1 and 3650",
            name=op.f("ck_retention_class_days"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_retention_class")),
        sa.UniqueConstraint("name", name=op.f("uq_retention_class_name")),
    )
    op.create_table(
        "retention_setting",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("team", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=True),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("class_id", sa.Uuid(), nullable=False),
        sa.Column("reason_commitment", sa.Text(), nullable=False),
        sa.Column("set_by", sa.Uuid(), nullable=False),
        sa.Column("set_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("kind in ('line', 'dataset')", name=op.f("ck_retention_setting_kind")),
        sa.CheckConstraint(
            "(kind is null) = (name is null)", name=op.f("ck_retention_setting_scope")
        ),
        sa.ForeignKeyConstraint(
            ["class_id"], ["retention_class.id"], name=op.f("fk_retention_setting_class_id")
        ),
        sa.ForeignKeyConstraint(
            ["set_by"], ["account.id"], name=op.f("fk_retention_setting_set_by")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_retention_setting")),
        sa.UniqueConstraint("number", name=op.f("uq_retention_setting_number")),
    )
    op.create_index(
        "ix_retention_setting_scope", "retention_setting", ["team", "kind", "name"], unique=False
    )
    op.create_table(
        "legal_hold",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("node_id", sa.Uuid(), nullable=True),
        sa.Column("line_id", sa.Uuid(), nullable=True),
        sa.Column("dataset_id", sa.Uuid(), nullable=True),
        sa.Column("case_commitment", sa.Text(), nullable=False),
        sa.Column("reason_commitment", sa.Text(), nullable=False),
        sa.Column("placed_by", sa.Uuid(), nullable=False),
        sa.Column("placed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("lifted_by", sa.Uuid(), nullable=True),
        sa.Column("lifted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lift_reason_commitment", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "num_nonnulls(node_id, line_id, dataset_id) = 1", name=op.f("ck_legal_hold_one_thing")
        ),
        sa.CheckConstraint(
            "num_nonnulls(lifted_by, lifted_at, lift_reason_commitment) in (0, 3)",
            name=op.f("ck_legal_hold_lifted"),
        ),
        sa.CheckConstraint("lifted_by <> placed_by", name=op.f("ck_legal_hold_four_eyes")),
        sa.ForeignKeyConstraint(
            ["dataset_id"], ["dataset.id"], name=op.f("fk_legal_hold_dataset_id")
        ),
        sa.ForeignKeyConstraint(
            ["lifted_by"], ["account.id"], name=op.f("fk_legal_hold_lifted_by")
        ),
        sa.ForeignKeyConstraint(["line_id"], ["line.id"], name=op.f("fk_legal_hold_line_id")),
        sa.ForeignKeyConstraint(["node_id"], ["node.id"], name=op.f("fk_legal_hold_node_id")),
        sa.ForeignKeyConstraint(
            ["placed_by"], ["account.id"], name=op.f("fk_legal_hold_placed_by")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_legal_hold")),
        sa.UniqueConstraint("number", name=op.f("uq_legal_hold_number")),
    )
    op.create_index(
        "ix_legal_hold_standing",
        "legal_hold",
        ["number"],
        unique=False,
        postgresql_where=sa.text("lifted_at is null"),
    )
    op.create_table(
        "tombstone",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("how", sa.Text(), nullable=False),
        sa.Column("was", sa.Text(), nullable=False),
        sa.Column("reason_commitment", sa.Text(), nullable=False),
        sa.Column("deleted_by", sa.Uuid(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "how in ('deleted', 'discarded', 'expired')", name=op.f("ck_tombstone_how")
        ),
        sa.CheckConstraint(
            "was in ('draft', 'registered', 'deprecated', 'recalled')",
            name=op.f("ck_tombstone_was"),
        ),
        sa.ForeignKeyConstraint(["id"], ["node.id"], name=op.f("fk_tombstone_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tombstone")),
    )
    op.create_table(
        "quota",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("team", sa.Text(), nullable=False),
        sa.Column("max_bytes", sa.BigInteger(), nullable=True),
        sa.Column("max_versions", sa.BigInteger(), nullable=True),
        sa.Column("reason_commitment", sa.Text(), nullable=False),
        sa.Column("set_by", sa.Uuid(), nullable=True),
        sa.Column("set_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("max_bytes >= 0 and max_versions >= 0", name=op.f("ck_quota_limits")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_quota")),
        sa.UniqueConstraint("number", name=op.f("uq_quota_number")),
    )
    op.create_index("ix_quota_team", "quota", ["team", "number"], unique=False)
    for table in ("version", "dataset_version"):
        op.add_column(table, sa.Column("registered_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("blob", sa.Column("collected_at", sa.DateTime(timezone=True), nullable=True))
    _states()
    op.execute(f"grant select on {', '.join(NEW)} to countersign_app, countersign_reader")
    op.execute(f"grant insert on {', '.join(NEW)} to countersign_app")
    op.execute("grant update on legal_hold to countersign_app")


def _states() -> None:
    """A new state, `deleted`: bytes may be registered again, numbers never."""
    for table, of in (
        ("version", ("line_id", "manifest_digest")),
        ("dataset_version", ("dataset_id", "blob_id")),
    ):
        listed = "'draft', 'registered', 'deprecated', 'recalled', 'deleted'"
        checks = {
            "state": f"state in ({listed})",
            "numbered": "(number is null) = (state = 'draft') or (number is null and state in ('recalled', 'deleted'))",
        }
        if table == "version":
            checks["rooted"] = "state in ('draft', 'deleted') or tensor_root is not null"
        # Each says more than the one it takes the place of, within one transaction: no client sees it missing, and the
        # lock it needs is waited for no longer than the time-outs above.
        for name, said in checks.items():
            op.execute(
                f"-- squawk-ignore ban-drop-constraint\nalter table {table} drop constraint ck_{table}_{name}"
            )
            op.execute(
                "-- squawk-ignore constraint-missing-not-valid\n"
                f"alter table {table} add constraint ck_{table}_{name} check ({said})"
            )
        unique = f"uq_{table}_{of[0]}_{of[1]}"
        op.execute(
            f"-- squawk-ignore ban-drop-constraint\nalter table {table} drop constraint {unique}"
        )
        op.execute(
            "-- squawk-ignore require-concurrent-index-creation\n"
            f"create unique index {unique} on {table} ({', '.join(of)}) "
            "where state in ('draft', 'registered', 'deprecated')"
        )
        rows = ", ".join(f"('{table}', '{old}', '{new}')" for old, new in STEPS)
        op.execute(f"insert into transition values {rows}")


def downgrade() -> None:
    raise RuntimeError(
        "This migration cannot be undone: the log tells of deletions. Restore a backup instead."
    )
