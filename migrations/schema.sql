-- The schema as the migrations make it. `make schema` writes this file; change it by a migration.
-- A function that triggers of several nouns call stands under guards, any other above the first
-- trigger that calls it. A comment at the top of a function says why it is there.

create extension btree_gist;
set check_function_bodies = off;
revoke all on schema public from public;
grant usage on schema public to countersign_app;
grant usage on schema public to countersign_reader;
grant usage on schema public to countersign_sequencer;


-- guards

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
        ('review', 'open', 'expired'), ('review', 'open', 'rejected'), ('review', 'open', 'voided'),
        ('review', 'open', 'withdrawn'),
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

create function deprecated_with_reason() returns trigger language plpgsql as $$
-- A deprecated version has a deprecation, which contains the reason.
begin
    if not exists (select from deprecation where id = new.id) then
        raise exception '% has no deprecation, which contains the reason', new.id
            using errcode = 'CS002';
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


-- log

create table event (
    id uuid not null,
    place bigint generated always as identity not null,
    txid xid8 default pg_current_xact_id() not null,
    at timestamptz not null,
    actor_id uuid,
    action text not null,
    subject text not null,
    team text,
    outcome text not null,
    entry bytea not null,
    constraint pk_event primary key (id),
    constraint uq_event_id_txid unique (id, txid),
    constraint uq_event_place unique (place),
    constraint ck_event_outcome check (outcome in ('done', 'refused'))
);
create index ix_event_action on event (action, place);
create index ix_event_subject on event (subject, place);

create function append_only() returns trigger language plpgsql as $$
-- Entries are only added to the log.
begin
    raise exception 'the log is append-only: % of % refused', lower(tg_op), tg_table_name
        using errcode = 'CS008';
end $$;

create function queue_event() returns trigger language plpgsql
    security definer set search_path = public, pg_temp as $$
-- Put every new event into the outbox, where it waits for its number. The function runs as its
-- owner, because the app may not write to the outbox.
begin
    insert into event_pending (place, event_id) values (new.place, new.id);
    return null;
end $$;

create trigger append_only before delete or update or truncate on event for each statement
    execute function append_only();
create trigger queued after insert on event for each row execute function queue_event();
grant select on event to countersign_reader, countersign_sequencer;
grant select, insert (id, at, actor_id, action, subject, team, outcome, entry) on event to
    countersign_app;
grant usage on sequence event_place_seq to countersign_app;

create table event_row (
    txid xid8 default pg_current_xact_id() not null,
    table_name text not null,
    row_key text not null,
    event_id uuid not null,
    constraint pk_event_row primary key (txid, table_name, row_key),
    constraint fk_event_row_event_id_txid foreign key (event_id, txid) references event(id, txid)
);
create index ix_event_row_event_id on event_row (event_id);

create trigger append_only before delete or update or truncate on event_row for each statement
    execute function append_only();
grant select on event_row to countersign_reader;
grant select, insert (table_name, row_key, event_id) on event_row to countersign_app;

create table event_pending (
    place bigint not null,
    event_id uuid not null,
    constraint pk_event_pending primary key (place),
    constraint fk_event_pending_event_id foreign key (event_id) references event(id)
);

grant select on event_pending to countersign_app, countersign_reader;
grant select, update, delete on event_pending to countersign_sequencer;

create table leaf (
    seq bigint not null,
    event_id uuid not null,
    hash bytea not null,
    constraint pk_leaf primary key (seq),
    constraint uq_leaf_event_id unique (event_id),
    constraint fk_leaf_event_id foreign key (event_id) references event(id),
    constraint ck_leaf_shape check (seq >= 0 and octet_length(hash) = 32)
);

create trigger append_only before delete or update or truncate on leaf for each statement
    execute function append_only();
grant select on leaf to countersign_app, countersign_reader;
grant select, insert on leaf to countersign_sequencer;

create table tree_head (
    size bigint not null,
    root text not null,
    frontier bytea[] not null,
    note text,
    made_at timestamptz not null,
    constraint pk_tree_head primary key (size),
    constraint ck_tree_head_root check (root ~ '^sha256:[0-9a-f]{64}$')
);

create trigger append_only before delete or truncate on tree_head for each statement
    execute function append_only();
create trigger noted_once before update on tree_head for each row when (old.note is not null)
    execute function append_only();
grant select on tree_head to countersign_app, countersign_reader;
grant select, insert, update (note) on tree_head to countersign_sequencer;

create table personal (
    commitment text not null,
    kind text not null,
    salt bytea not null,
    value text not null,
    constraint pk_personal primary key (commitment),
    constraint ck_personal_commitment check (commitment ~ '^sha256:[0-9a-f]{64}$')
);
create unique index uq_personal_account_name on personal (value) where kind = 'account';

grant select, insert, delete on personal to countersign_app;


-- people

create table account (
    id uuid not null,
    kind text not null,
    name_commitment text not null,
    created_at timestamptz not null,
    constraint pk_account primary key (id),
    constraint uq_account_name_commitment unique (name_commitment),
    constraint ck_account_commitment check (name_commitment ~ '^sha256:[0-9a-f]{64}$'),
    constraint ck_account_kind check (kind in ('person', 'service'))
);

create constraint trigger audited after insert or delete or update on account
    deferrable initially deferred for each row execute function require_event();
create trigger frozen before update on account for each row execute function only_these_change();
create trigger kept before delete on account for each row execute function never_deleted();
grant select on account to countersign_reader;
grant select, insert, update on account to countersign_app;

create table role_grant (
    id uuid not null,
    account_id uuid not null,
    role text not null,
    team text,
    granted_at timestamptz not null,
    constraint pk_role_grant primary key (id),
    constraint uq_role_grant_account_id_role_team unique nulls not distinct (account_id, role,
        team),
    constraint fk_role_grant_account_id foreign key (account_id) references account(id),
    constraint ck_role_grant_role check (role in ('admin', 'engineer', 'reviewer', 'auditor',
        'trainer', 'gateway'))
);
create index ix_role_grant_account_id on role_grant (account_id);

create constraint trigger audited after insert or delete or update on role_grant
    deferrable initially deferred for each row execute function require_event();
create trigger frozen before update on role_grant for each row execute function only_these_change();
create trigger kept before delete on role_grant for each row execute function never_deleted();
grant select on role_grant to countersign_reader;
grant select, insert, update on role_grant to countersign_app;

create table token (
    id text not null,
    account_id uuid not null,
    secret_hash text not null,
    scopes jsonb not null,
    created_at timestamptz not null,
    expires_at timestamptz not null,
    revoked_at timestamptz,
    constraint pk_token primary key (id),
    constraint uq_token_secret_hash unique (secret_hash),
    constraint fk_token_account_id foreign key (account_id) references account(id),
    constraint ck_token_environment check (not jsonb_path_exists(scopes,
        '$[*]?(exists (@."environment") && !(@."role" == "gateway" && ((@."environment" '
        '== "dev" || @."environment" == "staging") || @."environment" == "production")))')),
    constraint ck_token_expiry check (expires_at > created_at and (expires_at <= (created_at +
        interval '366 days'))),
    constraint ck_token_hash check (secret_hash ~ '^sha256:[0-9a-f]{64}$')
);
create index ix_token_account_id on token (account_id);

create constraint trigger audited after insert or delete or update on token
    deferrable initially deferred for each row execute function require_event();
create trigger frozen before update on token for each row
    execute function only_these_change('revoked_at');
create trigger kept before delete on token for each row execute function never_deleted();
create trigger settled before update on token for each row when (old.revoked_at is not null)
    execute function only_these_change();
grant select, insert, update on token to countersign_app;

create table token_use (
    token_id text not null,
    used_at timestamptz not null,
    constraint pk_token_use primary key (token_id),
    constraint fk_token_use_token_id foreign key (token_id) references token(id)
);

grant select on token_use to countersign_reader;
grant select, insert, update, delete on token_use to countersign_app;

create table web_session (
    secret_hash text not null,
    token_id text not null,
    created_at timestamptz not null,
    seen_at timestamptz not null,
    constraint pk_web_session primary key (secret_hash),
    constraint fk_web_session_token_id foreign key (token_id) references token(id)
);
create index ix_web_session_token_id on web_session (token_id);

grant select, insert, update, delete on web_session to countersign_app;

create table signing_key (
    id text not null,
    account_id uuid not null,
    label text not null,
    public_key text not null,
    proof text not null,
    enrolled_at timestamptz not null,
    revoked_at timestamptz,
    constraint pk_signing_key primary key (id),
    constraint uq_signing_key_public_key unique (public_key),
    constraint fk_signing_key_account_id foreign key (account_id) references account(id),
    constraint ck_signing_key_id check (id ~ '^[0-9a-f]{16}$')
);
create index ix_signing_key_account_id on signing_key (account_id);

create constraint trigger audited after insert or delete or update on signing_key
    deferrable initially deferred for each row execute function require_event();
create trigger frozen before update on signing_key for each row
    execute function only_these_change('revoked_at');
create trigger kept before delete on signing_key for each row execute function never_deleted();
create trigger settled before update on signing_key for each row when (old.revoked_at is not null)
    execute function only_these_change();
grant select on signing_key to countersign_reader;
grant select, insert, update on signing_key to countersign_app;


-- blobs

create table blob (
    id text not null,
    size bigint not null,
    collected_at timestamptz,
    constraint pk_blob primary key (id),
    constraint ck_blob_digest check (id ~ '^[0-9a-f]{64}$' and size >= 0)
);

create function blob_is_named(which text) returns boolean language plpgsql as $$
-- Whether any row still needs these bytes. Every foreign key to blob counts, including any added
-- later. Files of versions that have a tombstone and no hold do not count, nor do those that
-- training runs made of such a data set version.
declare namer record; found boolean;
begin
    for namer in
        select k.conrelid::regclass as holder, a.attname as field, case k.conrelid::regclass::text
            when 'version_file' then 'version_id' when 'dataset_version' then 'id'
            when 'training_run' then 'dataset_version_id' end as owner
        from pg_constraint k join pg_attribute a on a.attrelid = k.conrelid
            and a.attnum = k.conkey[1]
        where k.contype = 'f' and k.confrelid = 'blob'::regclass
    loop
        execute format('select exists (select from %s n where n.%I = $1%s)', namer.holder,
            namer.field, case when namer.owner is null then '' else format(
                ' and (not exists (select from tombstone t where t.id = n.%I)'
                ' or exists (select from holds_on(n.%I)))', namer.owner, namer.owner) end)
            into found using which;
        if found then
            return true;
        end if;
    end loop;
    return false;
end $$;

create function collected_unnamed() returns trigger language plpgsql as $$
-- Bytes that a row names are not collected. The function first waits for a hold that is being
-- placed, so that the check sees that hold.
begin
    perform one_keeper();
    if blob_is_named(new.id) then
        raise exception 'the bytes % are named by a row', new.id using errcode = 'CS025';
    end if;
    return new;
end $$;

create constraint trigger audited after insert or delete or update on blob
    deferrable initially deferred for each row execute function require_event();
create trigger collected before insert or update on blob for each row
    when (new.collected_at is not null) execute function collected_unnamed();
create trigger frozen before update on blob for each row
    execute function only_these_change('collected_at');
create trigger kept before delete on blob for each row execute function never_deleted();
grant select on blob to countersign_reader;
grant select, insert, update on blob to countersign_app;

create table blob_sender (
    id text not null,
    account_id uuid not null,
    whole boolean not null,
    at timestamptz not null,
    constraint pk_blob_sender primary key (id, account_id)
);

