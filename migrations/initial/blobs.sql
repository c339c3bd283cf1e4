-- Bytes, who sent them, and when they may be collected.

-- Bytes by their SHA-256. The row stays when its bytes are collected.
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

-- Which account has sent which bytes; upkeep, not evidence.
create table blob_sender (
    id text not null,
    account_id uuid not null,
    whole boolean not null,
    at timestamptz not null,
    constraint pk_blob_sender primary key (id, account_id)
);

grant select on blob_sender to countersign_reader;
grant select, insert, update, delete on blob_sender to countersign_app;
