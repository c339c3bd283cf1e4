"""Database roles and what each may touch.

Must work beside the version of the code that is still running while it deploys.
"""

from alembic import op

revision = "2026_11_22_roles"
down_revision = "2026_11_22_delivery"
branch_labels = None
depends_on = None

GROUPS = ("countersign_app", "countersign_sequencer", "countersign_reader")

CHANGED_BY_APP = (
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


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '4s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    # Roles belong to the whole cluster: another database of ours may have made them already.
    for group in GROUPS:
        op.execute(
            f"""
            do $$
            declare was text := current_setting('role');
            begin
                begin
                    if not exists (select 1 from pg_roles where rolname = '{group}') then
                        create role {group} nologin;
                    end if;
                exception when duplicate_object or unique_violation then null;
                end;
                begin
                    -- Since PostgreSQL 16 the maker of a role may administer it but not yet act as it.
                    execute format('grant {group} to %I', current_user);
                exception when insufficient_privilege then
                    -- A superuser may have granted it already; to act as it is all that is asked.
                    perform set_config('role', '{group}', true), set_config('role', was, true);
                end;
            exception when insufficient_privilege then
                raise exception 'the database role {group} is missing and % may not make it', current_user
                    using hint = 'As a superuser: create role {group} nologin; grant {group} to the owner.';
            end $$
            """
        )
    op.execute("revoke all on schema public from public")
    for group in GROUPS:
        op.execute(f"grant usage on schema public to {group}")
    op.execute("grant select on all tables in schema public to countersign_app")
    op.execute(f"grant insert, update on {', '.join(CHANGED_BY_APP)} to countersign_app")
    # Not txid: which transaction wrote an event is PostgreSQL's to say. Not event_pending: a trigger fills it.
    op.execute(
        "grant insert (id, at, actor_id, action, subject, team, outcome, entry) on event to countersign_app"
    )
    op.execute("grant insert (table_name, row_key, event_id) on event_row to countersign_app")
    # Erasure deletes personal text; nothing ever changes it.
    op.execute("grant insert, delete on personal to countersign_app")
    op.execute("grant insert, update, delete on lease, token_use, web_session to countersign_app")
    op.execute("grant usage on all sequences in schema public to countersign_app")
    op.execute("grant select on event, leaf, tree_head, event_pending to countersign_sequencer")
    # FOR UPDATE SKIP LOCKED asks for the UPDATE right too.
    op.execute("grant update, delete on event_pending to countersign_sequencer")
    op.execute("grant insert on leaf, tree_head to countersign_sequencer")
    op.execute("grant update (note) on tree_head to countersign_sequencer")
    op.execute("grant select on all tables in schema public to countersign_reader")
    op.execute("revoke select on token, web_session, personal from countersign_reader")


def downgrade() -> None:
    for group in GROUPS:
        op.execute(f"revoke all on all tables in schema public from {group}")
        op.execute(f"revoke all on all sequences in schema public from {group}")
        op.execute(f"revoke all on schema public from {group}")
    op.execute("grant usage on schema public to public")
