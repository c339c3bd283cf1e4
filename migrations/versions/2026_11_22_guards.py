"""Guards of the log and of frozen things: unaudited commits, illegal transitions, changed evidence.

Must work beside the version of the code that is still running while it deploys.
"""

from alembic import op

revision = "2026_11_22_guards"
down_revision = "2026_11_22_roles"
branch_labels = None
depends_on = None

GOVERNED = (
    "account",
    "role_grant",
    "token",
    "signing_key",
    "node",
    "line",
    "blob",
    "dataset",
    "dataset_version",
    "training_run",
    "version",
    "version_file",
    "lineage_edge",
    "eval_suite",
    "eval_suite_version",
    "eval_run",
    "eval_metric",
    "use_case",
    "policy_version",
    "review",
    "vote",
    "channel",
    "rollout",
    "route_generation",
    "recall",
)
# Table -> the columns that may still change after birth; all others are history. Versions are further below.
MUTABLE: dict[str, tuple[str, ...]] = {
    "account": (),
    "role_grant": (),
    "token": ("revoked_at",),
    "signing_key": ("revoked_at",),
    "node": ("ref", "seq"),
    "line": (),
    "blob": (),
    "dataset": (),
    "lineage_edge": (),
    "eval_suite": (),
    "eval_suite_version": (),
    "eval_metric": (),
    "use_case": (),
    "policy_version": (),
    "vote": (),
    "channel": (),
    "recall": (),
    "review": ("state", "decided_at", "expires_at"),
    "rollout": ("state", "weight_bp", "ended_at"),
    "route_generation": ("valid_to",),
    "training_run": (
        "state",
        "attempt",
        "trainer_id",
        "report",
        "report_key",
        "report_signature",
        "error",
        "started_at",
        "finished_at",
    ),
    "eval_run": (
        "state",
        "attempt",
        "trainer_id",
        "report",
        "report_key",
        "report_signature",
        "samples_blob_id",
        "error",
        "started_at",
        "finished_at",
    ),
}
# Table -> when its row has come to rest, and the columns that may change even then. What ended stays as it ended:
# no token is un-revoked, no range re-opened, no approval prolonged, no report exchanged.
SETTLED: dict[str, tuple[str, tuple[str, ...]]] = {
    "token": ("old.revoked_at is not null", ()),
    "signing_key": ("old.revoked_at is not null", ()),
    "route_generation": ("old.valid_to is not null", ()),
    "rollout": ("old.ended_at is not null", ()),
    "training_run": ("old.state in ('succeeded', 'failed', 'cancelled')", ()),
    "eval_run": ("old.state in ('succeeded', 'failed', 'cancelled')", ()),
    "review": ("old.state <> 'open'", ("state",)),
    "version": ("old.state <> 'draft'", ("state",)),
    "dataset_version": ("old.state <> 'draft'", ("state",)),
    # A draft is renamed once, when it gets its number.
    "node": ("position('@draft-' in old.ref) = 0", ()),
}

