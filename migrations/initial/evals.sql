-- Suites and eval runs.

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
create trigger present before insert or update of blob_id on eval_suite_version for each row
    when (new.blob_id is not null) execute function names_present_blob('blob_id');
create constraint trigger own_prompts after insert or update of prompts_blob_id
    on eval_suite_version deferrable initially deferred for each row
    execute function names_own_blob('prompts_blob_id');
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
    constraint ck_eval_run_outcomes check ((outcomes is null) = (report is null) and outcomes ~
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
