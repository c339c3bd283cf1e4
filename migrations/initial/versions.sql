-- Versions, their files and their tags.

-- After a deletion the same bytes may be registered again, but no number is used twice.
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
    constraint ck_version_numbered check ((number is null) = (state = 'draft')
        or (number is null and state in ('recalled', 'deleted'))),
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
    constraint ck_version_tag_value check (value is null
        or length(value) between 1 and 256)
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
