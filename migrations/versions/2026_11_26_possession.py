"""Who has sent which bytes; and a row names the bytes of another team only by who has sent them or may see that team.

Must work beside the version of the code that is still running while it deploys: that one notes no sender, so bytes
that no other team names pass as before. What it sent shortly before is sent once more when it is to be named after.
"""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_26_possession"
down_revision = "2026_11_25_search_rows"
branch_labels = None
depends_on = None

NAMERS = (
    ("version_file", "blob_id"),
    ("dataset_version", "blob_id"),
    ("eval_suite_version", "blob_id"),
    ("eval_run", "samples_blob_id"),
    ("serving_profile", "system_prompt_id"),
)
FUNCTIONS = (
    """
-- The teams whose rows name these bytes, but for one thing's own rows. A new foreign key to blob is to be added here.
create function teams_naming(which text, but uuid) returns table (team text) language sql stable as $$
    select l.team from version_file f join version v on v.id = f.version_id join line l on l.id = v.line_id
    where f.blob_id = which and f.version_id <> but
    union select n.team from dataset_version r join node n on n.id = r.id where r.blob_id = which and r.id <> but
    union select n.team from eval_suite_version r join node n on n.id = r.id where r.blob_id = which and r.id <> but
    union select n.team from eval_run r join node n on n.id = r.id where r.samples_blob_id = which and r.id <> but
    union select n.team from serving_profile r join node n on n.id = r.version_id
        where r.system_prompt_id = which and r.id <> but
$$
""",
    """
-- At COMMIT, when the event says who acts: a digest alone is no key to bytes of another team. The registry itself, whose
-- events bear no actor, moves nothing from team to team.
create function names_own_blob() returns trigger language plpgsql as $$
declare
    wanted text := to_jsonb(new) ->> tg_argv[0];
    its_own uuid := (to_jsonb(new) ->> case tg_table_name when 'version_file' then 'version_id' else 'id' end)::uuid;
    acting uuid;
begin
    select e.actor_id into acting from event_row r join event e on e.id = r.event_id
    where r.txid = pg_current_xact_id() and r.table_name = tg_table_name and r.row_key = to_jsonb(new) ->> 'id';
    if acting is null or exists (select from blob_sender where id = wanted and account_id = acting and whole) then
        return null;
    end if;
    if exists (select from teams_naming(wanted, its_own)) and not exists (
        select from teams_naming(wanted, its_own) t join role_grant g on g.account_id = acting
        and (g.team is null or g.team = t.team or g.role in ('admin', 'reviewer', 'auditor'))
    ) then
        raise exception 'the bytes sha256:% are not here for who names them', wanted using errcode = 'CS025';
    end if;
    return null;
end $$
""",
)

# Rows of these are few beside files of versions, and whoever looks for who names bytes read them all.
INDEXES = (
    "create index ix_dataset_version_blob_id on dataset_version (blob_id)",
    "create index ix_eval_suite_version_blob_id on eval_suite_version (blob_id)",
    "create index ix_eval_run_samples_blob_id on eval_run (samples_blob_id)",
)


def upgrade() -> None:
    # Give up quickly rather than queue every writer behind a waiting lock.
    op.execute("SET LOCAL lock_timeout = '4s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.create_table(
        "blob_sender",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("whole", sa.Boolean(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", "account_id", name=op.f("pk_blob_sender")),
    )
    op.execute("grant select on blob_sender to countersign_app, countersign_reader")
    op.execute("grant insert, update, delete on blob_sender to countersign_app")
    # It noted what an object store was asked for, as the senders do now; no release had it.
    op.execute("-- squawk-ignore ban-drop-table\ndrop table blob_mention")
    for index in INDEXES:
        op.execute(f"-- squawk-ignore require-concurrent-index-creation\n{index}")
    for function in FUNCTIONS:
        op.execute(function)
    for table, column in NAMERS:
        op.execute(
            f"create constraint trigger own_bytes after insert or update of {column} on {table} "
            f"deferrable initially deferred for each row when (new.{column} is not null) "
            f"execute function names_own_blob('{column}')"
        )


def downgrade() -> None:
    for table, _ in NAMERS:
        op.execute(f"drop trigger own_bytes on {table}")
    for function in ("names_own_blob()", "teams_naming(text, uuid)"):
        op.execute(f"drop function {function}")
    for index in INDEXES:
        op.execute(f"drop index {index.split()[2]}")
    op.drop_table("blob_sender")
    op.create_table(
        "blob_mention",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_blob_mention")),
    )
    op.execute("grant select on blob_mention to countersign_app, countersign_reader")
    op.execute("grant insert, update, delete on blob_mention to countersign_app")