grant select on blob_sender to countersign_reader;
grant select, insert, update, delete on blob_sender to countersign_app;


-- nodes

create table node (
    id uuid not null,
    seq bigint generated by default as identity not null,
    kind text not null,
    team text not null,
    ref text not null,
    constraint pk_node primary key (id),
    constraint uq_node_id_seq unique (id, seq),
    constraint uq_node_ref unique (ref),
    constraint uq_node_seq unique (seq),
    constraint ck_node_kind check (kind in ('base', 'adapter', 'checkpoint', 'dataset', 'suite',
        'eval_run'))
);

create constraint trigger audited after insert or delete or update on node
    deferrable initially deferred for each row execute function require_event();
create trigger frozen before update on node for each row
    execute function only_these_change('ref', 'seq');
create trigger kept before delete on node for each row execute function never_deleted();
create trigger settled before update on node for each row
    when (position(('@draft-') in (old.ref)) = 0) execute function only_these_change();
grant select on node to countersign_reader;
grant select, insert, update on node to countersign_app;
grant usage on sequence node_seq_seq to countersign_app;

create table line (
    id uuid not null,
    kind text not null,
    team text not null,
    name text not null,
    domain text,
    created_by uuid,
    created_at timestamptz not null,
    constraint pk_line primary key (id),
    constraint uq_line_team_name unique (team, name),
    constraint ck_line_kind check (kind in ('base', 'adapter', 'checkpoint')),
    constraint ck_line_name check (name !~ '^(.+)\.v([1-9][0-9]{0,8})$'),
    constraint ck_line_pullable check (name !~ '--|\.\.|\.git$' and team !~ '--|\.\.|\.git$' and
        team not in ('adapters', 'api', 'audit', 'bases', 'buckets', 'checkpoints', 'datasets',
        'deployments', 'find', 'healthz', 'kernels', 'login', 'logout', 'metrics', 'models',
        'ofrep', 'policies', 'problems', 'profiles', 'readyz', 'records', 'retention', 'reviews',
        'runs', 'search', 'settings', 'spaces', 'static', 'suites', 'use-cases', 'v1'))
);

create function search_follow_line() returns trigger language plpgsql
    security definer set search_path = public, pg_temp as $$
-- Refresh the search rows of a line's versions when the line gets its domain.
begin
    perform search_refresh(v.id) from version v where v.line_id = new.id;
    return null;
end $$;

create constraint trigger audited after insert or delete or update on line
    deferrable initially deferred for each row execute function require_event();
create trigger frozen before update on line for each row
    execute function only_these_change('domain');
create trigger kept before delete on line for each row execute function never_deleted();
create trigger searchable after update of domain on line for each row
    execute function search_follow_line();
create trigger settled before update on line for each row
    when (old.domain is not null or (btrim(coalesce(new.domain, '')) = ''))
    execute function only_these_change();
grant select on line to countersign_reader;
grant select, insert, update on line to countersign_app;

create table lineage_edge (
    id uuid not null,
    child_id uuid not null,
    child_seq bigint not null,
    parent_id uuid not null,
    parent_seq bigint not null,
    relation text not null,
    grade text not null,
    created_at timestamptz not null,
    constraint pk_lineage_edge primary key (id),
    constraint uq_lineage_edge_child_id_parent_id_relation unique (child_id, parent_id, relation),
    constraint fk_lineage_edge_child_id_child_seq foreign key (child_id, child_seq) references
        node(id, seq),
    constraint fk_lineage_edge_parent_id_parent_seq foreign key (parent_id, parent_seq) references
        node(id, seq),
    constraint ck_lineage_edge_grade check (grade in ('claimed', 'observed', 'verified')),
    constraint ck_lineage_edge_parent_older check (parent_seq < child_seq),
    constraint ck_lineage_edge_relation check (relation in ('tuned_on', 'adapts', 'continues',
        'merged_from', 'quantised_from', 'derived_from', 'evaluated_on'))
);
create index ix_lineage_edge_parent_id on lineage_edge (parent_id);

create function descent_as_judged()
    returns trigger language plpgsql set search_path = public, pg_temp as $$
-- An edge to the version that a checkpoint was quantised from has the grade that the registry has
-- judged. A descent that nobody checked must never be shown as verified, and a contradicted one has
-- no edge.
declare child text; parent text; judged text;
begin
    select n.kind into child from node n where n.id = new.child_id;
    select n.kind into parent from node n where n.id = new.parent_id;
    select v.facts -> 'descent' ->> 'grade' into judged from version v where v.id = new.child_id;
    if child <> 'checkpoint' or parent not in ('base', 'checkpoint') then
        raise exception 'a % cannot be a quantisation of a %', child, parent
            using errcode = 'CS010';
    end if;
    if judged is distinct from new.grade then
        raise exception 'the descent was judged %, not %', coalesce(judged, 'by nobody'), new.grade
            using errcode = 'CS010';
    end if;
    return new;
end $$;

create constraint trigger audited after insert or delete or update on lineage_edge
    deferrable initially deferred for each row execute function require_event();
create trigger descent before insert on lineage_edge for each row
    when (new.relation = 'quantised_from') execute function descent_as_judged();
create trigger frozen before update on lineage_edge for each row
    execute function only_these_change();
create trigger kept before delete on lineage_edge for each row execute function never_deleted();
create trigger searchable after insert or update on lineage_edge for each row
    execute function search_follow('child_id');
grant select on lineage_edge to countersign_reader;
grant select, insert, update on lineage_edge to countersign_app;


-- datasets

create table dataset (
    id uuid not null,
    team text not null,
    name text not null,
    created_by uuid,
    created_at timestamptz not null,
    constraint pk_dataset primary key (id),
    constraint uq_dataset_team_name unique (team, name)
);

create constraint trigger audited after insert or delete or update on dataset
    deferrable initially deferred for each row execute function require_event();
create trigger frozen before update on dataset for each row execute function only_these_change();
create trigger kept before delete on dataset for each row execute function never_deleted();
grant select on dataset to countersign_reader;
grant select, insert, update on dataset to countersign_app;

create table dataset_version (
    id uuid not null,
    dataset_id uuid not null,
    number integer,
    state text not null,
    blob_id text not null,
    record_root text not null,
    rows integer not null,
    splits jsonb not null,
    duplicates integer not null,
    overlap integer not null,
    meta jsonb not null,
    created_by uuid,
    created_at timestamptz not null,
    registered_at timestamptz,
    constraint pk_dataset_version primary key (id),
    constraint uq_dataset_version_dataset_id_number unique (dataset_id, number),
    constraint fk_dataset_version_blob_id foreign key (blob_id) references blob(id),
    constraint fk_dataset_version_dataset_id foreign key (dataset_id) references dataset(id),
    constraint fk_dataset_version_id foreign key (id) references node(id),
    constraint ck_dataset_version_number check (number > 0),
    constraint ck_dataset_version_numbered check (((number is null) = (state = 'draft')) or (number
        is null and state in ('recalled', 'deleted'))),
    constraint ck_dataset_version_root check (record_root ~ '^sha256:[0-9a-f]{64}$'),
    constraint ck_dataset_version_state check (state in ('draft', 'registered', 'deprecated',
        'recalled', 'deleted'))
);
create index ix_dataset_version_blob_id on dataset_version (blob_id);
create index ix_dataset_version_dataset_id on dataset_version (dataset_id);
create unique index uq_dataset_version_dataset_id_blob_id on dataset_version (dataset_id, blob_id)
    where state in ('draft', 'registered', 'deprecated');

create function not_recalled_rows() returns trigger language plpgsql as $$
-- Recalled bytes cannot be registered again in their data set.
begin
    perform from dataset_version where dataset_id = new.dataset_id and blob_id = new.blob_id
        order by id for share;
    if exists (select from dataset_version
               where dataset_id = new.dataset_id and blob_id = new.blob_id
                   and state = 'recalled') then
        raise exception 'these rows were recalled' using errcode = 'CS010';
    end if;
    return new;
end $$;

create trigger anew before insert on dataset_version for each row
    execute function not_recalled_rows();
create constraint trigger audited after insert or delete or update on dataset_version
    deferrable initially deferred for each row execute function require_event();
create trigger buried before insert or update of state on dataset_version for each row
    when (new.state = 'deleted') execute function deleted_by_tombstone();
create constraint trigger complete after update of state on dataset_version
    deferrable initially deferred for each row when (new.state = 'recalled')
    execute function recall_is_complete();
create trigger deprecated before insert or update of state on dataset_version for each row
    when (new.state = 'deprecated') execute function deprecated_with_reason();
create constraint trigger fits after insert on dataset_version deferrable initially deferred
    for each row execute function within_quota();
create trigger kept before delete on dataset_version for each row when (old.state <> 'draft')
    execute function never_deleted();
create constraint trigger own_bytes after insert or update of blob_id on dataset_version
    deferrable initially deferred for each row when (new.blob_id is not null)
    execute function names_own_blob('blob_id');
create trigger present before insert or update of blob_id on dataset_version for each row
    when (new.blob_id is not null) execute function names_present_blob('blob_id');
create trigger settled before update on dataset_version for each row when (old.state <> 'draft')
    execute function only_these_change('state');
create trigger stepped before insert or update of state on dataset_version for each row
    execute function legal_transition();
grant select on dataset_version to countersign_reader;
grant select, insert, update on dataset_version to countersign_app;


-- training

create table training_run (
    id uuid not null,
    line_id uuid not null,
    base_version_id uuid not null,
    dataset_version_id uuid not null,
    rows_blob_id text not null,
    rows_root text not null,
    recipe jsonb not null,
    recipe_digest text not null,
    meta jsonb not null,
    state text not null,
    attempt integer not null,
    requested_by uuid,
    trainer_id uuid,
    report jsonb,
    report_key text,
    report_signature text,
    error text,
    created_at timestamptz not null,
    started_at timestamptz,
    finished_at timestamptz,
    constraint pk_training_run primary key (id),
    constraint fk_training_run_base_version_id foreign key (base_version_id) references node(id),
    constraint fk_training_run_dataset_version_id foreign key (dataset_version_id) references
        node(id),
    constraint fk_training_run_line_id foreign key (line_id) references line(id),
    constraint fk_training_run_report_key foreign key (report_key) references signing_key(id),
    constraint fk_training_run_rows_blob_id foreign key (rows_blob_id) references blob(id),
    constraint fk_training_run_trainer_id foreign key (trainer_id) references account(id),
    constraint ck_training_run_recipe check (recipe_digest ~ '^sha256:[0-9a-f]{64}$'),
    constraint ck_training_run_reported check ((state = 'succeeded') = (report is not null)),
    constraint ck_training_run_rows check (rows_root ~ '^sha256:[0-9a-f]{64}$'),
    constraint ck_training_run_signed check (report is null or (report_key is not null and
        report_signature is not null)),
    constraint ck_training_run_state check (state in ('queued', 'running', 'succeeded', 'failed',
        'cancelled'))
);
create index ix_training_run_line_id on training_run (line_id);
create index ix_training_run_queued on training_run (created_at) where state = 'queued';
create index ix_training_run_rows_blob_id on training_run (rows_blob_id);

create function has_only_train(splits jsonb) returns boolean language sql immutable as $$
    -- Whether all rows are of the split that is trained on: trainers read such a file whole. Rows
    -- of other splits are expected answers, because suites are made of them.
    select splits - 'train' = '{}'
$$;

