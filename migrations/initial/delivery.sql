-- Channels, rollouts, routes and recalls.

-- The exclusion constraint of route_generation needs it to compare uuids. The extension is trusted,
-- so the database's owner may install it.
create extension btree_gist;

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

-- What a channel serves, by range of time.
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
    constraint ck_route_generation_killed check (not killed or candidate_version_id is null),
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
create constraint trigger followed after insert or update of valid_to on route_generation
    deferrable initially deferred for each row when (new.valid_to is not null)
    execute function range_is_followed();
create trigger frozen before update on route_generation for each row
    execute function only_these_change('valid_to');
create trigger guarded before insert on route_generation for each row
    execute function route_guard();
create trigger kept before delete on route_generation for each row execute function never_deleted();
-- A closed range is not opened again.
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
