"""Guards of retention: what may be deleted, held, lifted and shortened, whatever the rules say.

Must work beside the version of the code that is still running while it deploys.
"""

from alembic import op

revision = "2026_11_25_retention_guards"
down_revision = "2026_11_25_retention"
branch_labels = None
depends_on = None

# Table -> the columns that may still change after birth.
NEW = {
    "retention_class": (),
    "retention_setting": (),
    "tombstone": (),
    "quota": (),
    "legal_hold": ("lifted_at", "lifted_by", "lift_reason_commitment"),
}
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
    where t.state in ('queued', 'running') and (which in (t.base_version_id, t.dataset_version_id)
        or t.id = (select v.training_run_id from version v where v.id = which))  -- its next attempt goes on from there
    union all
    select 'work', 'eval-run:' || r.id from eval_run r where r.subject_id = which and r.state in ('queued', 'running')
    union all
    select 'beneath', n.ref from lineage_edge e join node n on n.id = e.child_id
    left join version v on v.id = n.id left join dataset_version d on d.id = n.id
    where e.parent_id = which and coalesce(v.state, d.state) is not null
      and not exists (select from tombstone t where t.id = n.id)
    union all
    select distinct 'beneath', n.ref from serving_profile p join version v on v.id = p.version_id join node n on n.id = v.id
    where p.base_version_id = which and not exists (select from tombstone t where t.id = v.id)
      and not exists (select from lineage_edge e where e.child_id = v.id and e.parent_id = which)  -- told above
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
-- The bytes of what was recalled come back under no new number of its line, nor bound to another base: then only the
-- configuration differs, which the registry writes, and `unbound_manifest` tells what it would be without any base.
create function not_recalled_bytes() returns trigger language plpgsql as $$
declare unbound text := new.facts ->> 'unbound_manifest';
begin
    perform from version where line_id = new.line_id and id <> new.id
        and (manifest_digest = new.manifest_digest or facts ->> 'unbound_manifest' = unbound) order by id for share;
    if exists (select from version where line_id = new.line_id and id <> new.id and state = 'recalled'
               and (manifest_digest = new.manifest_digest or facts ->> 'unbound_manifest' = unbound)) then
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
)

# What other guards say of a deleted version: it may not be named in a route, nor approved.
AMENDED = ("must_be_servable(uuid, channel)", "quorum_guard()", "route_guard()")


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '4s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    for function in FUNCTIONS:
        op.execute(function)
    _triggers()
    for function in AMENDED:
        op.execute(
            "do $$ begin execute replace(replace(pg_get_functiondef('"
            + function
            + "'::regprocedure), "
            "'(''draft'', ''recalled'')', '(''draft'', ''recalled'', ''deleted'')'), "
            "'for share) = ''recalled''', 'for share) in (''recalled'', ''deleted'')'); end $$"
        )


def _triggers() -> None:
    for table, columns in NEW.items():
        op.execute(
            f"create constraint trigger audited after insert or update or delete on {table} "
            "deferrable initially deferred for each row execute function require_event()"
        )
        op.execute(
            f"create trigger kept before delete on {table} for each row execute function never_deleted()"
        )
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
    op.execute(
        "create trigger guarded before insert on tombstone for each row execute function may_be_deleted()"
    )
    op.execute(
        "create trigger forgotten after insert on tombstone for each row execute function search_forget('id')"
    )
    op.execute(
        "create constraint trigger complete after insert on tombstone deferrable initially deferred "
        "for each row execute function burial_is_complete()"
    )
    for table in ("version", "dataset_version"):
        op.execute(
            f"create trigger buried before insert or update of state on {table} for each row "
            "when (new.state = 'deleted') execute function deleted_by_tombstone()"
        )
    op.execute(
        "create trigger anew before insert or update of state on version for each row "
        "when (new.state in ('draft', 'registered')) execute function not_recalled_bytes()"
    )
    op.execute(
        "create trigger anew before insert on dataset_version for each row execute function not_recalled_rows()"
    )
    op.execute(
        "create trigger guarded before insert on training_run for each row "
        "execute function on_what_stands('base_version_id', 'dataset_version_id')"
    )
    op.execute(
        "create trigger guarded before insert on eval_run for each row execute function on_what_stands('subject_id')"
    )


def downgrade() -> None:
    raise RuntimeError(
        "This migration cannot be undone: the log tells of deletions. Restore a backup instead."
    )
