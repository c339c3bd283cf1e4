-- Functions that triggers of several tables call, and the transitions of states.
--
-- The names of triggers mean the same everywhere:
--   audited     no change without an event
--   fits        within the team's quota
--   frozen      only the named columns may change
--   guarded     the table's own rule
--   kept        rows are never deleted
--   own_bytes   the actor may name these bytes
--   present     the bytes are here
--   searchable  the search rows follow
--   settled     a finished row does not change
--   stepped     only listed transitions of the state
--   voids       what rests on something older no longer stands

-- The allowed transitions of each state. Terminal states have none, so they are final.
create table transition (
    table_name text not null,
    old_state text not null,
    new_state text not null,
    constraint pk_transition primary key (table_name, old_state, new_state)
);

grant select on transition to countersign_app, countersign_reader;

insert into transition values
    ('dataset_version', '', 'draft'), ('dataset_version', 'deleted', 'recalled'),
        ('dataset_version', 'deprecated', 'deleted'), ('dataset_version', 'deprecated', 'recalled'),
        ('dataset_version', 'draft', 'deleted'), ('dataset_version', 'draft', 'recalled'),
        ('dataset_version', 'draft', 'registered'), ('dataset_version', 'registered', 'deleted'),
        ('dataset_version', 'registered', 'deprecated'),
        ('dataset_version', 'registered', 'recalled'),
    ('eval_run', '', 'queued'), ('eval_run', 'queued', 'cancelled'),
        ('eval_run', 'queued', 'running'), ('eval_run', 'running', 'cancelled'),
        ('eval_run', 'running', 'failed'), ('eval_run', 'running', 'queued'),
        ('eval_run', 'running', 'succeeded'),
    ('review', '', 'open'), ('review', 'approved', 'expired'), ('review', 'approved', 'voided'),
        ('review', 'open', 'approved'), ('review', 'open', 'changes_requested'),
        ('review', 'open', 'expired'), ('review', 'open', 'rejected'),
        ('review', 'open', 'voided'), ('review', 'open', 'withdrawn'),
    ('rollout', '', 'pending'), ('rollout', 'canary', 'aborted'), ('rollout', 'canary', 'expired'),
        ('rollout', 'canary', 'inconclusive'), ('rollout', 'canary', 'paused'),
        ('rollout', 'canary', 'promoting'), ('rollout', 'canary', 'rolled_back'),
        ('rollout', 'canary', 'superseded'), ('rollout', 'inconclusive', 'aborted'),
        ('rollout', 'inconclusive', 'canary'), ('rollout', 'inconclusive', 'expired'),
        ('rollout', 'inconclusive', 'promoting'), ('rollout', 'inconclusive', 'rolled_back'),
        ('rollout', 'inconclusive', 'superseded'), ('rollout', 'paused', 'aborted'),
        ('rollout', 'paused', 'canary'), ('rollout', 'paused', 'expired'),
        ('rollout', 'paused', 'rolled_back'), ('rollout', 'paused', 'superseded'),
        ('rollout', 'pending', 'aborted'), ('rollout', 'pending', 'canary'),
        ('rollout', 'pending', 'expired'), ('rollout', 'pending', 'rolled_back'),
        ('rollout', 'pending', 'shadowing'), ('rollout', 'pending', 'superseded'),
        ('rollout', 'promoting', 'aborted'), ('rollout', 'promoting', 'expired'),
        ('rollout', 'promoting', 'rolled_back'), ('rollout', 'promoting', 'succeeded'),
        ('rollout', 'promoting', 'superseded'), ('rollout', 'shadowing', 'aborted'),
        ('rollout', 'shadowing', 'canary'), ('rollout', 'shadowing', 'expired'),
        ('rollout', 'shadowing', 'rolled_back'), ('rollout', 'shadowing', 'superseded'),
    ('training_run', '', 'queued'), ('training_run', 'queued', 'cancelled'),
        ('training_run', 'queued', 'running'), ('training_run', 'running', 'cancelled'),
        ('training_run', 'running', 'failed'), ('training_run', 'running', 'queued'),
        ('training_run', 'running', 'succeeded'),
    ('version', '', 'draft'), ('version', 'deleted', 'recalled'),
        ('version', 'deprecated', 'deleted'), ('version', 'deprecated', 'recalled'),
        ('version', 'draft', 'deleted'), ('version', 'draft', 'recalled'),
        ('version', 'draft', 'registered'), ('version', 'registered', 'deleted'),
        ('version', 'registered', 'deprecated'), ('version', 'registered', 'recalled');

create function deleted_by_tombstone() returns trigger language plpgsql as $$
-- A deleted version has a tombstone.
begin
    if not exists (select from tombstone where id = new.id) then
        raise exception '% has no tombstone', new.id using errcode = 'CS002';
    end if;
    return new;