create function only_rows_of_train() returns trigger language plpgsql as $$
-- A trainer reads the rows of the train split. They are the data set's own file where it has no
-- others, and never where it has: a suite may be made of those.
begin
    if exists (
        select from dataset_version d where d.id = new.dataset_version_id
        and has_only_train(d.splits) <> (d.blob_id = new.rows_blob_id)
    ) then
        raise exception 'the training run % would read other rows than those of the split train',
            new.id using errcode = 'CS010';
    end if;
    return new;
end $$;

create constraint trigger audited after insert or delete or update on training_run
    deferrable initially deferred for each row execute function require_event();
create trigger frozen before update on training_run for each row execute function
    only_these_change('state', 'attempt', 'trainer_id', 'report', 'report_key', 'report_signature',
    'error', 'started_at', 'finished_at');
create trigger guarded before insert on training_run for each row
    execute function on_what_stands('base_version_id', 'dataset_version_id');
create trigger kept before delete on training_run for each row execute function never_deleted();
create trigger only_train before insert on training_run for each row
    execute function only_rows_of_train();
create constraint trigger own_bytes after insert or update of rows_blob_id on training_run
    deferrable initially deferred for each row execute function names_own_blob('rows_blob_id');
create trigger present before insert or update of rows_blob_id on training_run for each row
    execute function names_present_blob('rows_blob_id');
create trigger settled before update on training_run for each row
    when (old.state in ('succeeded', 'failed', 'cancelled')) execute function only_these_change();
create trigger stepped before insert or update of state on training_run for each row
    execute function legal_transition();
grant select on training_run to countersign_reader;
grant select, insert, update on training_run to countersign_app;

create table lease (
    id uuid not null,
    worker text not null,
    identity text,
    account_id uuid not null,
    attempt integer not null,
    expires_at timestamptz not null,
    progress jsonb not null,
    constraint pk_lease primary key (id),
    constraint fk_lease_account_id foreign key (account_id) references account(id)
);

grant select on lease to countersign_reader;
grant select, insert, update, delete on lease to countersign_app;


-- versions

create table version (
    id uuid not null,
    line_id uuid not null,
    number integer,
    state text not null,
    manifest_digest text not null,
    tensor_root text,
    base_root text,
    base_version_id uuid,
    training_run_id uuid,
    step integer,
    meta jsonb not null,
    facts jsonb not null,
    created_by uuid,
    created_at timestamptz not null,
    registered_at timestamptz,
    constraint pk_version primary key (id),
    constraint uq_version_line_id_number unique (line_id, number),
    constraint uq_version_training_run_id_step unique (training_run_id, step),
    constraint fk_version_base_version_id foreign key (base_version_id) references version(id),
    constraint fk_version_id foreign key (id) references node(id),
    constraint fk_version_line_id foreign key (line_id) references line(id),
    constraint fk_version_training_run_id foreign key (training_run_id) references training_run(id),
    constraint ck_version_manifest check (manifest_digest ~ '^sha256:[0-9a-f]{64}$'),
    constraint ck_version_number check (number > 0),
    constraint ck_version_numbered check (((number is null) = (state = 'draft')) or (number is null
        and state in ('recalled', 'deleted'))),
    constraint ck_version_rooted check (state in ('draft', 'deleted') or tensor_root is not null),
    constraint ck_version_state check (state in ('draft', 'registered', 'deprecated', 'recalled',
        'deleted'))
);
create index ix_version_base_version_id on version (base_version_id);
create index ix_version_line_id on version (line_id);
create index ix_version_manifest_digest on version (manifest_digest text_pattern_ops);
create index ix_version_tensor_root on version (tensor_root text_pattern_ops);
create unique index uq_version_line_id_manifest_digest on version (line_id, manifest_digest) where
    state in ('draft', 'registered', 'deprecated');

create function not_recalled_bytes() returns trigger language plpgsql as $$
-- Recalled bytes cannot be registered again in their line, not even bound to another base. In that
-- case only the configuration differs, which the registry writes; `unbound_manifest` is the digest
-- of the manifest without any base.
declare unbound text := new.facts ->> 'unbound_manifest';
begin
    perform from version where line_id = new.line_id and id <> new.id
        and (manifest_digest = new.manifest_digest or facts ->> 'unbound_manifest' = unbound)
        order by id for share;
    if exists (
        select from version where line_id = new.line_id and id <> new.id and state = 'recalled'
        and (manifest_digest = new.manifest_digest or facts ->> 'unbound_manifest' = unbound)
    ) then
        raise exception 'these bytes were recalled' using errcode = 'CS010';
    end if;
    return new;
end $$;

create function registration_guard() returns trigger language plpgsql as $$
-- A version gets its number only while its parents are usable. They are locked before they are
-- tested: a recall in progress either sees this version among the descendants, or has already
-- recalled the parent that is tested here.
declare its_line public.line; base version; unfit text;
begin
    select * into its_line from line where id = new.line_id;
    perform 1 from version where id in (select parent_id from lineage_edge where child_id = new.id)
        order by id for share;
    perform 1 from dataset_version
        where id in (select parent_id from lineage_edge where child_id = new.id)
        order by id for share;
    select n.ref || ' is ' || coalesce(v.state, d.state) into unfit
    from lineage_edge e join node n on n.id = e.parent_id
    left join version v on v.id = e.parent_id left join dataset_version d on d.id = e.parent_id
    where e.child_id = new.id and coalesce(v.state, d.state) not in ('registered', 'deprecated')
    limit 1;
    if unfit is not null then
        raise exception 'a parent is unfit: %', unfit using errcode = 'CS010';
    end if;
    -- What a run trained was observed: it cannot count for another adapter or base.
    if new.training_run_id is not null and not exists (
        select from training_run t where t.id = new.training_run_id and t.line_id = new.line_id
            and t.base_version_id = new.base_version_id
    ) then
        raise exception 'the training run of version % is for another adapter or base', new.id
            using errcode = 'CS010';
    end if;
    if its_line.kind = 'adapter' then
        select * into base from version where id = new.base_version_id;
        if base.base_root is null or base.base_root is distinct from new.base_root or not exists (
            select 1 from lineage_edge where child_id = new.id and parent_id = base.id
                and relation = 'adapts'
        ) then
            raise exception 'the adapter is not bound to a base by its base root'
                using errcode = 'CS010';
        end if;
    end if;
    if (select ref from node where id = new.id)
        is distinct from its_line.team || '/' || its_line.name || '@v' || new.number then
        raise exception 'the node of version % does not have the name of its number', new.id
            using errcode = 'CS003';
    end if;
    return new;
end $$;

create trigger anew before insert or update of state on version for each row
    when (new.state in ('draft', 'registered')) execute function not_recalled_bytes();
create constraint trigger audited after insert or delete or update on version
    deferrable initially deferred for each row execute function require_event();
create trigger buried before insert or update of state on version for each row
    when (new.state = 'deleted') execute function deleted_by_tombstone();
create constraint trigger complete after update of state on version deferrable initially deferred
    for each row when (new.state = 'recalled') execute function recall_is_complete();
create trigger deprecated before insert or update of state on version for each row
    when (new.state = 'deprecated') execute function deprecated_with_reason();
create constraint trigger fits after insert on version deferrable initially deferred for each row
    execute function within_quota();
create trigger guarded before insert or update of state on version for each row
    when (new.state = 'registered') execute function registration_guard();
create trigger kept before delete on version for each row when (old.state <> 'draft')
    execute function never_deleted();
create trigger searchable after insert or update on version for each row
    execute function search_follow('id');
create trigger settled before update on version for each row when (old.state <> 'draft')
    execute function only_these_change('state');
create trigger stepped before insert or update of state on version for each row
    execute function legal_transition();
grant select on version to countersign_reader;
grant select, insert, update on version to countersign_app;

create table version_file (
    id uuid not null,
    version_id uuid not null,
    path text not null,
    blob_id text not null,
    constraint pk_version_file primary key (id),
    constraint uq_version_file_version_id_path unique (version_id, path),
    constraint fk_version_file_blob_id foreign key (blob_id) references blob(id),
    constraint fk_version_file_version_id foreign key (version_id) references version(id)
);
create index ix_version_file_blob on version_file (blob_id text_pattern_ops);
create index ix_version_file_blob_id on version_file (blob_id);

create function files_of_drafts_only() returns trigger language plpgsql as $$
-- The files of a numbered version do not change.
declare frozen uuid;
begin
    -- Both versions of a move: a file may neither leave a numbered version nor be added to one.
    perform 1 from version where id in (old.version_id, new.version_id) order by id for share;
    select id into frozen from version where id in (old.version_id, new.version_id)
        and state <> 'draft' limit 1;
    if frozen is not null then
        raise exception 'the files of version % are frozen', frozen using errcode = 'CS003';
    end if;
    return coalesce(new, old);
end $$;

create constraint trigger audited after insert or delete or update on version_file
    deferrable initially deferred for each row execute function require_event();
create constraint trigger fits after insert on version_file deferrable initially deferred
    for each row execute function within_quota();
create trigger frozen before insert or update on version_file for each row
    execute function files_of_drafts_only();
create trigger kept before delete on version_file for each row
    execute function files_of_drafts_only();
create constraint trigger own_bytes after insert or update of blob_id on version_file
    deferrable initially deferred for each row when (new.blob_id is not null)
    execute function names_own_blob('blob_id');
create trigger present before insert or update of blob_id on version_file for each row
    when (new.blob_id is not null) execute function names_present_blob('blob_id');
grant select on version_file to countersign_reader;
grant select, insert, update on version_file to countersign_app;

create table version_tag (
    id uuid not null,
    version_id uuid not null,
    key text not null,
    value text,
    set_by uuid,
    set_at timestamptz not null,
    constraint pk_version_tag primary key (id),
    constraint uq_version_tag_version_id_key unique (version_id, key),
    constraint fk_version_tag_version_id foreign key (version_id) references version(id),
    constraint ck_version_tag_key check (key ~ '^[a-z0-9][a-z0-9._/-]{0,62}$'),
    constraint ck_version_tag_reserved check (key not in ('approved', 'approval', 'production',
        'staging', 'dev', 'live', 'stable', 'candidate', 'recalled', 'revoked', 'verified',
        'signed', 'rejected', 'deprecated', 'registered', 'draft')),
    constraint ck_version_tag_value check (value is null or length(value) between 1 and 256)
);

create constraint trigger audited after insert or delete or update on version_tag
    deferrable initially deferred for each row execute function require_event();
create trigger frozen before update on version_tag for each row
    execute function only_these_change('value', 'set_by', 'set_at');
create trigger kept before delete on version_tag for each row execute function never_deleted();
create trigger searchable after insert or update on version_tag for each row
    execute function search_follow('version_id');
grant select on version_tag to countersign_reader;
grant select, insert, update on version_tag to countersign_app;


-- evals

create table eval_suite (
    id uuid not null,
    team text not null,
    name text not null,
    created_by uuid,
    created_at timestamptz not null,
    constraint pk_eval_suite primary key (id),
    constraint uq_eval_suite_team_name unique (team, name)
);

create constraint trigger audited after insert or delete or update on eval_suite
    deferrable initially deferred for each row execute function require_event();
create trigger frozen before update on eval_suite for each row execute function only_these_change();
create trigger kept before delete on eval_suite for each row execute function never_deleted();
grant select on eval_suite to countersign_reader;
grant select, insert, update on eval_suite to countersign_app;

