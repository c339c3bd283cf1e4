-- Accounts, their roles, and how they prove who they are.

-- People and services. Their names are personal text.
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

-- API tokens, by the hash of their secret. Only a gateway's token may be bound to one environment.
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
        '$[*] ? (exists(@.environment) && !(@.role == "gateway" && (@.environment == "dev" '
        '|| @.environment == "staging" || @.environment == "production")))')),
    constraint ck_token_expiry check (expires_at > created_at
        and expires_at <= created_at + interval '366 days'),
    constraint ck_token_hash check (secret_hash ~ '^sha256:[0-9a-f]{64}$')
);
create index ix_token_account_id on token (account_id);

create constraint trigger audited after insert or delete or update on token
    deferrable initially deferred for each row execute function require_event();
create trigger frozen before update on token for each row
    execute function only_these_change('revoked_at');
create trigger kept before delete on token for each row execute function never_deleted();
-- A revoked token does not change, so it cannot be made valid again.
create trigger settled before update on token for each row when (old.revoked_at is not null)
    execute function only_these_change();
grant select, insert, update on token to countersign_app;

-- When a token was last used. It is a table of its own so that no request changes a governed row.
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