end $$;

create function holds_on(which uuid) returns setof integer language sql stable as $$
    -- The numbers of the holds over a version: its own, those of its line, and those over anything
    -- that derives from it.
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
$$;

create function legal_transition() returns trigger language plpgsql as $$
-- A state changes only as the table transition lists.
declare was text := case when tg_op = 'INSERT' then '' else old.state end;
begin
    if was is distinct from new.state and not exists (
        select 1 from transition
        where table_name = tg_table_name and old_state = was and new_state = new.state
    ) then
        raise exception '% cannot go from % to %', replace(tg_table_name, '_', ' '),
            case was when '' then 'nothing' else was end, new.state using errcode = 'CS002';
    end if;
    return new;
end $$;

create function teams_naming(which text, but uuid) returns table(team text) language sql stable as
$$
    -- The teams whose rows name these bytes, without the rows of one node. A new foreign key to
    -- blob must be added here.
    select l.team from version_file f join version v on v.id = f.version_id
        join line l on l.id = v.line_id
    where f.blob_id = which and f.version_id <> but
    union select n.team from dataset_version r join node n on n.id = r.id
        where r.blob_id = which and r.id <> but
    union select n.team from eval_suite_version r join node n on n.id = r.id
        where r.blob_id = which and r.id <> but
    union select n.team from eval_suite_version r join node n on n.id = r.id
        where r.prompts_blob_id = which and r.id <> but
    union select n.team from eval_run r join node n on n.id = r.id
        where r.samples_blob_id = which and r.id <> but
    union select n.team from training_run r join node n on n.id = r.dataset_version_id
        where r.rows_blob_id = which and r.id <> but
    union select n.team from serving_profile r join node n on n.id = r.version_id
        where r.system_prompt_id = which and r.id <> but
$$;

create function names_own_blob() returns trigger language plpgsql as $$
-- A digest alone gives no access to another team's bytes. The check runs at COMMIT, when the event
-- tells the actor. Events of the registry itself have no actor, and are not checked: the registry
-- moves nothing between teams.
declare
    wanted text := to_jsonb(new) ->> tg_argv[0];
    its_own uuid := (to_jsonb(new) ->> case tg_table_name
        when 'version_file' then 'version_id' else 'id' end)::uuid;
    acting uuid;
begin
    select e.actor_id into acting from event_row r join event e on e.id = r.event_id
    where r.txid = pg_current_xact_id() and r.table_name = tg_table_name
        and r.row_key = to_jsonb(new) ->> 'id';
    if acting is null or exists (
        select from blob_sender where id = wanted and account_id = acting and whole
    ) then
        return null;
    end if;
    if exists (select from teams_naming(wanted, its_own)) and not exists (
        select from teams_naming(wanted, its_own) t join role_grant g on g.account_id = acting
        and (g.team is null or g.team = t.team or g.role in ('admin', 'reviewer', 'auditor'))
    ) then
        raise exception 'the bytes sha256:% are not here, or this account may not name them', wanted
            using errcode = 'CS025';
    end if;
    return null;
end $$;

create function names_present_blob() returns trigger language plpgsql as $$
-- A row names only bytes that are here. FOR SHARE prevents their collection until the commit.
declare wanted text := to_jsonb(new) ->> tg_argv[0];
begin
    perform from blob where id = wanted for share;
    if exists (select from blob where id = wanted and collected_at is not null) then
        raise exception 'the bytes % were collected', wanted using errcode = 'CS025';
    end if;
    return new;
end $$;

create function never_deleted() returns trigger language plpgsql as $$
-- Governed rows are evidence, so they are never deleted.
begin
    raise exception 'rows of % are never deleted', tg_table_name using errcode = 'CS003';
end $$;

create function on_what_stands() returns trigger language plpgsql as $$
-- Work can only be requested on versions that are not deleted. Their rows are locked FOR SHARE, so
-- that no deletion comes before the commit. The arguments name the columns.
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
end $$;

create function one_keeper() returns void language sql as $$
    -- Deletions and new holds run one at a time, so that each sees those before it.
    select pg_advisory_xact_lock(hashtextextended('keeping', 7))
$$;

create function only_these_change() returns trigger language plpgsql as $$
-- Only the columns named as arguments may change. Without arguments tg_argv is null, not empty.
declare free text[] := coalesce(tg_argv, '{}');
begin
    if (to_jsonb(new) - free) is distinct from (to_jsonb(old) - free) then
        raise exception 'the row % of % is frozen', to_jsonb(old) ->> 'id', tg_table_name
            using errcode = 'CS003';
    end if;
    return new;
end $$;