create table eval_suite_version (
    id uuid not null,
    suite_id uuid not null,
    number integer not null,
    digest text not null,
    dataset_version_id uuid not null,
    split text not null,
    metric text not null,
    decoding jsonb not null,
    normalisation text not null,
    items integer not null,
    blob_id text not null,
    prompts_blob_id text not null,
    created_by uuid,
    created_at timestamptz not null,
    constraint pk_eval_suite_version primary key (id),
    constraint uq_eval_suite_version_suite_id_digest unique (suite_id, digest),
    constraint uq_eval_suite_version_suite_id_number unique (suite_id, number),
    constraint fk_eval_suite_version_blob_id foreign key (blob_id) references blob(id),
    constraint fk_eval_suite_version_dataset_version_id foreign key (dataset_version_id) references
        dataset_version(id),
    constraint fk_eval_suite_version_id foreign key (id) references node(id),
    constraint fk_eval_suite_version_prompts_blob_id foreign key (prompts_blob_id) references
        blob(id),
    constraint fk_eval_suite_version_suite_id foreign key (suite_id) references eval_suite(id),
    constraint ck_eval_suite_version_digest check (digest ~ '^sha256:[0-9a-f]{64}$'),
    constraint ck_eval_suite_version_items check (items > 0),
    constraint ck_eval_suite_version_normalisation check (normalisation = 'nfc-1')
);
create index ix_eval_suite_version_blob_id on eval_suite_version (blob_id);
create index ix_eval_suite_version_prompts_blob_id on eval_suite_version (prompts_blob_id);
create index ix_eval_suite_version_suite_id on eval_suite_version (suite_id);

create constraint trigger audited after insert or delete or update on eval_suite_version
    deferrable initially deferred for each row execute function require_event();
create trigger frozen before update on eval_suite_version for each row
    execute function only_these_change();
create trigger kept before delete on eval_suite_version for each row
    execute function never_deleted();
create constraint trigger own_bytes after insert or update of blob_id on eval_suite_version
    deferrable initially deferred for each row when (new.blob_id is not null)
    execute function names_own_blob('blob_id');
create constraint trigger own_prompts after insert or update of prompts_blob_id on
    eval_suite_version deferrable initially deferred for each row
    execute function names_own_blob('prompts_blob_id');
create trigger present before insert or update of blob_id on eval_suite_version for each row
    when (new.blob_id is not null) execute function names_present_blob('blob_id');
create trigger present_prompts before insert or update of prompts_blob_id on eval_suite_version
    for each row execute function names_present_blob('prompts_blob_id');
grant select on eval_suite_version to countersign_reader;
grant select, insert, update on eval_suite_version to countersign_app;

create table eval_run (
    id uuid not null,
    subject_id uuid not null,
    suite_version_id uuid not null,
    state text not null,
    attempt integer not null,
    requested_by uuid,
    trainer_id uuid,
    samples_blob_id text,
    report jsonb,
    report_key text,
    report_signature text,
    outcomes text,
    error text,
    created_at timestamptz not null,
    started_at timestamptz,
    finished_at timestamptz,
    constraint pk_eval_run primary key (id),
    constraint fk_eval_run_id foreign key (id) references node(id),
    constraint fk_eval_run_report_key foreign key (report_key) references signing_key(id),
    constraint fk_eval_run_samples_blob_id foreign key (samples_blob_id) references blob(id),
    constraint fk_eval_run_subject_id foreign key (subject_id) references version(id),
    constraint fk_eval_run_suite_version_id foreign key (suite_version_id) references
        eval_suite_version(id),
    constraint fk_eval_run_trainer_id foreign key (trainer_id) references account(id),
    constraint ck_eval_run_outcomes check (((outcomes is null) = (report is null)) and outcomes ~
        '^[0-9a-f]+$'),
    constraint ck_eval_run_reported check ((state = 'succeeded') = (report is not null)),
    constraint ck_eval_run_signed check (report is null or (report_key is not null and
        samples_blob_id is not null)),
    constraint ck_eval_run_state check (state in ('queued', 'running', 'succeeded', 'failed',
        'cancelled'))
);
create index ix_eval_run_queued on eval_run (created_at) where state = 'queued';
create index ix_eval_run_samples_blob_id on eval_run (samples_blob_id);
create index ix_eval_run_subject_id on eval_run (subject_id);
create unique index uq_eval_run_active on eval_run (subject_id, suite_version_id) where state in
    ('queued', 'running');

create constraint trigger audited after insert or delete or update on eval_run
    deferrable initially deferred for each row execute function require_event();
create trigger frozen before update on eval_run for each row execute function
    only_these_change('state', 'attempt', 'trainer_id', 'report', 'report_key', 'report_signature',
    'samples_blob_id', 'outcomes', 'error', 'started_at', 'finished_at');
create trigger guarded before insert on eval_run for each row
    execute function on_what_stands('subject_id');
create trigger kept before delete on eval_run for each row execute function never_deleted();
create constraint trigger own_bytes after insert or update of samples_blob_id on eval_run
    deferrable initially deferred for each row when (new.samples_blob_id is not null)
    execute function names_own_blob('samples_blob_id');
create trigger present before insert or update of samples_blob_id on eval_run for each row
    when (new.samples_blob_id is not null) execute function names_present_blob('samples_blob_id');
create trigger searchable after update of state on eval_run for each row
    when (new.state = 'succeeded') execute function search_follow();
create trigger settled before update on eval_run for each row
    when (old.state in ('succeeded', 'failed', 'cancelled')) execute function only_these_change();
create trigger stepped before insert or update of state on eval_run for each row
    execute function legal_transition();
grant select on eval_run to countersign_reader;
grant select, insert, update on eval_run to countersign_app;

create table eval_metric (
    id uuid not null,
    eval_run_id uuid not null,
    name text not null,
    value double precision not null,
    n integer not null,
    ci_low double precision not null,
    ci_high double precision not null,
    higher_is_better boolean not null,
    constraint pk_eval_metric primary key (id),
    constraint uq_eval_metric_eval_run_id_name unique (eval_run_id, name),
    constraint fk_eval_metric_eval_run_id foreign key (eval_run_id) references eval_run(id),
    constraint ck_eval_metric_interval check (n > 0 and ci_low <= value and value <= ci_high)
);

create constraint trigger audited after insert or delete or update on eval_metric
    deferrable initially deferred for each row execute function require_event();
create trigger frozen before update on eval_metric for each row
    execute function only_these_change();
create trigger kept before delete on eval_metric for each row execute function never_deleted();
create trigger searchable after insert on eval_metric for each row execute function search_follow();
grant select on eval_metric to countersign_reader;
grant select, insert, update on eval_metric to countersign_app;


-- decisions

create table use_case (
    id uuid not null,
    team text not null,
    name text not null,
    created_by uuid,
    created_at timestamptz not null,
    constraint pk_use_case primary key (id),
    constraint uq_use_case_team_name unique (team, name)
);

create constraint trigger audited after insert or delete or update on use_case
    deferrable initially deferred for each row execute function require_event();
create trigger frozen before update on use_case for each row execute function only_these_change();
create trigger kept before delete on use_case for each row execute function never_deleted();
grant select on use_case to countersign_reader;
grant select, insert, update on use_case to countersign_app;

create table use_case_version (
    id uuid not null,
    use_case_id uuid not null,
    number integer not null,
    purpose text not null,
    owner text not null,
    risk_tier text not null,
    suite_version_id uuid not null,
    details jsonb not null,
    reason_commitment text,
    created_by uuid,
    created_at timestamptz not null,
    constraint pk_use_case_version primary key (id),
    constraint uq_use_case_version_use_case_id_number unique (use_case_id, number),
    constraint fk_use_case_version_suite_version_id foreign key (suite_version_id) references
        eval_suite_version(id),
    constraint fk_use_case_version_use_case_id foreign key (use_case_id) references use_case(id),
    constraint ck_use_case_version_number check (number > 0),
    constraint ck_use_case_version_reason check ((number = 1) = (reason_commitment is null)),
    constraint ck_use_case_version_risk_tier check (risk_tier in ('minimal', 'limited', 'high'))
);

create function use_case_version_guard() returns trigger language plpgsql as $$
-- Versions of a use case are numbered without a gap. The lock keeps submissions out until COMMIT.
begin
    perform from use_case where id = new.use_case_id for no key update;
    if new.number <> 1 + (
        select count(*) from use_case_version where use_case_id = new.use_case_id
    ) then
        raise exception 'version % is not the next one of its use case', new.number
            using errcode = 'CS040';
    end if;
    return new;
end $$;

create function use_case_version_voids() returns trigger language plpgsql as $$
-- At COMMIT: no review that rests on an older version of the use case is open or approved.
declare standing int;
begin
    select r.number into standing from review r join use_case_version v
        on v.id = r.use_case_version_id
    where v.use_case_id = new.use_case_id and v.number < new.number
        and r.state in ('open', 'approved') limit 1;
    if standing is not null then
        raise exception 'review % rests on an older version of the use case', standing
            using errcode = 'CS040';
    end if;
    return null;
end $$;

create constraint trigger audited after insert or delete or update on use_case_version
    deferrable initially deferred for each row execute function require_event();
create trigger frozen before update on use_case_version for each row
    execute function only_these_change();
create trigger guarded before insert on use_case_version for each row
    execute function use_case_version_guard();
create trigger kept before delete on use_case_version for each row execute function never_deleted();
create constraint trigger voids after insert on use_case_version deferrable initially deferred
    for each row execute function use_case_version_voids();
grant select on use_case_version to countersign_reader;
grant select, insert, update on use_case_version to countersign_app;

create table policy_version (
    id uuid not null,
    environment text not null,
    number integer not null,
    digest text not null,
    rules jsonb not null,
    text text not null,
    published_by uuid,
    published_at timestamptz not null,
    constraint pk_policy_version primary key (id),
    constraint uq_policy_version_environment_number unique (environment, number),
    constraint ck_policy_version_digest check (digest ~ '^sha256:[0-9a-f]{64}$'),
    constraint ck_policy_version_environment check (environment in ('dev', 'staging',
        'production')),
    constraint ck_policy_version_number check (number > 0)
);

create constraint trigger audited after insert or delete or update on policy_version
    deferrable initially deferred for each row execute function require_event();
create trigger frozen before update on policy_version for each row
    execute function only_these_change();
create trigger kept before delete on policy_version for each row execute function never_deleted();
grant select on policy_version to countersign_reader;
grant select, insert, update on policy_version to countersign_app;

create table review (
    id uuid not null,
    number integer generated by default as identity not null,
    version_id uuid not null,
    environment text not null,
    use_case_version_id uuid not null,
    policy_version_id uuid not null,
    evidence jsonb not null,
    evidence_root text not null,
    verdict jsonb not null,
    note_commitment text not null,
    submitted_by uuid not null,
    state text not null,
    opened_at timestamptz not null,
    decided_at timestamptz,
    expires_at timestamptz,
    constraint pk_review primary key (id),
    constraint uq_review_number unique (number),
    constraint fk_review_policy_version_id foreign key (policy_version_id) references
        policy_version(id),
    constraint fk_review_submitted_by foreign key (submitted_by) references account(id),
    constraint fk_review_use_case_version_id foreign key (use_case_version_id) references
        use_case_version(id),
    constraint fk_review_version_id foreign key (version_id) references version(id),
    constraint ck_review_approval_expires check (state <> 'approved' or expires_at is not null),
    constraint ck_review_decided check ((state = 'open') = (decided_at is null)),
    constraint ck_review_environment check (environment in ('dev', 'staging', 'production')),
    constraint ck_review_evidence check (evidence_root ~ '^sha256:[0-9a-f]{64}$'),
    constraint ck_review_state check (state in ('open', 'approved', 'rejected', 'changes_requested',
        'withdrawn', 'expired', 'voided'))
);
create index ix_review_version_id on review (version_id);
create unique index uq_review_live on review (version_id, environment) where state in ('open',
    'approved');

