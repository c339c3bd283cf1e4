-- Training runs and the leases of trainers.

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

-- The worker of each run, and the end of its lease.
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
