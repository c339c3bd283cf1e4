"""Retention: classes and where they hold, legal holds, tombstones, collected bytes, quotas; and the guards of all five.

Must work beside the version of the code that is still running while it deploys.
"""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_25_retention"
down_revision = "2026_11_23_tags"
branch_labels = None
depends_on = None

# Table -> the columns that may still change after birth.
NEW = {
    "retention_class": (), "retention_setting": (), "tombstone": (), "quota": (),
    "legal_hold": ("lifted_at", "lifted_by", "lift_reason_commitment"),
}  # fmt: skip
STEPS = (("draft", "deleted"), ("registered", "deleted"), ("deprecated", "deleted"), ("deleted", "recalled"))
NAMERS = (
    ("version_file", "blob_id"), ("dataset_version", "blob_id"), ("eval_suite_version", "blob_id"),
    ("eval_run", "samples_blob_id"), ("serving_profile", "system_prompt_id"),
)  # fmt: skip

FUNCTIONS = (
    """
-- Deletions and new holds go one at a time: each sees all that the ones before it did.
create function one_keeper() returns void language sql as $$
    select pg_advisory_xact_lock(hashtextextended('keeping', 7))
$$
""",
    """
-- The numbers of the holds that stand over a thing: its own, its line's, and those over whatever stands on it.
create function holds_on(which uuid) returns setof integer language sql stable as $$
    with recursive below(id) as (
        select which
        union
        select n.id from below b cross join lateral (
            select e.child_id as id from lineage_edge e where e.parent_id = b.id
            union all
            select v.id from version v where v.base_version_id = b.id
        ) n
    )
    select h.number from legal_hold h where h.lifted_at is null and (
        h.node_id in (select id from below)
        or h.line_id in (select v.line_id from version v join below b on b.id = v.id)
        or h.dataset_id in (select d.dataset_id from dataset_version d join below b on b.id = d.id)
    ) order by h.number
$$
""",
    """
-- The class a line or a data set is under at a moment: its own setting, else its team's, else none of them.
create function class_of(its_team text, its_kind text, its_name text, at timestamptz) returns uuid
language sql stable as $$
    select s.class_id from retention_setting s
    where s.team = its_team and s.set_at <= at and (s.kind is null or (s.kind = its_kind and s.name = its_name))
    order by s.kind is null, s.number desc limit 1
$$
""",
    """
-- Every term a version has been under since it was registered. A class set later adds to them and takes none away.
create function retention_terms(which uuid)
returns table (class text, keep_days integer, counted_from text, after text, since timestamptz) language sql stable as $$
    with it as (
        select l.team, 'line' as kind, l.name, coalesce(v.registered_at, v.created_at) as since
        from version v join line l on l.id = v.line_id where v.id = which
        union all
        select d.team, 'dataset', d.name, coalesce(v.registered_at, v.created_at)
        from dataset_version v join dataset d on d.id = v.dataset_id where v.id = which
    ), named as (
        select class_of(it.team, it.kind, it.name, it.since) as class_id from it
        union
        select s.class_id from it join retention_setting s on s.team = it.team and s.set_at > it.since
        where (s.kind = it.kind and s.name = it.name) or (s.kind is null and not exists (
            select from retention_setting own
            where own.team = it.team and own.kind = it.kind and own.name = it.name and own.set_at <= s.set_at))
    )
    select coalesce(c.name, 'standard'), coalesce(c.keep_days, s.keep_days, 184),
        coalesce(c.counted_from, s.counted_from, 'service'), coalesce(c.after, s.after, 'may-go'), it.since
    from it cross join named n left join retention_class c on c.id = n.class_id
    left join retention_class s on n.class_id is null and s.name = 'standard'
$$
""",
    """
-- When a thing last served: itself, or beneath what served on it. Null when it never did.
create function service_end(which uuid) returns timestamptz language sql stable as $$
    select max(coalesce(g.valid_to, clock_timestamp())) from route_generation g join channel c on c.id = g.channel_id
    where which in (g.stable_version_id, g.candidate_version_id, c.base_version_id)
$$
""",
    """
create function kept_until(which uuid) returns timestamptz language sql stable as $$
    select max(case t.counted_from when 'service' then greatest(t.since, service_end(which)) else t.since end
               + t.keep_days * interval '24 hours')
    from retention_terms(which) t
$$
""",
    """
-- What still needs a thing, as (why, what): what serves, may be gone back to, is being decided, made or measured, and
-- what stands on it. The rule asks this same function, to say it better.
create function needs(which uuid) returns table (why text, what text) language sql stable as $$
    select 'serves', l.team || '/' || l.name || ' in ' || c.environment || ' (channel ' || c.name || ')'
    from route_generation g join channel c on c.id = g.channel_id join line l on l.id = c.line_id
    where g.valid_to is null
      and (which in (g.stable_version_id, g.candidate_version_id)
           or (c.base_version_id = which and g.stable_version_id is not null))
    union all
    select 'rollout', l.team || '/' || l.name || ' in ' || c.environment || ' (channel ' || c.name || ')'
    from rollout r join channel c on c.id = r.channel_id join line l on l.id = c.line_id
    where r.ended_at is null and which in (r.version_id, r.rollback_target_id)
    union all
    select distinct 'rollback', l.team || '/' || l.name || ' in ' || c.environment || ' (channel ' || c.name || ')'
    from route_generation g join channel c on c.id = g.channel_id join line l on l.id = c.line_id
    join review r on r.version_id = which and r.environment = c.environment
    where g.stable_version_id = which and r.state = 'approved' and r.expires_at > clock_timestamp()
    union all
    select 'review', r.number::text from review r where r.version_id = which and r.state = 'open'
    union all
    select 'work', 'training-run:' || t.id from training_run t
    where which in (t.base_version_id, t.dataset_version_id) and t.state in ('queued', 'running')
    union all
    select 'work', 'eval-run:' || r.id from eval_run r where r.subject_id = which and r.state in ('queued', 'running')
    union all
    select 'beneath', n.ref from lineage_edge e join node n on n.id = e.child_id
    left join version v on v.id = n.id left join dataset_version d on d.id = n.id
    where e.parent_id = which and coalesce(v.state, d.state) is not null
      and not exists (select from tombstone t where t.id = n.id)
    union all
    select 'beneath', n.ref from serving_profile p join version v on v.id = p.version_id join node n on n.id = v.id
    where p.base_version_id = which and not exists (select from tombstone t where t.id = v.id)
$$
""",
    """
-- A tombstone is set only over what nothing holds, keeps or needs. The row is locked first and tested after: whoever
-- names it in a route, a review, a run or an edge holds it FOR SHARE, and either is seen here or sees it deleted.
create function may_be_deleted() returns trigger language plpgsql as $$
declare stands text; held integer; until timestamptz; need record;
begin
    perform one_keeper();
    select state into stands from version where id = new.id for update;
    if stands is null then
        select state into stands from dataset_version where id = new.id for update;
    end if;
    if stands is null or stands = 'deleted' or stands <> new.was or (stands = 'draft') = (new.how = 'deleted') then
        raise exception '% cannot be % as it is %', new.id, new.how, coalesce(stands, 'no version')
            using errcode = 'CS002';
    end if;
    select h into held from holds_on(new.id) h limit 1;
    if held is not null then
        raise exception 'hold % stands over %: nothing it covers is deleted', held, new.id using errcode = 'CS021';
    end if;
    if stands = 'draft' then
        return new;
    end if;
    until := kept_until(new.id);
    if until > clock_timestamp() then
        raise exception '% is kept until %', new.id, until using errcode = 'CS022';
    end if;
    select * into need from needs(new.id) limit 1;
    if need.why is not null then
        raise exception '% is needed (%: %)', new.id, need.why, need.what using errcode = 'CS023';
    end if;
    return new;
end $$
""",
    """
-- At COMMIT: what bears a tombstone is deleted or recalled, and approved nowhere.
create function burial_is_complete() returns trigger language plpgsql as $$
begin
    if not exists (select from version where id = new.id and state in ('deleted', 'recalled')
                   union all
                   select from dataset_version where id = new.id and state in ('deleted', 'recalled'))
        or exists (select from review where version_id = new.id and state = 'approved') then
        raise exception '% bears a tombstone, but still stands', new.id using errcode = 'CS002';
    end if;
    return null;
end $$
""",
    """
create function deleted_by_tombstone() returns trigger language plpgsql as $$
begin
    if not exists (select from tombstone where id = new.id) then
        raise exception '% has no tombstone', new.id using errcode = 'CS002';
    end if;
    return new;
end $$
""",
    """
-- The bytes of what was recalled come back under no new number of its line.
create function not_recalled_bytes() returns trigger language plpgsql as $$
begin
    perform from version where line_id = new.line_id and manifest_digest = new.manifest_digest order by id for share;
    if exists (select from version
               where line_id = new.line_id and manifest_digest = new.manifest_digest and state = 'recalled') then
        raise exception 'these bytes were recalled' using errcode = 'CS010';
    end if;
    return new;
end $$
""",
    """
create function not_recalled_rows() returns trigger language plpgsql as $$
begin
    perform from dataset_version where dataset_id = new.dataset_id and blob_id = new.blob_id order by id for share;
    if exists (select from dataset_version
               where dataset_id = new.dataset_id and blob_id = new.blob_id and state = 'recalled') then
        raise exception 'these rows were recalled' using errcode = 'CS010';
    end if;
    return new;
end $$
""",
    """
-- Work is asked for only on what was not deleted; held FOR SHARE, so that no deletion slips in before the commit.
create function on_what_stands() returns trigger language plpgsql as $$
declare gone uuid; wanted uuid[];
begin
    select array_agg((to_jsonb(new) ->> c)::uuid) into wanted from unnest(tg_argv) c;
    perform from version where id = any(wanted) order by id for share;
    perform from dataset_version where id = any(wanted) order by id for share;
    select id into gone from tombstone where id = any(wanted) limit 1;
    if gone is not null then
        raise exception '% was deleted', gone using errcode = 'CS010';
    end if;
    return new;
end $$
""",
    """
create function hold_guard() returns trigger language plpgsql as $$
begin
    perform one_keeper();
    if tg_op = 'UPDATE' and not exists (
        select from role_grant where account_id = new.lifted_by and role = 'reviewer'
    ) then
        raise exception 'hold % is lifted by a reviewer or not at all', new.number using errcode = 'CS021';
    end if;
    return new;
end $$
""",
    """
-- A line, a data set or a team comes under a shorter class only by an administrator.
create function setting_guard() returns trigger language plpgsql as $$
declare present retention_class; wanted retention_class;
begin
    perform one_keeper();
    select * into wanted from retention_class where id = new.class_id;
    select * into present from retention_class
    where id = class_of(new.team, new.kind, new.name, 'infinity');
    if present.id is null then
        select * into present from retention_class where name = 'standard';
    end if;
    if (wanted.keep_days < present.keep_days
        or (wanted.counted_from = 'registration' and present.counted_from = 'service'))
        and not exists (select from role_grant where account_id = new.set_by and role = 'admin') then
        raise exception 'only an administrator shortens what is kept' using errcode = 'CS026';
    end if;
    return new;
end $$
""",
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

# What other guards say of a deleted version: it may not be named in a route, nor approved.
AMENDED = ("must_be_servable(uuid, channel)", "quorum_guard()", "route_guard()")


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
        sa.CheckConstraint("counted_from in ('registration', 'service')", name=op.f("ck_retention_class_counted_from")),
        sa.CheckConstraint("keep_days between 0 and 36500 and draft_days between 1 and 3650",
                           name=op.f("ck_retention_class_days")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_retention_class")),
        sa.UniqueConstraint("name", name=op.f("uq_retention_class_name")),
    )  # fmt: skip
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
        sa.CheckConstraint("(kind is null) = (name is null)", name=op.f("ck_retention_setting_scope")),
        sa.ForeignKeyConstraint(["class_id"], ["retention_class.id"], name=op.f("fk_retention_setting_class_id")),
        sa.ForeignKeyConstraint(["set_by"], ["account.id"], name=op.f("fk_retention_setting_set_by")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_retention_setting")),
        sa.UniqueConstraint("number", name=op.f("uq_retention_setting_number")),
    )
    op.create_index("ix_retention_setting_scope", "retention_setting", ["team", "kind", "name"], unique=False)
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
        sa.CheckConstraint("num_nonnulls(node_id, line_id, dataset_id) = 1", name=op.f("ck_legal_hold_one_thing")),
        sa.CheckConstraint("num_nonnulls(lifted_by, lifted_at, lift_reason_commitment) in (0, 3)",
                           name=op.f("ck_legal_hold_lifted")),
        sa.CheckConstraint("lifted_by <> placed_by", name=op.f("ck_legal_hold_four_eyes")),
        sa.ForeignKeyConstraint(["dataset_id"], ["dataset.id"], name=op.f("fk_legal_hold_dataset_id")),
        sa.ForeignKeyConstraint(["lifted_by"], ["account.id"], name=op.f("fk_legal_hold_lifted_by")),
        sa.ForeignKeyConstraint(["line_id"], ["line.id"], name=op.f("fk_legal_hold_line_id")),
        sa.ForeignKeyConstraint(["node_id"], ["node.id"], name=op.f("fk_legal_hold_node_id")),
        sa.ForeignKeyConstraint(["placed_by"], ["account.id"], name=op.f("fk_legal_hold_placed_by")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_legal_hold")),
        sa.UniqueConstraint("number", name=op.f("uq_legal_hold_number")),
    )  # fmt: skip
    op.create_index("ix_legal_hold_standing", "legal_hold", ["number"], unique=False,
                    postgresql_where=sa.text("lifted_at is null"))  # fmt: skip
    op.create_table(
        "tombstone",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("how", sa.Text(), nullable=False),
        sa.Column("was", sa.Text(), nullable=False),
        sa.Column("reason_commitment", sa.Text(), nullable=False),
        sa.Column("deleted_by", sa.Uuid(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("how in ('deleted', 'discarded', 'expired')", name=op.f("ck_tombstone_how")),
        sa.CheckConstraint("was in ('draft', 'registered', 'deprecated', 'recalled')", name=op.f("ck_tombstone_was")),
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
    for function in FUNCTIONS:
        op.execute(function)
    _triggers()
    for function in AMENDED:
        op.execute(
            "do $$ begin execute replace(replace(pg_get_functiondef('" + function + "'::regprocedure), "
            "'(''draft'', ''recalled'')', '(''draft'', ''recalled'', ''deleted'')'), "
            "'for share) = ''recalled''', 'for share) in (''recalled'', ''deleted'')'); end $$"
        )
    op.execute(f"grant select on {', '.join(NEW)} to countersign_app, countersign_reader")
    op.execute(f"grant insert on {', '.join(NEW)} to countersign_app")
    op.execute("grant update on legal_hold to countersign_app")


def _states() -> None:
    """A new state, `deleted`: bytes may be registered again, numbers never."""
    for table, of in (("version", ("line_id", "manifest_digest")), ("dataset_version", ("dataset_id", "blob_id"))):
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
            op.execute(f"-- squawk-ignore ban-drop-constraint\nalter table {table} drop constraint ck_{table}_{name}")
            op.execute("-- squawk-ignore constraint-missing-not-valid\n"
                       f"alter table {table} add constraint ck_{table}_{name} check ({said})")  # fmt: skip
        unique = f"uq_{table}_{of[0]}_{of[1]}"
        op.execute(f"-- squawk-ignore ban-drop-constraint\nalter table {table} drop constraint {unique}")
        op.execute("-- squawk-ignore require-concurrent-index-creation\n"
                   f"create unique index {unique} on {table} ({', '.join(of)}) "
                   "where state in ('draft', 'registered', 'deprecated')")  # fmt: skip
        rows = ", ".join(f"('{table}', '{old}', '{new}')" for old, new in STEPS)
        op.execute(f"insert into transition values {rows}")


def _triggers() -> None:
    for table, columns in NEW.items():
        op.execute(
            f"create constraint trigger audited after insert or update or delete on {table} "
            "deferrable initially deferred for each row execute function require_event()"
        )
        op.execute(f"create trigger kept before delete on {table} for each row execute function never_deleted()")
        arguments = ", ".join(f"'{column}'" for column in columns)
        op.execute(
            f"create trigger frozen before update on {table} for each row execute function only_these_change({arguments})"
        )
    op.execute(
        "create trigger settled before update on legal_hold for each row when (old.lifted_at is not null) "
        "execute function only_these_change()"
    )
    op.execute(
        "create trigger guarded before insert or update on legal_hold for each row execute function hold_guard()"
    )
    op.execute(
        "create trigger guarded before insert on retention_setting for each row execute function setting_guard()"
    )
    op.execute("create trigger guarded before insert on tombstone for each row execute function may_be_deleted()")
    op.execute("create trigger forgotten after insert on tombstone for each row execute function search_forget('id')")
    op.execute(
        "create constraint trigger complete after insert on tombstone deferrable initially deferred "
        "for each row execute function burial_is_complete()"
    )
    for table, function in (("version", "not_recalled_bytes"), ("dataset_version", "not_recalled_rows")):
        op.execute(
            f"create trigger buried before insert or update of state on {table} for each row "
            "when (new.state = 'deleted') execute function deleted_by_tombstone()"
        )
        op.execute(f"create trigger anew before insert on {table} for each row execute function {function}()")
    op.execute(
        "create trigger guarded before insert on training_run for each row "
        "execute function on_what_stands('base_version_id', 'dataset_version_id')"
    )
    op.execute(
        "create trigger guarded before insert on eval_run for each row execute function on_what_stands('subject_id')"
    )
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
    raise RuntimeError("This migration cannot be undone: the log tells of deletions. Restore a backup instead.")