create function quorum_guard() returns trigger language plpgsql as $$
-- An approval needs the votes that its policy asks for and a gate that passed, and lasts no longer
-- than the policy allows.
declare rules jsonb; quorum jsonb; wanted int; people int; teams int;
begin
    select p.rules into rules from policy_version p where p.id = new.policy_version_id;
    quorum := rules -> 'quorum';
    wanted := (quorum ->> 'approvals')::int;
    select count(distinct account_id), count(distinct team) into people, teams
    from vote where review_id = new.id and verdict = 'approve';
    if people < wanted or ((quorum ->> 'distinct_teams')::boolean and teams < wanted)
        or exists (select 1 from vote where review_id = new.id and verdict <> 'approve') then
        raise exception 'review % has % approvals from % teams; its policy asks for %', new.number,
            people, teams, wanted using errcode = 'CS007';
    end if;
    if new.verdict ->> 'outcome' is distinct from 'pass' then
        raise exception 'the gate of review % did not pass', new.number using errcode = 'CS007';
    end if;
    if new.expires_at > new.decided_at + (rules ->> 'approval_days')::int * interval '1 day' then
        raise exception 'the approval of review % lasts longer than its policy allows', new.number
            using errcode = 'CS007';
    end if;
    if (select state from version where id = new.version_id for share)
        in ('draft', 'recalled', 'deleted') then
        raise exception 'the version of review % can no longer be approved', new.number
            using errcode = 'CS010';
    end if;
    return new;
end $$;