create function recall_is_complete() returns trigger language plpgsql as $$
-- At COMMIT: nothing that was recalled, nor anything derived from it, is still registered,
-- under review, approved, serving or being rolled out.
declare standing uuid;
begin
    with recursive fallen(id) as (
        select new.id
        union
        select e.child_id from lineage_edge e join fallen f on e.parent_id = f.id
    )
    select f.id into standing from fallen f where
        exists (select 1 from version v where v.id = f.id
            and v.state in ('registered', 'deprecated'))
        or exists (select 1 from route_generation g where g.valid_to is null
                   and (g.stable_version_id = f.id or g.candidate_version_id = f.id))
        or exists (select 1 from rollout r where r.version_id = f.id and r.ended_at is null)
        or exists (select 1 from review r where r.version_id = f.id
                   and r.state in ('open', 'approved'))
    limit 1;
    if standing is not null then
        raise exception '% was recalled, but % is still in use', new.id, standing
            using errcode = 'CS004';
    end if;
    return null;
end $$;

create function require_event() returns trigger language plpgsql as $$
-- At COMMIT: every changed row of a governed table is named by an event of the same transaction.
declare touched text := coalesce(to_jsonb(new), to_jsonb(old)) ->> 'id';
begin
    if not exists (
        select 1 from event_row
        where txid = pg_current_xact_id() and table_name = tg_table_name and row_key = touched
    ) then
        raise exception 'the row % of % changed without an audit event that names it', touched,
            tg_table_name using errcode = 'CS001', constraint = 'audited';
    end if;
    return null;
end $$;

create function search_measure(which uuid) returns void language sql
    security definer set search_path = public, pg_temp as $$
    -- Store, for each metric, the value of the version's newest succeeded eval run.
    insert into version_metric (version_id, name, value)
    select distinct on (m.name) r.subject_id, m.name, m.value
    from eval_run r join eval_metric m on m.eval_run_id = r.id
    where r.subject_id = which and r.state = 'succeeded' order by m.name, r.finished_at desc
    on conflict (version_id, name) do update set value = excluded.value
$$;

create function search_refresh(which uuid) returns void language sql
    security definer set search_path = public, pg_temp as $$
    -- Rebuild the search row of one version from the governed rows. An era that this transaction
    -- does not see yet is inserted without waiting for others: a duplicate does no harm, but a
    -- deadlock would.
    insert into version_search
        (id, created_at, team, line, number, seq, deleted, words, facets, terms)
    select id, created_at, team, line, number, seq, deleted, words, facets, terms
    from search_row where id = which
    on conflict (id) do update set created_at = excluded.created_at, number = excluded.number,
        seq = excluded.seq, deleted = excluded.deleted, words = excluded.words,
        facets = excluded.facets, terms = excluded.terms;
    insert into search_era (term, era)
    select distinct term, s.seq >> 12 from version_search s, unnest(s.terms) as unnest(term)
    where s.id = which and term !~ '^(g|era|line|name):'
    and not exists (select 1 from search_era e where e.term = unnest.term and e.era = s.seq >> 12);
$$;

create function search_follow() returns trigger language plpgsql
    security definer set search_path = public, pg_temp as $$
-- Update the search rows. The argument names the column with the version's id.
begin
    if tg_table_name = 'eval_metric' then
        perform search_measure((select subject_id from eval_run where id = new.eval_run_id));
    elsif tg_table_name = 'eval_run' then
        perform search_measure(new.subject_id);
    else
        perform search_refresh((to_jsonb(new) ->> tg_argv[0])::uuid);
    end if;
    return null;
end $$;

create function team_usage(its_team text)
    returns table(bytes bigint, versions bigint) language sql stable as $$
    -- What a team uses: unique bytes, and versions without a tombstone, including data set versions
    -- and drafts.
    with own as (
        select v.id from version v join line l on l.id = v.line_id where l.team = its_team
        and not exists (select from tombstone t where t.id = v.id)
    ), data as (
        select v.id, v.blob_id from dataset_version v join dataset d on d.id = v.dataset_id
        where d.team = its_team and not exists (select from tombstone t where t.id = v.id)
    )
    select coalesce((select sum(b.size) from blob b where b.id in (
               select f.blob_id from version_file f join own o on o.id = f.version_id
               union select blob_id from data)), 0)::bigint,
           (select count(*) from own) + (select count(*) from data)
$$;

create function within_quota() returns trigger language plpgsql as $$
-- At COMMIT, under the team's lock: what was added fits into the quota in force. For a team without
-- a quota nothing is summed.
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
        raise exception
            'team % would use % bytes in % versions; its quota is % bytes and % versions',
            its_team, used.bytes, used.versions, coalesce(allowed.max_bytes::text, 'any'),
            coalesce(allowed.max_versions::text, 'any') using errcode = 'CS024';
    end if;
    return null;
end $$;