TRANSITIONS: dict[str, tuple[tuple[str, str], ...]] = {
    "version": (
        ("", "draft"),
        ("draft", "registered"),
        ("registered", "deprecated"),
        ("draft", "recalled"),
        ("registered", "recalled"),
        ("deprecated", "recalled"),
    ),
    "dataset_version": (
        ("", "draft"),
        ("draft", "registered"),
        ("registered", "deprecated"),
        ("draft", "recalled"),
        ("registered", "recalled"),
        ("deprecated", "recalled"),
    ),
    "review": (
        ("", "open"),
        ("open", "approved"),
        ("open", "rejected"),
        ("open", "changes_requested"),
        ("open", "withdrawn"),
        ("open", "expired"),
        ("approved", "voided"),
        ("approved", "expired"),
    ),
    "training_run": (
        ("", "queued"),
        ("queued", "running"),
        ("running", "queued"),
        ("running", "succeeded"),
        ("running", "failed"),
        ("running", "cancelled"),
        ("queued", "cancelled"),
    ),
    "eval_run": (
        ("", "queued"),
        ("queued", "running"),
        ("running", "queued"),
        ("running", "succeeded"),
        ("running", "failed"),
        ("running", "cancelled"),
        ("queued", "cancelled"),
    ),
    "rollout": (
        ("", "pending"),
        ("pending", "shadowing"),
        ("pending", "canary"),
        ("shadowing", "canary"),
        ("canary", "paused"),
        ("paused", "canary"),
        ("canary", "inconclusive"),
        ("inconclusive", "canary"),
        ("canary", "promoting"),
        ("inconclusive", "promoting"),
        ("promoting", "succeeded"),
        *(
            (state, end)
            for state in ("pending", "shadowing", "canary", "paused", "inconclusive", "promoting")
            for end in ("aborted", "rolled_back", "expired", "superseded")
        ),
    ),
}
FUNCTIONS = """
-- At COMMIT: a governed row may have changed only beside an event of this very transaction that names it.
create function require_event() returns trigger language plpgsql as $$
declare touched text := coalesce(to_jsonb(new), to_jsonb(old)) ->> 'id';
begin
    if not exists (
        select 1 from event_row
        where txid = pg_current_xact_id() and table_name = tg_table_name and row_key = touched
    ) then
        raise exception 'the row % of % changed without an audit event that names it', touched, tg_table_name
            using errcode = 'CS001', constraint = 'audited';
    end if;
    return null;
end $$;

-- Only the columns named may differ from what they were. Without any named, tg_argv is null and not empty.
create function only_these_change() returns trigger language plpgsql as $$
declare free text[] := coalesce(tg_argv, '{}');
begin
    if (to_jsonb(new) - free) is distinct from (to_jsonb(old) - free) then
        raise exception 'the row % of % is frozen', to_jsonb(old) ->> 'id', tg_table_name using errcode = 'CS003';
    end if;
    return new;
end $$;

create function never_deleted() returns trigger language plpgsql as $$
begin
    raise exception 'rows of % are never deleted', tg_table_name using errcode = 'CS003';
end $$;

create function append_only() returns trigger language plpgsql as $$
begin
    raise exception 'the log is append-only: % of % refused', lower(tg_op), tg_table_name using errcode = 'CS008';
end $$;

-- A state may take only the listed steps; terminal states have none, so nothing is resurrected.
create function legal_transition() returns trigger language plpgsql as $$
declare was text := case when tg_op = 'INSERT' then '' else old.state end;
begin
    if was is distinct from new.state and not exists (
        select 1 from transition where table_name = tg_table_name and old_state = was and new_state = new.state
    ) then
        raise exception '% cannot go from % to %', replace(tg_table_name, '_', ' '),
            case was when '' then 'nothing' else was end, new.state using errcode = 'CS002';
    end if;
    return new;
end $$;

create function files_of_drafts_only() returns trigger language plpgsql as $$
declare frozen uuid;
begin
    -- Both ends of a move: a file may neither leave a numbered version nor come into one.
    perform 1 from version where id in (old.version_id, new.version_id) order by id for share;
    select id into frozen from version where id in (old.version_id, new.version_id) and state <> 'draft' limit 1;
    if frozen is not null then
        raise exception 'the files of version % are frozen', frozen using errcode = 'CS003';
    end if;
    return coalesce(new, old);
end $$;

-- Every event waits for its number from the moment it is there. It runs as its owner: the app may not touch the queue.
create function queue_event() returns trigger language plpgsql security definer set search_path = public, pg_temp as $$
begin
    insert into event_pending (place, event_id) values (new.place, new.id);
    return null;
end $$;
"""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '4s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.execute(
        "create table transition (table_name text not null, old_state text not null, new_state text not null, "
        "constraint pk_transition primary key (table_name, old_state, new_state))"
    )
    op.execute("grant select on transition to countersign_app, countersign_reader")
    for table, steps in TRANSITIONS.items():
        rows = ", ".join(f"('{table}', '{old}', '{new}')" for old, new in steps)
        op.execute(f"insert into transition values {rows}")
    for statement in FUNCTIONS.split("\n\n"):
        if statement.strip():
            op.execute(statement)
    for table in GOVERNED:
        op.execute(
            f"create constraint trigger audited after insert or update or delete on {table} "
            "deferrable initially deferred for each row execute function require_event()"
        )
        op.execute(
            f"create trigger kept before delete on {table} for each row "
            + ("when (old.state <> 'draft') " if table in ("version", "dataset_version") else "")
            + (
                "execute function files_of_drafts_only()"
                if table == "version_file"
                else "execute function never_deleted()"
            )
        )
    for table, columns in MUTABLE.items():
        arguments = ", ".join(f"'{column}'" for column in columns)
        op.execute(
            f"create trigger frozen before update on {table} for each row execute function only_these_change({arguments})"
        )
    for table, (at_rest, columns) in SETTLED.items():
        arguments = ", ".join(f"'{column}'" for column in columns)
        op.execute(
            f"create trigger settled before update on {table} for each row when ({at_rest}) "
            f"execute function only_these_change({arguments})"
        )
    op.execute(
        "create trigger frozen before insert or update on version_file "
        "for each row execute function files_of_drafts_only()"
    )
    for table in TRANSITIONS:
        op.execute(
            f"create trigger stepped before insert or update of state on {table} "
            "for each row execute function legal_transition()"
        )
    op.execute(
        "create trigger queued after insert on event for each row execute function queue_event()"
    )
    for table in ("event", "event_row", "leaf"):
        op.execute(
            f"create trigger append_only before update or delete or truncate on {table} "
            "for each statement execute function append_only()"
        )
    op.execute(
        "create trigger append_only before delete or truncate on tree_head "
        "for each statement execute function append_only()"
    )
    op.execute(
        "create trigger noted_once before update on tree_head for each row when (old.note is not null) "
        "execute function append_only()"
    )


def downgrade() -> None:
    # Without these guards the log would no longer prove anything; going back would destroy evidence.
    raise RuntimeError(
        "This migration cannot be undone: it guards the audit log. Restore a backup instead."
    )
