-- Data sets and their versions.

create function has_only_train(splits jsonb) returns boolean language sql immutable as $$
    -- Whether all rows are of the split that is trained on: trainers read such a file whole. Rows
    -- of other splits are expected answers, because suites are made of them.
    select splits - 'train' = '{}'
$$;

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

-- After a deletion the same bytes may be registered again, but no number is used twice.
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
    constraint ck_dataset_version_numbered check ((number is null) = (state = 'draft')
        or (number is null and state in ('recalled', 'deleted'))),
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
