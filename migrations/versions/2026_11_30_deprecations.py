"""Deprecations and their guards; no line is named like a version of another.

Must work beside the version of the code that is still running while it deploys: that deprecates
nothing, and refuses such names itself at every door but one.
"""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_30_deprecations"
down_revision = "2026_11_26_retention"
branch_labels = None
depends_on = None

FUNCTIONS = (
    """
-- Only what is registered is deprecated. The row is locked first and tested after.
create function may_be_deprecated() returns trigger language plpgsql as $$
declare stands text;
begin
    select state into stands from version where id = new.id for update;
    if stands is null then
        select state into stands from dataset_version where id = new.id for update;
    end if;
    if stands is distinct from 'registered' then
        raise exception '% cannot be deprecated as it is %', new.id, coalesce(stands, 'no version')
            using errcode = 'CS002';
    end if;
    return new;
end $$
""",
    """
-- At COMMIT: what has a deprecation is in that state, or was recalled or deleted since.
create function deprecation_is_complete() returns trigger language plpgsql as $$
begin
    if exists (select from version where id = new.id and state = 'registered'
               union all
               select from dataset_version where id = new.id and state = 'registered') then
        raise exception '% has a deprecation, but is still registered', new.id
            using errcode = 'CS002';
    end if;
    return null;
end $$
""",
    """
create function deprecated_with_reason() returns trigger language plpgsql as $$
begin
    if not exists (select from deprecation where id = new.id) then
        raise exception '% has no deprecation, which holds the reason', new.id
            using errcode = 'CS002';
    end if;
    return new;
end $$
""",
    """
-- No rollout of a deprecated version starts. Locked FOR SHARE, so that no deprecation slips in
-- before the commit.
create function starts_what_is_current() returns trigger language plpgsql as $$
begin
    if (select state from version where id = new.version_id for share) = 'deprecated' then
        raise exception 'version % is deprecated: no new rollout of it may start', new.version_id
            using errcode = 'CS004';
    end if;
    return new;
end $$
""",
    """
-- Nor does a route take one as its candidate; a candidate that was deprecated since may stay.
create function candidate_is_current() returns trigger language plpgsql as $$
begin
    if (select state from version where id = new.candidate_version_id for share) = 'deprecated'
        and new.candidate_version_id is distinct from (
            select candidate_version_id from route_generation
            where channel_id = new.channel_id and generation = new.generation - 1
        ) then
        raise exception 'version % is deprecated: it becomes no candidate', new.candidate_version_id
            using errcode = 'CS004';
    end if;
    return new;
end $$
""",
)


def upgrade() -> None:
    # Give up quickly rather than queue every writer behind a waiting lock.
    op.execute("SET LOCAL lock_timeout = '4s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.create_table(
        "deprecation",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("reason_commitment", sa.Text(), nullable=False),
        sa.Column("deprecated_by", sa.Uuid(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["id"], ["node.id"], name=op.f("fk_deprecation_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deprecation")),
    )
    op.execute("grant select on deprecation to countersign_app, countersign_reader")
    op.execute("grant insert on deprecation to countersign_app")
    # Validated at once: lines are few, and one of such a name must be renamed before, by a person.
    op.execute(
        "-- squawk-ignore constraint-missing-not-valid\n"
        "alter table line add constraint ck_line_name check (name !~ '^(.+)\\.v([1-9][0-9]{0,8})$')"
    )
    for function in FUNCTIONS:
        op.execute(function)
    _triggers()


def _triggers() -> None:
    op.execute(
        "create constraint trigger audited after insert or update or delete on deprecation "
        "deferrable initially deferred for each row execute function require_event()"
    )
    op.execute(
        "create trigger kept before delete on deprecation for each row "
        "execute function never_deleted()"
    )
    op.execute(
        "create trigger frozen before update on deprecation for each row "
        "execute function only_these_change()"
    )
    op.execute(
        "create trigger guarded before insert on deprecation for each row "
        "execute function may_be_deprecated()"
    )
    op.execute(
        "create constraint trigger complete after insert on deprecation deferrable "
        "initially deferred for each row execute function deprecation_is_complete()"
    )
    for table in ("version", "dataset_version"):
        op.execute(
            f"create trigger deprecated before insert or update of state on {table} for each row "
            "when (new.state = 'deprecated') execute function deprecated_with_reason()"
        )
    op.execute(
        "create trigger current before insert on rollout for each row "
        "execute function starts_what_is_current()"
    )
    op.execute(
        "create trigger current before insert on route_generation for each row "
        "when (new.candidate_version_id is not null) execute function candidate_is_current()"
    )


def downgrade() -> None:
    raise RuntimeError(
        "This migration cannot be undone: the log tells of deprecations. Restore a backup instead."
    )
