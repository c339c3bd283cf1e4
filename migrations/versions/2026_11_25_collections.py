"""Guards of bytes: what a row names is not collected, what was collected is not named, and what a team adds fits.

Must work beside the version of the code that is still running while it deploys.
"""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_25_collections"
down_revision = "2026_11_25_retention_guards"
branch_labels = None
depends_on = None

NAMERS = (
    ("version_file", "blob_id"),
    ("dataset_version", "blob_id"),
    ("eval_suite_version", "blob_id"),
    ("eval_run", "samples_blob_id"),
    ("serving_profile", "system_prompt_id"),
)
FUNCTIONS = (
    """
-- Does any row still need these bytes? Every foreign key to blob counts, also one that comes later: only of versions
-- that bear a tombstone, and that no hold stands over, the files count no more.
create function blob_is_named(which text) returns boolean language plpgsql as $$
declare namer record; found boolean;
begin
    for namer in
        select k.conrelid::regclass as holder, a.attname as field, case k.conrelid::regclass::text
            when 'version_file' then 'version_id' when 'dataset_version' then 'id' end as owner
        from pg_constraint k join pg_attribute a on a.attrelid = k.conrelid and a.attnum = k.conkey[1]
        where k.contype = 'f' and k.confrelid = 'blob'::regclass
    loop
        execute format('select exists (select from %s n where n.%I = $1%s)', namer.holder, namer.field,
            case when namer.owner is null then '' else format(
                ' and (not exists (select from tombstone t where t.id = n.%I) or exists (select from holds_on(n.%I)))',
                namer.owner, namer.owner) end)
            into found using which;
        if found then
            return true;
        end if;
    end loop;
    return false;
end $$
""",
    """
create function collected_unnamed() returns trigger language plpgsql as $$
begin
    if blob_is_named(new.id) then
        raise exception 'the bytes % are named by a row', new.id using errcode = 'CS025';
    end if;
    return new;
end $$
""",
    """
-- A row names only bytes that are here. FOR SHARE holds them against a collection until the commit.
create function names_present_blob() returns trigger language plpgsql as $$
declare wanted text := to_jsonb(new) ->> tg_argv[0];
begin
    perform from blob where id = wanted for share;
    if exists (select from blob where id = wanted and collected_at is not null) then
        raise exception 'the bytes % were collected', wanted using errcode = 'CS025';
    end if;
    return new;
end $$
""",
    """
-- What a team uses: unique bytes and versions that bear no tombstone, data sets and drafts included.
create function team_usage(its_team text) returns table (bytes bigint, versions bigint) language sql stable as $$
    with own as (
        select v.id from version v join line l on l.id = v.line_id where l.team = its_team
        and not exists (select from tombstone t where t.id = v.id)
    ), data as (
        select v.id, v.blob_id from dataset_version v join dataset d on d.id = v.dataset_id where d.team = its_team
        and not exists (select from tombstone t where t.id = v.id)
    )
    select coalesce((select sum(b.size) from blob b where b.id in (
               select f.blob_id from version_file f join own o on o.id = f.version_id
               union select blob_id from data)), 0)::bigint,
           (select count(*) from own) + (select count(*) from data)
$$
""",
    """
-- At COMMIT, under a lock of the team's own: what came in fits the quota in force. Teams without one pay nothing.
create function within_quota() returns trigger language plpgsql as $$
declare its_team text; allowed quota; used record;
begin
    if tg_table_name = 'dataset_version' then
        select team into its_team from dataset where id = (to_jsonb(new) ->> 'dataset_id')::uuid;
    else
        select l.team into its_team from line l join version v on v.line_id = l.id
        where v.id = coalesce(to_jsonb(new) ->> 'version_id', to_jsonb(new) ->> 'id')::uuid;
    end if;
    select * into allowed from quota where team = its_team order by number desc limit 1;
    if allowed.max_bytes is null and allowed.max_versions is null then
        return null;
    end if;
    perform pg_advisory_xact_lock(hashtextextended(its_team, 11));
    select * into used from team_usage(its_team);
    if used.bytes > allowed.max_bytes or used.versions > allowed.max_versions then
        raise exception 'team % would use % bytes in % versions; its quota is % bytes and % versions', its_team,
            used.bytes, used.versions, coalesce(allowed.max_bytes::text, 'any'),
            coalesce(allowed.max_versions::text, 'any') using errcode = 'CS024';
    end if;
    return null;
end $$
""",
)


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '4s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.create_table(
        "blob_mention",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_blob_mention")),
    )
    op.execute("grant select on blob_mention to countersign_app, countersign_reader")
    op.execute("grant insert, update, delete on blob_mention to countersign_app")
    for function in FUNCTIONS:
        op.execute(function)
    op.execute("drop trigger frozen on blob")
    op.execute(
        "create trigger frozen before update on blob for each row execute function only_these_change('collected_at')"
    )
    op.execute(
        "create trigger collected before insert or update on blob for each row "
        "when (new.collected_at is not null) execute function collected_unnamed()"
    )
    for table, column in NAMERS:
        op.execute(
            f"create trigger present before insert or update of {column} on {table} for each row "
            f"when (new.{column} is not null) execute function names_present_blob('{column}')"
        )
    for table in ("version", "dataset_version", "version_file"):
        op.execute(
            f"create constraint trigger fits after insert on {table} deferrable initially deferred "
            "for each row execute function within_quota()"
        )


def downgrade() -> None:
    raise RuntimeError(
        "This migration cannot be undone: the log tells of deletions. Restore a backup instead."
    )
