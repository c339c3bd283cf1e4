"""Tags, and the derived rows and indexes that search stands on.

Must work beside the version of the code that is still running while it deploys.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "2026_11_23_tags"
down_revision = "2026_11_23_profiles"
branch_labels = None
depends_on = None

FUNCTIONS = (
    """
-- Every beginning of every word, so that a word half typed is one exact term of the index.
create function search_words(words text) returns text[] language sql immutable as $$
    select coalesce(array_agg(distinct 'w:' || left(word, size)), '{}')
    from regexp_split_to_table(lower(words), '[^a-z0-9]+') word, generate_series(1, least(length(word), 24)) size
$$
""",
    """
-- The search row of one version, made anew from the governed rows: derived, so it can always be rebuilt.
create function search_refresh(which uuid) returns void language sql
security definer set search_path = public, pg_temp as $$
    insert into version_search (id, created_at, team, line, number, deleted, terms)
    select v.id, v.created_at, l.team, l.team || '/' || l.name, coalesce(v.number, 0), false,
        array['kind:' || l.kind, 'state:' || v.state, 'team:' || l.team, 'name:' || l.name,
              'line:' || l.team || '/' || l.name]
        || case when l.domain is null then '{}' else array['domain:' || lower(left(l.domain, 256))] end
        || case when jsonb_typeof(v.meta -> 'licence') = 'string'
           then array['licence:' || lower(left(v.meta ->> 'licence', 256))] else '{}' end
        || coalesce((select array['base:' || b.id, 'base:' || split_part(b.ref, '@', 1), 'base-ref:' || b.ref]
                     from node b where b.id = v.base_version_id), '{}')
        || coalesce((select array_agg('dataset:' || d.id) || array_agg('dataset:' || split_part(substr(d.ref, 9), '@', 1))
                     from lineage_edge e join node d on d.id = e.parent_id
                     where e.child_id = v.id and e.relation = 'tuned_on'), '{}')
        || coalesce((select array_agg('tag:' || t.key) || array_agg('tag:' || t.key || ':' || t.value)
                     from version_tag t where t.version_id = v.id and t.value is not null), '{}')
        || search_words(concat_ws(' ', l.team, l.name, l.domain))
    from version v join line l on l.id = v.line_id where v.id = which
    on conflict (id) do update set number = excluded.number, terms = excluded.terms
$$
""",
    """
-- By metric, what the newest finished eval run of a version said.
create function search_measure(which uuid) returns void language sql
security definer set search_path = public, pg_temp as $$
    insert into version_metric (version_id, name, value)
    select distinct on (m.name) r.subject_id, m.name, m.value
    from eval_run r join eval_metric m on m.eval_run_id = r.id
    where r.subject_id = which and r.state = 'succeeded' order by m.name, r.finished_at desc
    on conflict (version_id, name) do update set value = excluded.value
$$
""",
    """
create function search_follow() returns trigger language plpgsql security definer set search_path = public, pg_temp as $$
begin
    if tg_table_name = 'eval_metric' then
        perform search_measure((select subject_id from eval_run where id = new.eval_run_id));
    elsif tg_table_name = 'eval_run' then
        perform search_measure(new.subject_id);
    else
        perform search_refresh((to_jsonb(new) ->> tg_argv[0])::uuid);
    end if;
    return null;
end $$
""",
    """
-- For whoever keeps tombstones: a trigger after insert, naming the column that holds the version's id.
create function search_forget() returns trigger language plpgsql security definer set search_path = public, pg_temp as $$
begin
    update version_search set deleted = true where id = (to_jsonb(new) ->> tg_argv[0])::uuid;
    return null;
end $$
""",
)


def upgrade() -> None:
    # Give up quickly rather than queue every writer behind a waiting lock.
    op.execute("SET LOCAL lock_timeout = '4s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.create_table(
        "version_tag",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("version_id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=True),
        sa.Column("set_by", sa.Uuid(), nullable=True),
        sa.Column("set_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("key ~ '^[a-z0-9][a-z0-9._/-]{0,62}$'", name=op.f("ck_version_tag_key")),
        sa.CheckConstraint(
            "key not in ('approved', 'approval', 'production', 'staging', 'dev', 'live', 'stable', 'candidate', "
            "'recalled', 'revoked', 'verified', 'signed', 'rejected', 'deprecated', 'registered', 'draft')",
            name=op.f("ck_version_tag_reserved"),
        ),
        sa.CheckConstraint(
            "value is null or length(value) between 1 and 256", name=op.f("ck_version_tag_value")
        ),
        sa.ForeignKeyConstraint(
            ["version_id"], ["version.id"], name=op.f("fk_version_tag_version_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_version_tag")),
        sa.UniqueConstraint("version_id", "key", name=op.f("uq_version_tag_version_id_key")),
    )
    op.create_table(
        "version_search",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("team", sa.Text(), nullable=False),
        sa.Column("line", sa.Text(collation="C"), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("deleted", sa.Boolean(), nullable=False),
        sa.Column("terms", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.ForeignKeyConstraint(
            ["id"], ["version.id"], name=op.f("fk_version_search_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_version_search")),
    )
    op.create_index(
        "ix_version_search_created", "version_search", ["created_at", "id"], unique=False
    )
    op.create_index(
        "ix_version_search_line", "version_search", ["line", "number", "id"], unique=False
    )
    op.create_index(
        "ix_version_search_terms",
        "version_search",
        ["terms"],
        unique=False,
        postgresql_using="gin",
        postgresql_with={"fastupdate": "off"},
    )
    op.create_table(
        "version_metric",
        sa.Column("version_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["version_id"],
            ["version.id"],
            name=op.f("fk_version_metric_version_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("version_id", "name", name=op.f("pk_version_metric")),
    )
    op.create_index(
        "ix_version_metric_name", "version_metric", ["name", "value", "version_id"], unique=False
    )
    for function in FUNCTIONS:
        op.execute(function)
    op.execute(
        "create constraint trigger audited after insert or update or delete on version_tag "
        "deferrable initially deferred for each row execute function require_event()"
    )
    op.execute(
        "create trigger kept before delete on version_tag for each row execute function never_deleted()"
    )
    op.execute(
        "create trigger frozen before update on version_tag "
        "for each row execute function only_these_change('value', 'set_by', 'set_at')"
    )
    for table, column in (
        ("version", "id"),
        ("version_tag", "version_id"),
        ("lineage_edge", "child_id"),
    ):
        op.execute(
            f"create trigger searchable after insert or update on {table} "
            f"for each row execute function search_follow('{column}')"
        )
    op.execute(
        "create trigger searchable after insert on eval_metric for each row execute function search_follow()"
    )
    op.execute(
        "create trigger searchable after update of state on eval_run for each row "
        "when (new.state = 'succeeded') execute function search_follow()"
    )
    op.execute(
        "grant select on version_tag, version_search, version_metric to countersign_app, countersign_reader"
    )
    op.execute("grant insert, update on version_tag to countersign_app")
    op.execute("select search_refresh(id) from version")
    op.execute(
        "select search_measure(subject_id) from (select distinct subject_id from eval_run) measured"
    )


def downgrade() -> None:
    raise RuntimeError(
        "This migration cannot be undone: the log tells of tags. Restore a backup instead."
    )
