-- Deprecations: versions and data set versions that should not be newly used.

create table deprecation (
    id uuid not null,
    reason_commitment text not null,
    deprecated_by uuid,
    at timestamptz not null,
    constraint pk_deprecation primary key (id),
    constraint fk_deprecation_id foreign key (id) references node(id)
);

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

create constraint trigger audited after insert or delete or update on deprecation
    deferrable initially deferred for each row execute function require_event();
create constraint trigger complete after insert on deprecation
    deferrable initially deferred for each row execute function deprecation_is_complete();
create trigger frozen before update on deprecation for each row
    execute function only_these_change();
create trigger guarded before insert on deprecation for each row
    execute function may_be_deprecated();
create trigger kept before delete on deprecation for each row execute function never_deleted();
grant select on deprecation to countersign_reader;
grant select, insert on deprecation to countersign_app;

create function deprecated_with_reason() returns trigger language plpgsql as $$
-- A deprecated version has a deprecation, which contains the reason.
begin
    if not exists (select from deprecation where id = new.id) then
        raise exception '% has no deprecation, which contains the reason', new.id
            using errcode = 'CS002';
    end if;
    return new;
end $$;

create trigger deprecated before insert or update of state on version for each row
    when (new.state = 'deprecated') execute function deprecated_with_reason();
create trigger deprecated before insert or update of state on dataset_version for each row
    when (new.state = 'deprecated') execute function deprecated_with_reason();

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

create trigger current before insert on rollout for each row
    execute function starts_what_is_current();

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

create trigger current before insert on route_generation for each row
    when (new.candidate_version_id is not null) execute function candidate_is_current();
