-- The audit log, its outbox, and personal text.

-- The default of txid is the transaction that writes the event.
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
-- The app may not write txid: PostgreSQL sets the transaction that wrote an event.
grant select on event to countersign_reader, countersign_sequencer;
grant select, insert (id, at, actor_id, action, subject, team, outcome, entry) on event to
    countersign_app;
grant usage on sequence event_place_seq to countersign_app;

-- The rows that an event names. The foreign key over both columns ties them to an event of the same
-- transaction, not to an earlier one.
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

-- The outbox: events that wait for their number in the log.
create table event_pending (
    place bigint not null,
    event_id uuid not null,
    constraint pk_event_pending primary key (place),
    constraint fk_event_pending_event_id foreign key (event_id) references event(id)
);

-- The app may not write it: a trigger does. FOR UPDATE SKIP LOCKED needs the UPDATE right too.
grant select on event_pending to countersign_app, countersign_reader;
grant select, update, delete on event_pending to countersign_sequencer;

-- The log: the order and the hash of every event.
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

-- The root of the log's tree at a size, and the signed note on it.
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

-- Personal text by its commitment; governed rows and events contain only the commitment.
create table personal (
    commitment text not null,
    kind text not null,
    salt bytea not null,
    value text not null,
    constraint pk_personal primary key (commitment),
    constraint ck_personal_commitment check (commitment ~ '^sha256:[0-9a-f]{64}$')
);
create unique index uq_personal_account_name on personal (value) where kind = 'account';

-- Erasure deletes personal text; nothing changes it.
grant select, insert, delete on personal to countersign_app;
