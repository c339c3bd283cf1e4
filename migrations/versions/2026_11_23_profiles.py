"""Serving profiles: what a version may be served as, frozen from the moment it is defined.

Must work beside the version of the code that is still running while it deploys.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "2026_11_23_profiles"
down_revision = "2026_11_22_jobs"
branch_labels = None
depends_on = None

# Held FOR SHARE, so that no recall slips in between this look and the commit.
OF_REGISTERED_ONLY = """
create function profile_of_registered_only() returns trigger language plpgsql as $$
declare stands text; own_base uuid; base_stands text;
begin
    select state, base_version_id into stands, own_base from version where id = new.version_id for share;
    if stands is distinct from 'registered' then
        raise exception 'a serving profile needs a registered version; this one is %', coalesce(stands, 'missing')
            using errcode = 'CS004';
    end if;
    if new.base_version_id is distinct from own_base and not exists (
        select 1 from lineage_edge where child_id = new.base_version_id and parent_id = own_base
        and relation = 'quantised_from' and grade = 'verified'
    ) then
        raise exception 'a serving profile stands on the version''s own base or a verified quantisation of it'
            using errcode = 'CS004';
    end if;
    if new.base_version_id is not null then
        select state into base_stands from version where id = new.base_version_id for share;
        if base_stands not in ('registered', 'deprecated') then
            raise exception 'the base of a serving profile is %', base_stands using errcode = 'CS004';
        end if;
    end if;
    return new;
end $$
"""


def upgrade() -> None:
    # Give up quickly rather than queue every writer behind a waiting lock.
    op.execute("SET LOCAL lock_timeout = '4s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.create_table(
        "serving_profile",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("version_id", sa.Uuid(), nullable=False),
        sa.Column("base_version_id", sa.Uuid(), nullable=True),
        sa.Column("system_prompt_id", sa.Text(), nullable=True),
        sa.Column("engine", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("document", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_by", sa.Uuid(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "engine in ('vllm', 'sglang', 'tgi', 'transformers')",
            name=op.f("ck_serving_profile_engine"),
        ),
        sa.CheckConstraint(
            "digest ~ '^sha256:[0-9a-f]{64}$'", name=op.f("ck_serving_profile_digest")
        ),
        sa.CheckConstraint(
            "document ->> 'engine' is not distinct from engine",
            name=op.f("ck_serving_profile_document"),
        ),
        sa.CheckConstraint(
            "document ->> 'system_prompt' is not distinct from 'sha256:' || system_prompt_id",
            name=op.f("ck_serving_profile_prompt"),
        ),
        sa.ForeignKeyConstraint(
            ["version_id"], ["version.id"], name=op.f("fk_serving_profile_version_id")
        ),
        sa.ForeignKeyConstraint(
            ["base_version_id"], ["version.id"], name=op.f("fk_serving_profile_base_version_id")
        ),
        sa.ForeignKeyConstraint(
            ["system_prompt_id"], ["blob.id"], name=op.f("fk_serving_profile_system_prompt_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_serving_profile")),
        sa.UniqueConstraint(
            "version_id", "digest", name=op.f("uq_serving_profile_version_id_digest")
        ),
    )
    for column in ("base_version_id", "system_prompt_id"):
        op.create_index(
            op.f(f"ix_serving_profile_{column}"), "serving_profile", [column], unique=False
        )
    op.execute("grant select, insert on serving_profile to countersign_app")
    op.execute("grant select on serving_profile to countersign_reader")
    op.execute(OF_REGISTERED_ONLY)
    op.execute(
        "create trigger registered before insert on serving_profile "
        "for each row execute function profile_of_registered_only()"
    )
    op.execute(
        "create constraint trigger audited after insert or update or delete on serving_profile "
        "deferrable initially deferred for each row execute function require_event()"
    )
    op.execute(
        "create trigger kept before delete on serving_profile for each row execute function never_deleted()"
    )
    op.execute(
        "create trigger frozen before update on serving_profile for each row execute function only_these_change()"
    )


def downgrade() -> None:
    raise RuntimeError(
        "This migration cannot be undone: the log tells of serving profiles. Restore a backup instead."
    )