create function review_guard() returns trigger language plpgsql as $$
-- A review opens under the policy in force and the newest version of its use case, on a registered
-- or deprecated version. Its evidence names every eval run that counts: those of the version and of
-- its base on the suite version that the use case pins, and no run on any suite measured a smaller
-- effect of the version. The locks are held until COMMIT, so that nothing of that changes unseen.
declare state text; pinned uuid; named uuid[]; counted uuid[];
begin
    if new.policy_version_id is distinct from (
        select id from policy_version where environment = new.environment
            order by number desc limit 1
    ) then
        raise exception 'another policy is in force for %', new.environment using errcode = 'CS009';
    end if;
    select v.state into state from version v where v.id = new.version_id for share;
    if state is distinct from 'registered' and state is distinct from 'deprecated' then
        raise exception 'version % is %', new.version_id, coalesce(state, 'unknown')
            using errcode = 'CS010';
    end if;
    perform from use_case where id = (
        select use_case_id from use_case_version where id = new.use_case_version_id
    ) for share;
    select suite_version_id into pinned from use_case_version newest
        where id = new.use_case_version_id and not exists (select from use_case_version later
            where later.use_case_id = newest.use_case_id and later.number > newest.number);
    if pinned is null then
        raise exception 'the use case has changed' using errcode = 'CS040';
    end if;
    perform from node where id = new.version_id for share;
    perform from eval_suite_version where id = pinned for share;
    select coalesce(array_agg(r.id order by r.id), '{}') into counted
    from version v join eval_run r on r.subject_id in (v.id, v.base_version_id)
    where v.id = new.version_id and r.suite_version_id = pinned and r.state = 'succeeded';
    select coalesce(array_agg(distinct (run ->> 'run')::uuid order by (run ->> 'run')::uuid), '{}')
    into named from jsonb_array_elements(
        coalesce(new.evidence #> '{runs,adapter,succeeded}', '[]')
        || coalesce(new.evidence #> '{runs,base,succeeded}', '[]')
    ) run;
    if named <> counted then
        raise exception 'the evidence does not name every eval run that counts'
            using errcode = 'CS040';
    end if;
    if new.evidence ? 'effect' and exists (
        select from eval_run r where r.subject_id = new.version_id and r.state = 'succeeded'
            and (r.report #>> '{effect,largest}')::numeric < coalesce(
                (new.evidence #>> '{effect,measured,largest}')::numeric, 'infinity')
    ) then
        raise exception 'an eval run measured a smaller effect' using errcode = 'CS040';
    end if;
    return new;
end $$;

create constraint trigger audited after insert or delete or update on review
    deferrable initially deferred for each row execute function require_event();
create trigger frozen before update on review for each row
    execute function only_these_change('state', 'decided_at', 'expires_at');
create trigger guarded before insert or update of state on review for each row
    when (new.state = 'approved') execute function quorum_guard();
create trigger kept before delete on review for each row execute function never_deleted();
create trigger opened before insert on review for each row execute function review_guard();
create trigger settled before update on review for each row when (old.state <> 'open')
    execute function only_these_change('state');
create trigger stepped before insert or update of state on review for each row
    execute function legal_transition();
grant select on review to countersign_reader;
grant select, insert, update on review to countersign_app;
grant usage on sequence review_number_seq to countersign_app;

create table vote (
    id uuid not null,
    review_id uuid not null,
    account_id uuid not null,
    team text,
    verdict text not null,
    reason_commitment text not null,
    decision jsonb not null,
    decision_digest text not null,
    signature text not null,
    key_id text not null,
    at timestamptz not null,
    constraint pk_vote primary key (id),
    constraint uq_vote_review_id_account_id unique (review_id, account_id),
    constraint fk_vote_account_id foreign key (account_id) references account(id),
    constraint fk_vote_key_id foreign key (key_id) references signing_key(id),
    constraint fk_vote_review_id foreign key (review_id) references review(id),
    constraint ck_vote_decision check (decision_digest ~ '^sha256:[0-9a-f]{64}$'),
    constraint ck_vote_reason check (reason_commitment ~ '^sha256:[0-9a-f]{64}$'),
    constraint ck_vote_verdict check (verdict in ('approve', 'reject', 'request_changes'))
);

create function vote_guard() returns trigger language plpgsql as $$
-- A vote is cast by a person who had no part in the version, in a role that the policy names. It is
-- signed with that person's own key, and its decision is about exactly this review.
declare judged review; policy policy_version; signer signing_key;
begin
    select * into judged from review where id = new.review_id for share;
    if judged.state <> 'open' then
        raise exception 'review % is %, not open', judged.number, judged.state
            using errcode = 'CS006';
    end if;
    if (select kind from account where id = new.account_id) is distinct from 'person' then
        raise exception 'only people vote' using errcode = 'CS006';
    end if;
    if new.account_id = judged.submitted_by
        or exists (select 1 from version v where v.id = judged.version_id
            and v.created_by = new.account_id)
        or exists (select 1 from version v join training_run t on t.id = v.training_run_id
                   where v.id = judged.version_id and t.requested_by = new.account_id)
        or exists (select 1 from lineage_edge e join dataset_version d on d.id = e.parent_id
                   where e.child_id = judged.version_id and e.relation = 'tuned_on'
                       and d.created_by = new.account_id)
    then
        raise exception 'those who made, submitted or brought data for a version may not vote on it'
            using errcode = 'CS006';
    end if;
    select * into policy from policy_version where id = judged.policy_version_id;
    if not exists (
        select 1 from role_grant g where g.account_id = new.account_id
        and policy.rules -> 'quorum' -> 'roles' ? g.role and g.team is not distinct from new.team
    ) then
        raise exception 'the voter holds no role that the policy names' using errcode = 'CS006';
    end if;
    select * into signer from signing_key where id = new.key_id;
    if signer.account_id is distinct from new.account_id or signer.revoked_at is not null
        or signer.enrolled_at > new.at then
        raise exception 'the key % is not an enrolled key of the voter', new.key_id
            using errcode = 'CS006';
    end if;
    if jsonb_build_object(
        'review', judged.number, 'version_id', judged.version_id, 'environment', judged.environment,
        'evidence_root', judged.evidence_root, 'policy_digest', policy.digest, 'account',
            new.account_id,
        'team', new.team, 'verdict', new.verdict, 'reason_commitment', new.reason_commitment
    ) <> (
        select coalesce(jsonb_object_agg(key, value), '{}') from jsonb_each(new.decision)
        where key in ('review', 'version_id', 'environment', 'evidence_root', 'policy_digest',
            'account', 'team',
                      'verdict', 'reason_commitment')
    ) then
        raise exception 'the signed decision is not about this review' using errcode = 'CS006';
    end if;
    return new;
end $$;

create constraint trigger audited after insert or delete or update on vote
    deferrable initially deferred for each row execute function require_event();
create trigger frozen before update on vote for each row execute function only_these_change();
create trigger guarded before insert on vote for each row execute function vote_guard();
create trigger kept before delete on vote for each row execute function never_deleted();
grant select on vote to countersign_reader;
grant select, insert, update on vote to countersign_app;


-- delivery

create table channel (
    id uuid not null,
    line_id uuid not null,
    environment text not null,
    name text not null,
    use_case_id uuid not null,
    base_version_id uuid not null,
    created_at timestamptz not null,
    constraint pk_channel primary key (id),
    constraint uq_channel_line_id_environment_name unique (line_id, environment, name),
    constraint fk_channel_base_version_id foreign key (base_version_id) references version(id),
    constraint fk_channel_line_id foreign key (line_id) references line(id),
    constraint fk_channel_use_case_id foreign key (use_case_id) references use_case(id),
    constraint ck_channel_environment check (environment in ('dev', 'staging', 'production')),
    constraint ck_channel_name check (name !~ '^(v[0-9]+$|v0|sha256|draft-)')
);

create constraint trigger audited after insert or delete or update on channel
    deferrable initially deferred for each row execute function require_event();
create trigger frozen before update on channel for each row execute function only_these_change();
create trigger kept before delete on channel for each row execute function never_deleted();
grant select on channel to countersign_reader;
grant select, insert, update on channel to countersign_app;

create table rollout (
    id uuid not null,
    channel_id uuid not null,
    version_id uuid not null,
    review_id uuid not null,
    state text not null,
    weight_bp integer not null,
    rollback_target_id uuid,
    started_by uuid,
    started_at timestamptz not null,
    ended_at timestamptz,
    constraint pk_rollout primary key (id),
    constraint fk_rollout_channel_id foreign key (channel_id) references channel(id),
    constraint fk_rollout_review_id foreign key (review_id) references review(id),
    constraint fk_rollout_rollback_target_id foreign key (rollback_target_id) references
        version(id),
    constraint fk_rollout_version_id foreign key (version_id) references version(id),
    constraint ck_rollout_ended check ((state in ('pending', 'shadowing', 'canary', 'paused',
        'inconclusive', 'promoting')) = (ended_at is null)),
    constraint ck_rollout_state check (state in ('pending', 'shadowing', 'canary', 'paused',
        'inconclusive', 'promoting', 'succeeded', 'aborted', 'rolled_back', 'expired',
        'superseded')),
    constraint ck_rollout_terminal_weight check (state in ('pending', 'shadowing', 'canary',
        'paused', 'inconclusive', 'promoting') or weight_bp = 0),
    constraint ck_rollout_weight check (weight_bp between 0 and 10000)
);
create index ix_rollout_channel_id on rollout (channel_id);
create unique index uq_rollout_active on rollout (channel_id) where state in ('pending',
    'shadowing', 'canary', 'paused', 'inconclusive', 'promoting');

create function starts_what_is_current() returns trigger language plpgsql as $$
-- No rollout of a deprecated version starts. The row is locked FOR SHARE, so that no deprecation
-- commits between this test and the commit.
begin
    if (select state from version where id = new.version_id for share) = 'deprecated' then
        raise exception 'version % is deprecated: no new rollout of it may start', new.version_id
            using errcode = 'CS004';
    end if;
    return new;
end $$;

create function must_be_servable(wanted uuid, where_to channel) returns void language plpgsql as $$
-- Raise unless a route of this channel may newly name this version. Rows are locked before they are
-- tested: otherwise a route could name a version whose recall is not committed yet.
declare found version; kind text; approval review;
begin
    select * into found from version where id = wanted for share;
    select l.kind into kind from line l where l.id = found.line_id;
    if found.state is null or found.state in ('draft', 'recalled', 'deleted') then
        raise exception 'version % is %', wanted, coalesce(found.state, 'unknown')
            using errcode = 'CS004';
    end if;
    if wanted = where_to.base_version_id then
        if not (select (p.rules ->> 'fallback_to_base')::boolean from policy_version p
                where p.environment = where_to.environment order by p.number desc limit 1) then
            raise exception 'the policy of % does not allow the base to serve', where_to.environment
                using errcode = 'CS004';
        end if;
        return;
    end if;
    if found.line_id <> where_to.line_id then
        raise exception 'version % does not belong to the line that this channel serves', wanted
            using errcode = 'CS004';
    end if;
    if kind = 'adapter' and found.base_root is distinct from (
        select v.base_root from version v where v.id = where_to.base_version_id
    ) then
        raise exception 'version % has another base than this channel', wanted
            using errcode = 'CS004';
    end if;
    select * into approval from review
    where version_id = wanted and environment = where_to.environment
        and state = 'approved' for share;
    if approval.id is null or approval.expires_at <= clock_timestamp() then
        raise exception 'version % has no approval in force for %', wanted, where_to.environment
            using errcode = 'CS004';
    end if;
end $$;

create function must_be_for_use_case(wanted uuid, where_to channel) returns void language plpgsql as
$$
-- Raise unless the approval of this version is for the use case of this channel. The base has no
-- approval and is not concerned. A rollback to a version that was stable here is left out by its
-- caller.
begin
    if wanted <> where_to.base_version_id and not exists (
        select from review r join use_case_version u on u.id = r.use_case_version_id
        where r.version_id = wanted and r.environment = where_to.environment
            and r.state = 'approved' and u.use_case_id = where_to.use_case_id
    ) then
        raise exception 'version % is approved for another use case than this channel serves',
            wanted using errcode = 'CS011';
    end if;
end $$;

create function rollout_guard() returns trigger language plpgsql as $$
-- A rollout needs a review of the same version and environment, and a version that may serve for
-- the channel's use case.
declare place channel; judged review;
begin
    select * into place from channel where id = new.channel_id;
    select * into judged from review where id = new.review_id;
    if judged.version_id <> new.version_id or judged.environment <> place.environment then
        raise exception 'review % is not about this rollout', judged.number using errcode = 'CS004';
    end if;
    perform must_be_servable(new.version_id, place);
    perform must_be_for_use_case(new.version_id, place);
    return new;
end $$;

create constraint trigger audited after insert or delete or update on rollout
    deferrable initially deferred for each row execute function require_event();
create trigger current before insert on rollout for each row
    execute function starts_what_is_current();
create trigger frozen before update on rollout for each row
    execute function only_these_change('state', 'weight_bp', 'ended_at');
create trigger guarded before insert on rollout for each row execute function rollout_guard();
create trigger kept before delete on rollout for each row execute function never_deleted();
create trigger settled before update on rollout for each row when (old.ended_at is not null)
    execute function only_these_change();
create trigger stepped before insert or update of state on rollout for each row
    execute function legal_transition();
grant select on rollout to countersign_reader;
grant select, insert, update on rollout to countersign_app;

create table route_generation (
    id uuid not null,
    channel_id uuid not null,
    generation integer not null,
    kind text not null,
    stable_version_id uuid,
    candidate_version_id uuid,
    weight_bp integer not null,
    salt text not null,
    killed boolean not null,
    rollout_id uuid,
    actor_id uuid,
    reason_commitment text not null,
    valid_from timestamptz not null,
    valid_to timestamptz,
    constraint pk_route_generation primary key (id),
    constraint uq_route_generation_channel_id_generation unique (channel_id, generation),
    constraint fk_route_generation_candidate_version_id foreign key (candidate_version_id)
        references version(id),
    constraint fk_route_generation_channel_id foreign key (channel_id) references channel(id),
    constraint fk_route_generation_rollout_id foreign key (rollout_id) references rollout(id),
    constraint fk_route_generation_stable_version_id foreign key (stable_version_id) references
        version(id),
    constraint ex_route_generation_range exclude using gist (channel_id with =,
        tstzrange(valid_from, valid_to) with &&),
    constraint ck_route_generation_candidate_weight check ((candidate_version_id is null) =
        (weight_bp = 0)),
    constraint ck_route_generation_generation check (generation > 0),
    constraint ck_route_generation_killed check ((not killed) or candidate_version_id is null),
    constraint ck_route_generation_kind check (kind in ('canary', 'promote', 'rollback', 'recall')),
    constraint ck_route_generation_range check (valid_to is null or valid_to > valid_from),
    constraint ck_route_generation_weight check (weight_bp between 0 and 10000)
);
create index ix_route_generation_candidate on route_generation (candidate_version_id) where valid_to
    is null;
create index ix_route_generation_stable on route_generation (stable_version_id) where valid_to is
    null;
create unique index uq_route_generation_open on route_generation (channel_id) where valid_to is
    null;

create function candidate_is_current() returns trigger language plpgsql as $$
-- A deprecated version cannot become a candidate; a candidate that was deprecated since may stay.
begin
    if (select state from version where id = new.candidate_version_id for share) = 'deprecated'
        and new.candidate_version_id is distinct from (
            select candidate_version_id from route_generation
            where channel_id = new.channel_id and generation = new.generation - 1
        ) then
        raise exception 'version % is deprecated: it cannot become a candidate',
            new.candidate_version_id using errcode = 'CS004';
    end if;
    return new;
end $$;

create function range_is_followed() returns trigger language plpgsql as $$
-- At COMMIT: another range follows a closed one, so that as-of queries find no gap.
begin
    if not exists (
        select 1 from route_generation
        where channel_id = new.channel_id and generation = new.generation + 1
            and valid_from = new.valid_to
    ) then
        raise exception 'nothing follows generation %', new.generation using errcode = 'CS005';
    end if;
    return null;
end $$;

create function route_guard() returns trigger language plpgsql as $$
-- Generations follow each other without a gap, and name only versions that may serve.
declare place channel; before route_generation;
begin
    select * into place from channel where id = new.channel_id for update;
    select * into before from route_generation
    where channel_id = new.channel_id order by generation desc limit 1;
    if new.generation <> coalesce(before.generation, 0) + 1 then
        raise exception 'generation % does not follow %', new.generation,
            coalesce(before.generation, 0)
            using errcode = 'CS005';
    end if;
    if before.generation is not null and before.valid_to is distinct from new.valid_from then
        raise exception 'generation % does not begin where % ends', new.generation,
            before.generation
            using errcode = 'CS005';
    end if;
    if new.stable_version_id is not null then
        -- A version that serves already may go on when its approval runs out, until a recall.
        if new.stable_version_id is distinct from before.stable_version_id then
            perform must_be_servable(new.stable_version_id, place);
            if new.kind not in ('rollback', 'recall') or not exists (
                select from route_generation where channel_id = new.channel_id
                    and stable_version_id = new.stable_version_id
            ) then
                perform must_be_for_use_case(new.stable_version_id, place);
            end if;
        elsif (select state from version where id = new.stable_version_id for share) in ('recalled',
            'deleted') then
            raise exception 'version % is recalled', new.stable_version_id using errcode = 'CS004';
        end if;
    end if;
    if new.candidate_version_id is not null then
        perform must_be_servable(new.candidate_version_id, place);
        perform must_be_for_use_case(new.candidate_version_id, place);
    end if;
    return new;
end $$;

create constraint trigger audited after insert or delete or update on route_generation
    deferrable initially deferred for each row execute function require_event();
create trigger current before insert on route_generation for each row
    when (new.candidate_version_id is not null) execute function candidate_is_current();
create constraint trigger followed after insert or update of valid_to on route_generation
    deferrable initially deferred for each row when (new.valid_to is not null)
    execute function range_is_followed();
create trigger frozen before update on route_generation for each row
    execute function only_these_change('valid_to');
create trigger guarded before insert on route_generation for each row
    execute function route_guard();
create trigger kept before delete on route_generation for each row execute function never_deleted();
create trigger settled before update on route_generation for each row
    when (old.valid_to is not null) execute function only_these_change();
grant select on route_generation to countersign_reader;
grant select, insert, update on route_generation to countersign_app;

create table recall (
    id uuid not null,
    node_id uuid not null,
    reason_commitment text not null,
    ordered_by uuid,
    at timestamptz not null,
    constraint pk_recall primary key (id),
    constraint uq_recall_node_id unique (node_id),
    constraint fk_recall_node_id foreign key (node_id) references node(id)
);

create function recall_guard() returns trigger language plpgsql as $$
-- A recall is for good, so its reason has at least ten characters. The rule trims every kind of
-- white space; this bound is coarser.
begin
    if not exists (select from personal p where p.commitment = new.reason_commitment
                   and length(btrim(p.value, E' \t\r\n')) >= 10) then
        raise exception 'a recall needs a reason of at least ten characters'
            using errcode = 'CS027';
    end if;
    return new;
end $$;

create constraint trigger audited after insert or delete or update on recall
    deferrable initially deferred for each row execute function require_event();
create trigger frozen before update on recall for each row execute function only_these_change();
create trigger guarded before insert on recall for each row execute function recall_guard();
create trigger kept before delete on recall for each row execute function never_deleted();
grant select on recall to countersign_reader;
grant select, insert, update on recall to countersign_app;


-- deprecations

create table deprecation (
    id uuid not null,
    reason_commitment text not null,
    deprecated_by uuid,
    at timestamptz not null,
    constraint pk_deprecation primary key (id),
    constraint fk_deprecation_id foreign key (id) references node(id)
);

create function deprecation_is_complete() returns trigger language plpgsql as $$
-- At COMMIT: a version that has a deprecation is deprecated, recalled or deleted.
begin
    if exists (select from version where id = new.id and state = 'registered'
               union all
               select from dataset_version where id = new.id and state = 'registered') then
        raise exception '% has a deprecation, but is still registered', new.id
            using errcode = 'CS002';
    end if;
    return null;
end $$;

create function may_be_deprecated() returns trigger language plpgsql as $$
-- Only a registered version can be deprecated. Its row is locked before it is tested.
declare stands text;
begin
    select state into stands from version where id = new.id for update;
    if stands is null then
        select state into stands from dataset_version where id = new.id for update;
    end if;
    if stands is distinct from 'registered' then
        raise exception '% cannot be deprecated because it is %', new.id,
            coalesce(stands, 'no version') using errcode = 'CS002';
    end if;
    return new;
end $$;

create constraint trigger audited after insert or delete or update on deprecation
    deferrable initially deferred for each row execute function require_event();
create constraint trigger complete after insert on deprecation deferrable initially deferred
    for each row execute function deprecation_is_complete();
create trigger frozen before update on deprecation for each row
    execute function only_these_change();
create trigger guarded before insert on deprecation for each row
    execute function may_be_deprecated();
create trigger kept before delete on deprecation for each row execute function never_deleted();
grant select on deprecation to countersign_reader;
grant select, insert on deprecation to countersign_app;


-- profiles

create table serving_profile (
    id uuid not null,
    version_id uuid not null,
    base_version_id uuid,
    system_prompt_id text,
    engine text not null,
    digest text not null,
    document jsonb not null,
    created_by uuid,
    created_at timestamptz not null,
    constraint pk_serving_profile primary key (id),
    constraint uq_serving_profile_version_id_digest unique (version_id, digest),
    constraint fk_serving_profile_base_version_id foreign key (base_version_id) references
        version(id),
    constraint fk_serving_profile_system_prompt_id foreign key (system_prompt_id) references
        blob(id),
    constraint fk_serving_profile_version_id foreign key (version_id) references version(id),
    constraint ck_serving_profile_digest check (digest ~ '^sha256:[0-9a-f]{64}$'),
    constraint ck_serving_profile_document check (not ((document ->> 'engine') is distinct from
        engine)),
    constraint ck_serving_profile_engine check (engine in ('vllm', 'sglang', 'tgi',
        'transformers')),
    constraint ck_serving_profile_prompt check (not ((document ->> 'system_prompt') is distinct from
        ('sha256:' || system_prompt_id)))
);
create index ix_serving_profile_base_version_id on serving_profile (base_version_id);
create index ix_serving_profile_system_prompt_id on serving_profile (system_prompt_id);

create function profile_of_registered_only() returns trigger language plpgsql as $$
-- A profile serves a registered version on its own base or on a verified quantisation of that base.
-- Rows are locked FOR SHARE, so that no recall comes between this check and the commit.
declare stands text; own_base uuid; base_stands text;
begin
    select state, base_version_id into stands, own_base from version
        where id = new.version_id for share;
    if stands is distinct from 'registered' then
        raise exception 'a serving profile needs a registered version; this one is %',
            coalesce(stands, 'missing')
            using errcode = 'CS004';
    end if;
    if new.base_version_id is distinct from own_base and not exists (
        select 1 from lineage_edge where child_id = new.base_version_id and parent_id = own_base
        and relation = 'quantised_from' and grade = 'verified'
    ) then
        raise exception 'a serving profile needs the version''s own base or a verified '
            'quantisation of it' using errcode = 'CS004';
    end if;
    if new.base_version_id is not null then
        select state into base_stands from version where id = new.base_version_id for share;
        if base_stands not in ('registered', 'deprecated') then
            raise exception 'the base of a serving profile is %', base_stands
                using errcode = 'CS004';
        end if;
    end if;
    return new;
end $$;

create constraint trigger audited after insert or delete or update on serving_profile
    deferrable initially deferred for each row execute function require_event();
create trigger frozen before update on serving_profile for each row
    execute function only_these_change();
create trigger kept before delete on serving_profile for each row execute function never_deleted();
create constraint trigger own_bytes after insert or update of system_prompt_id on serving_profile
    deferrable initially deferred for each row when (new.system_prompt_id is not null)
    execute function names_own_blob('system_prompt_id');
create trigger present before insert or update of system_prompt_id on serving_profile for each row
    when (new.system_prompt_id is not null) execute function names_present_blob('system_prompt_id');
create trigger registered before insert on serving_profile for each row
    execute function profile_of_registered_only();
grant select on serving_profile to countersign_reader;
grant select, insert on serving_profile to countersign_app;


-- retention

create table retention_class (
    id uuid not null,
    name text not null,
    keep_days integer not null,
    counted_from text not null,
    after text not null,
    draft_days integer not null,
    reason_commitment text not null,
    defined_by uuid,
    defined_at timestamptz not null,
    constraint pk_retention_class primary key (id),
    constraint uq_retention_class_name unique (name),
    constraint ck_retention_class_after check (after in ('may-go', 'due')),
    constraint ck_retention_class_counted_from check (counted_from in ('registration', 'service')),
    constraint ck_retention_class_days check (keep_days between 0 and 36500 and draft_days between 1
        and 3650)
);

create constraint trigger audited after insert or delete or update on retention_class
    deferrable initially deferred for each row execute function require_event();
create trigger frozen before update on retention_class for each row
    execute function only_these_change();
create trigger kept before delete on retention_class for each row execute function never_deleted();
grant select on retention_class to countersign_reader;
grant select, insert on retention_class to countersign_app;

create table retention_setting (
    id uuid not null,
    number bigint generated by default as identity not null,
    team text not null,
    kind text,
    name text,
    class_id uuid not null,
    reason_commitment text not null,
    set_by uuid not null,
    set_at timestamptz not null,
    constraint pk_retention_setting primary key (id),
    constraint uq_retention_setting_number unique (number),
    constraint fk_retention_setting_class_id foreign key (class_id) references retention_class(id),
    constraint fk_retention_setting_set_by foreign key (set_by) references account(id),
    constraint ck_retention_setting_kind check (kind in ('line', 'dataset')),
    constraint ck_retention_setting_scope check ((kind is null) = (name is null))
);
create index ix_retention_setting_scope on retention_setting (team, kind, name);

create function class_of(its_team text, its_kind text, its_name text, at timestamptz)
    returns uuid language sql stable as $$
    -- The class of a line or data set at a moment: its own setting, else its team's, else null.
    select s.class_id from retention_setting s
    where s.team = its_team and s.set_at <= at and (s.kind is null
        or (s.kind = its_kind and s.name = its_name))
    order by s.kind is null, s.number desc limit 1
$$;

create function setting_guard() returns trigger language plpgsql as $$
-- Only an administrator may put a line, a data set or a team under a shorter class.
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
        and not exists (select from role_grant where account_id = new.set_by
            and role = 'admin') then
        raise exception 'only an administrator may shorten how long versions are kept'
            using errcode = 'CS026';
    end if;
    return new;
end $$;

create constraint trigger audited after insert or delete or update on retention_setting
    deferrable initially deferred for each row execute function require_event();
create trigger frozen before update on retention_setting for each row
    execute function only_these_change();
create trigger guarded before insert on retention_setting for each row
    execute function setting_guard();
create trigger kept before delete on retention_setting for each row
    execute function never_deleted();
grant select on retention_setting to countersign_reader;
grant select, insert on retention_setting to countersign_app;

create table legal_hold (
    id uuid not null,
    number integer generated by default as identity not null,
    node_id uuid,
    line_id uuid,
    dataset_id uuid,
    case_commitment text not null,
    reason_commitment text not null,
    placed_by uuid not null,
    placed_at timestamptz not null,
    lifted_by uuid,
    lifted_at timestamptz,
    lift_reason_commitment text,
    constraint pk_legal_hold primary key (id),
    constraint uq_legal_hold_number unique (number),
    constraint fk_legal_hold_dataset_id foreign key (dataset_id) references dataset(id),
    constraint fk_legal_hold_lifted_by foreign key (lifted_by) references account(id),
    constraint fk_legal_hold_line_id foreign key (line_id) references line(id),
    constraint fk_legal_hold_node_id foreign key (node_id) references node(id),
    constraint fk_legal_hold_placed_by foreign key (placed_by) references account(id),
    constraint ck_legal_hold_four_eyes check (lifted_by <> placed_by),
    constraint ck_legal_hold_lifted check (num_nonnulls(lifted_by, lifted_at,
        lift_reason_commitment) in (0, 3)),
    constraint ck_legal_hold_one_thing check (num_nonnulls(node_id, line_id, dataset_id) = 1)
);
create index ix_legal_hold_standing on legal_hold (number) where lifted_at is null;

create function hold_guard() returns trigger language plpgsql as $$
-- Only a reviewer may lift a hold.
begin
    perform one_keeper();
    if tg_op = 'UPDATE' and not exists (
        select from role_grant where account_id = new.lifted_by and role = 'reviewer'
    ) then
        raise exception 'only a reviewer may lift hold %', new.number
            using errcode = 'CS021';
    end if;
    return new;
end $$;

create constraint trigger audited after insert or delete or update on legal_hold
    deferrable initially deferred for each row execute function require_event();
create trigger frozen before update on legal_hold for each row
    execute function only_these_change('lifted_at', 'lifted_by', 'lift_reason_commitment');
create trigger guarded before insert or update on legal_hold for each row
    execute function hold_guard();
create trigger kept before delete on legal_hold for each row execute function never_deleted();
create trigger settled before update on legal_hold for each row when (old.lifted_at is not null)
    execute function only_these_change();
grant select on legal_hold to countersign_reader;
grant select, insert, update on legal_hold to countersign_app;

create table tombstone (
    id uuid not null,
    how text not null,
    was text not null,
    reason_commitment text not null,
    deleted_by uuid,
    at timestamptz not null,
    constraint pk_tombstone primary key (id),
    constraint fk_tombstone_id foreign key (id) references node(id),
    constraint ck_tombstone_how check (how in ('deleted', 'discarded', 'expired')),
    constraint ck_tombstone_was check (was in ('draft', 'registered', 'deprecated', 'recalled'))
);

create function burial_is_complete() returns trigger language plpgsql as $$
-- At COMMIT: a version with a tombstone is deleted or recalled, and approved nowhere.
begin
    if not exists (select from version where id = new.id and state in ('deleted', 'recalled')
                   union all
                   select from dataset_version where id = new.id
                       and state in ('deleted', 'recalled'))
        or exists (select from review where version_id = new.id and state = 'approved') then
        raise exception '% has a tombstone, but is still registered or approved', new.id
            using errcode = 'CS002';
    end if;
    return null;
end $$;

create function search_forget() returns trigger language plpgsql
    security definer set search_path = public, pg_temp as $$
-- Mark a search row as deleted. The argument names the column with the version's id.
begin
    update version_search set deleted = true where id = (to_jsonb(new) ->> tg_argv[0])::uuid;
    return null;
end $$;

create function service_end(which uuid) returns timestamptz language sql stable as $$
    -- When a version last served, itself or as the base of another. Null if it never did.
    select max(coalesce(g.valid_to, clock_timestamp())) from route_generation g
        join channel c on c.id = g.channel_id
    where which in (g.stable_version_id, g.candidate_version_id, c.base_version_id)
$$;

create function retention_terms(which uuid) returns table(class text, keep_days integer,
    counted_from text, after text, since timestamptz) language sql stable as $$
    -- All terms that a version has been under since it was registered. A class that is assigned
    -- later adds its terms and removes none.
    with it as (
        select l.team, 'line' as kind, l.name, coalesce(v.registered_at, v.created_at) as since
        from version v join line l on l.id = v.line_id where v.id = which
        union all
        select d.team, 'dataset', d.name, coalesce(v.registered_at, v.created_at)
        from dataset_version v join dataset d on d.id = v.dataset_id where v.id = which
    ), named as (
        select class_of(it.team, it.kind, it.name, it.since) as class_id from it
        union
        select s.class_id from it join retention_setting s on s.team = it.team
            and s.set_at > it.since
        where (s.kind = it.kind and s.name = it.name) or (s.kind is null and not exists (
            select from retention_setting own
            where own.team = it.team and own.kind = it.kind and own.name = it.name
                and own.set_at <= s.set_at))
    )
    select coalesce(c.name, 'standard'), coalesce(c.keep_days, s.keep_days, 184),
        coalesce(c.counted_from, s.counted_from, 'service'), coalesce(c.after, s.after, 'may-go'),
        it.since
    from it cross join named n left join retention_class c on c.id = n.class_id
    left join retention_class s on n.class_id is null and s.name = 'standard'
$$;

create function kept_until(which uuid) returns timestamptz language sql stable as $$
    -- The end of the longest term that a version is under.
    select max(case t.counted_from when 'service' then greatest(t.since, service_end(which))
                                   else t.since end + t.keep_days * interval '24 hours')
    from retention_terms(which) t
$$;

create function needs(which uuid) returns table(why text, what text) language sql stable as $$
    -- What still needs a version, as (why, what): channels that serve it or may roll back to it,
    -- open reviews, active training and eval runs, and what derives from it. The rule in Python
    -- calls this function too, and has the better messages.
    select 'serves',
        l.team || '/' || l.name || ' in ' || c.environment || ' (channel ' || c.name || ')'
    from route_generation g join channel c on c.id = g.channel_id join line l on l.id = c.line_id
    where g.valid_to is null
      and (which in (g.stable_version_id, g.candidate_version_id)
           or (c.base_version_id = which and g.stable_version_id is not null))
    union all
    select 'rollout',
        l.team || '/' || l.name || ' in ' || c.environment || ' (channel ' || c.name || ')'
    from rollout r join channel c on c.id = r.channel_id join line l on l.id = c.line_id
    where r.ended_at is null and which in (r.version_id, r.rollback_target_id)
    union all
    select distinct 'rollback',
        l.team || '/' || l.name || ' in ' || c.environment || ' (channel ' || c.name || ')'
    from route_generation g join channel c on c.id = g.channel_id join line l on l.id = c.line_id
    join review r on r.version_id = which and r.environment = c.environment
    where g.stable_version_id = which and r.state = 'approved' and r.expires_at > clock_timestamp()
    union all
    select 'review', r.number::text from review r where r.version_id = which and r.state = 'open'
    union all
    select 'work', 'training-run:' || t.id from training_run t
    where t.state in ('queued', 'running') and (which in (t.base_version_id, t.dataset_version_id)
        -- the next attempt of a training run continues from its versions
        or t.id = (select v.training_run_id from version v where v.id = which))
    union all
    select 'work', 'eval-run:' || r.id from eval_run r where r.subject_id = which
        and r.state in ('queued', 'running')
    union all
    select 'beneath', n.ref from lineage_edge e join node n on n.id = e.child_id
    left join version v on v.id = n.id left join dataset_version d on d.id = n.id
    where e.parent_id = which and coalesce(v.state, d.state) is not null
      and not exists (select from tombstone t where t.id = n.id)
    union all
    select distinct 'beneath', n.ref from serving_profile p join version v on v.id = p.version_id
        join node n on n.id = v.id
    where p.base_version_id = which and not exists (select from tombstone t where t.id = v.id)
      -- versions with an edge are listed above
      and not exists (select from lineage_edge e where e.child_id = v.id and e.parent_id = which)
$$;

create function may_be_deleted() returns trigger language plpgsql as $$
-- A version gets a tombstone only if nothing holds, keeps or needs it. Its row is locked before it
-- is tested. Every route, review, run or edge that names the version locks it FOR SHARE, so that it
-- is either seen here, or sees the deletion.
declare stands text; held integer; until timestamptz; need record;
begin
    perform one_keeper();
    select state into stands from version where id = new.id for update;
    if stands is null then
        select state into stands from dataset_version where id = new.id for update;
    end if;
    if stands is null or stands = 'deleted' or stands <> new.was
        or (stands = 'draft') = (new.how = 'deleted') then
        raise exception '% cannot be % because it is %', new.id, new.how,
            coalesce(stands, 'no version') using errcode = 'CS002';
    end if;
    select h into held from holds_on(new.id) h limit 1;
    if held is not null then
        raise exception 'hold % covers %, so it cannot be deleted', held, new.id
            using errcode = 'CS021';
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
end $$;

create constraint trigger audited after insert or delete or update on tombstone
    deferrable initially deferred for each row execute function require_event();
create constraint trigger complete after insert on tombstone deferrable initially deferred
    for each row execute function burial_is_complete();
create trigger forgotten after insert on tombstone for each row
    execute function search_forget('id');
create trigger frozen before update on tombstone for each row execute function only_these_change();
create trigger guarded before insert on tombstone for each row execute function may_be_deleted();
create trigger kept before delete on tombstone for each row execute function never_deleted();
grant select on tombstone to countersign_reader;
grant select, insert on tombstone to countersign_app;

create table quota (
    id uuid not null,
    number bigint generated by default as identity not null,
    team text not null,
    max_bytes bigint,
    max_versions bigint,
    reason_commitment text not null,
    set_by uuid,
    set_at timestamptz not null,
    constraint pk_quota primary key (id),
    constraint uq_quota_number unique (number),
    constraint ck_quota_limits check (max_bytes >= 0 and max_versions >= 0)
);
create index ix_quota_team on quota (team, number);

create constraint trigger audited after insert or delete or update on quota
    deferrable initially deferred for each row execute function require_event();
create trigger frozen before update on quota for each row execute function only_these_change();
create trigger kept before delete on quota for each row execute function never_deleted();
grant select on quota to countersign_reader;
grant select, insert on quota to countersign_app;


-- search

create table version_search (
    id uuid not null,
    created_at timestamptz not null,
    team text not null,
    line text collate "C" not null,
    number integer not null,
    deleted boolean not null,
    terms text[] not null,
    seq bigint,
    words text,
    facets text[],
    constraint pk_version_search primary key (id),
    constraint fk_version_search_id foreign key (id) references version(id) on delete cascade
);
create index ix_version_search_created on version_search (created_at, id);
create index ix_version_search_line on version_search (line, number, id);
create index ix_version_search_seq on version_search (seq);
create index ix_version_search_terms on version_search using gin (terms) with (fastupdate=off);

grant select on version_search to countersign_app, countersign_reader;

create table version_metric (
    version_id uuid not null,
    name text not null,
    value double precision not null,
    constraint pk_version_metric primary key (version_id, name),
    constraint fk_version_metric_version_id foreign key (version_id) references version(id) on
        delete cascade
);
create index ix_version_metric_name on version_metric (name, value, version_id);

grant select on version_metric to countersign_app, countersign_reader;

create table search_era (
    id bigint generated always as identity not null,
    term text collate "C" not null,
    era bigint not null,
    constraint pk_search_era primary key (id)
);
create index ix_search_era_term on search_era (term, era);

grant select on search_era to countersign_app, countersign_reader;

create function search_grams(words text) returns text[] language sql immutable as $$
    -- Each word as overlapping groups of three characters, with blanks before its start: a word
    -- that contains 'laim' has 'g:lai' and 'g:aim', and one that starts with 'cl' has 'g: cl'.
    -- pg_trgm makes the same groups, but may not be installed.
    select coalesce(array_agg(distinct 'g:' || substr('  ' || word, at, 3)), '{}')
    from regexp_split_to_table(words, ' ') word, generate_series(1, least(length(word), 64)) at
$$;

create view search_row as
 select v.id,
    v.created_at,
    l.team,
    (l.team || '/') || l.name as line,
    coalesce(v.number, 0) as number,
    n.seq,
    (exists ( select
           from tombstone t
          where t.id = v.id)) as deleted,
    w.words,
    f.facets,
    ((((f.facets || array['name:' || l.name, (('line:' || l.team) || '/') || l.name, 'era:' ||
        (n.seq >> 12)]) ||
        case
            when v.created_by is null then '{}'::text[]
            else array['by:' || v.created_by]
        end) || coalesce(( select array['base:' || b.id, 'base:' || split_part(b.ref, '@', 1)] as
            "array"
           from node b
          where b.id = v.base_version_id), '{}'::text[])) || coalesce(( select array_agg('dataset:'
              || d.id order by d.id) || array_agg('dataset:' || split_part(substr(d.ref, 9), '@', 1)
              order by d.id)
           from lineage_edge e
             join node d on d.id = e.parent_id
          where e.child_id = v.id and e.relation = 'tuned_on'), '{}'::text[])) ||
              search_grams(w.words) as terms
   from version v
     join line l on l.id = v.line_id
     join node n on n.id = v.id,
    lateral ( select ' ' || array_to_string(regexp_split_to_array(lower(concat_ws(' ', l.team,
        l.name, l.domain)), '[^a-z0-9]+'), ' ') as words) w,
    lateral ( select ((((((array['kind:' || l.kind, 'state:' || v.state, 'team:' || l.team] ||
                case
                    when l.domain is null then '{}'::text[]
                    else array['domain:' || lower("left"(l.domain, 256))]
                end) ||
                case
                    when jsonb_typeof(v.meta -> 'licence') = 'string' then array['licence:' ||
                        lower("left"(v.meta ->> 'licence', 256))]
                    else '{}'::text[]
                end) ||
                case
                    when jsonb_typeof(v.facts -> 'method') = 'string' then array['method:' ||
                        lower("left"(v.facts ->> 'method', 256))]
                    else '{}'::text[]
                end) ||
                case
                    when jsonb_typeof(v.facts -> 'variant') = 'string' then ( select
                        array_agg('variant:' || one.one) as array_agg
                       from regexp_split_to_table(lower("left"(v.facts ->> 'variant', 256)), '[+]')
                           one(one))
                    else '{}'::text[]
                end) || coalesce(( select array_agg(distinct 'risk:' ||
                    lower("left"(split_part(one.value #>> '{}'::text[], ':', 1), 256))) as array_agg
                   from jsonb_array_elements(
                        case
                            when jsonb_typeof(v.facts -> 'risks') = 'array' then v.facts -> 'risks'
                            else '[]'::jsonb
                        end) one(value)
                  where jsonb_typeof(one.value) = 'string'), '{}'::text[])) || coalesce(( select
                      array['base-ref:' || b.ref] as "array"
                   from node b
                  where b.id = v.base_version_id), '{}'::text[])) || coalesce(( select
                      array_agg('tag:' || t.key order by t.key) || array_agg((('tag:' || t.key) ||
                      ':') || t.value order by t.key)
                   from version_tag t
                  where t.version_id = v.id and t.value is not null), '{}'::text[]) as facets) f;

create function search_rebuild() returns void language sql
    security definer set search_path = public, pg_temp as $$
    -- Rebuild all search rows, about thirty times faster than one after the other. They are written
    -- in the order of creation, so that the rows of an era are next to each other.
    insert into version_search
        (id, created_at, team, line, number, seq, deleted, words, facets, terms)
    select id, created_at, team, line, number, seq, deleted, words, facets, terms
    from search_row order by seq
    on conflict (id) do update set created_at = excluded.created_at, number = excluded.number,
        seq = excluded.seq, deleted = excluded.deleted, words = excluded.words,
        facets = excluded.facets, terms = excluded.terms;
    insert into search_era (term, era)
    select distinct term, s.seq >> 12 from version_search s, unnest(s.terms) as unnest(term)
    where term !~ '^(g|era|line|name):'
    and not exists (select 1 from search_era e where e.term = unnest.term and e.era = s.seq >> 12);
$$;
revoke execute on function search_rebuild() from public;


-- migrations

create table alembic_version (
    version_num character varying(32) not null,
    constraint alembic_version_pkc primary key (version_num)
);

grant select on alembic_version to countersign_app, countersign_reader;


-- background jobs: the schema procrastinate, made by its own SQL

-- procrastinate.procrastinate_events: delete, insert, select, update to countersign_app
-- procrastinate.procrastinate_events_id_seq: usage to countersign_app
-- procrastinate.procrastinate_jobs: delete, insert, select, update to countersign_app
-- procrastinate.procrastinate_jobs_id_seq: usage to countersign_app
-- procrastinate.procrastinate_periodic_defers: delete, insert, select, update to countersign_app
-- procrastinate.procrastinate_periodic_defers_id_seq: usage to countersign_app
-- procrastinate.procrastinate_workers: delete, insert, select, update to countersign_app
-- procrastinate.procrastinate_workers_id_seq: usage to countersign_app
