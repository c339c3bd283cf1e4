-- Serving profiles: what a version may be served as. A profile never changes.

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
