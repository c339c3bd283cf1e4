"""The audit log and its outbox.

Must work beside the version of the code that is still running while it deploys.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "2026_11_22_log"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Give up quickly rather than queue every writer behind a waiting lock.
    op.execute("SET LOCAL lock_timeout = '4s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    # SQLAlchemy has no xid8; the default names the writing transaction itself.
    op.execute(
        """
        create table event (
            id uuid not null,
            place bigint generated always as identity not null,
            txid xid8 default pg_current_xact_id() not null,
            at timestamp with time zone not null,
            actor_id uuid,
            action text not null,
            subject text not null,
            team text,
            outcome text not null,
            entry bytea not null,
            constraint pk_event primary key (id),
            constraint uq_event_place unique (place),
            constraint uq_event_id_txid unique (id, txid),
            constraint ck_event_outcome check (outcome in ('done', 'refused'))
        )
        """
    )
    op.create_index("ix_event_action", "event", ["action", "place"], unique=False)
    op.create_index("ix_event_subject", "event", ["subject", "place"], unique=False)
    op.create_table(
        "event_pending",
        sa.Column("place", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(["event_id"], ["event.id"], name=op.f("fk_event_pending_event_id")),
        sa.PrimaryKeyConstraint("place", name=op.f("pk_event_pending")),
    )
    # The key over both columns ties the rows named to an event of the same transaction, not to one of the past.
    op.execute(
        """
        create table event_row (
            txid xid8 default pg_current_xact_id() not null,
            table_name text not null,
            row_key text not null,
            event_id uuid not null,
            constraint pk_event_row primary key (txid, table_name, row_key),
            constraint fk_event_row_event_id_txid foreign key (event_id, txid) references event (id, txid)
        )
        """
    )
    op.create_index(op.f("ix_event_row_event_id"), "event_row", ["event_id"], unique=False)
    op.create_table(
        "leaf",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("seq >= 0 and octet_length(hash) = 32", name=op.f("ck_leaf_shape")),
        sa.ForeignKeyConstraint(["event_id"], ["event.id"], name=op.f("fk_leaf_event_id")),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_leaf")),
        sa.UniqueConstraint("event_id", name=op.f("uq_leaf_event_id")),
    )
    op.create_table(
        "tree_head",
        sa.Column("size", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("root", sa.Text(), nullable=False),
        sa.Column("frontier", postgresql.ARRAY(sa.LargeBinary()), nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("root ~ '^sha256:[0-9a-f]{64}$'", name=op.f("ck_tree_head_root")),
        sa.PrimaryKeyConstraint("size", name=op.f("pk_tree_head")),
    )
    op.create_table(
        "personal",
        sa.Column("commitment", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("salt", sa.LargeBinary(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "commitment ~ '^sha256:[0-9a-f]{64}$'", name=op.f("ck_personal_commitment")
        ),
        sa.PrimaryKeyConstraint("commitment", name=op.f("pk_personal")),
    )
    op.create_index(
        "uq_personal_account_name",
        "personal",
        ["value"],
        unique=True,
        postgresql_where=sa.text("kind = 'account'"),
    )


def downgrade() -> None:
    op.drop_table("personal")
    op.drop_table("tree_head")
    op.drop_table("leaf")
    op.drop_table("event_row")
    op.drop_table("event_pending")
    op.drop_table("event")
