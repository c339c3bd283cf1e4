"""Search rows as a copy of one view: substrings of names, method, risk, maker, and an order that never shifts.

Must work beside the version of the code that is still running while it deploys: what that reads stays, but for the
beginnings of words (`w:`); until the old code has gone, its search by word may find too little. The rows are made anew
by the next step, so that no lock on the whole table is held meanwhile.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "2026_11_25_search"
down_revision = "2026_11_25_templates"
branch_labels = None
depends_on = None

GRAMS = """
-- A word as overlapping threes, its beginning marked by blanks: what contains 'laim' has 'g:lai' and 'g:aim', what
-- begins with 'cl' has 'g: cl'. The same threes as pg_trgm cuts, which may be absent.
create function search_grams(words text) returns text[] language sql immutable as $$
    select coalesce(array_agg(distinct 'g:' || substr('  ' || word, at, 3)), '{}')
    from regexp_split_to_table(words, ' ') word, generate_series(1, least(length(word), 64)) at
$$
"""

# Every list has one order, whatever the plan: a row then is its copy's, or it is not. The era is a term, so that the index
# itself can look at one stretch of births at a time (4,096 of them).
ROWS = """
create view search_row as
select v.id, v.created_at, l.team, l.team || '/' || l.name as line, coalesce(v.number, 0) as number, n.seq,
    exists (select from tombstone t where t.id = v.id) as deleted, w.words, f.facets,
    f.facets || array['name:' || l.name, 'line:' || l.team || '/' || l.name, 'era:' || (n.seq >> 12)]
    || case when v.created_by is null then '{}' else array['by:' || v.created_by] end
    || coalesce((select array['base:' || b.id, 'base:' || split_part(b.ref, '@', 1)]
                 from node b where b.id = v.base_version_id), '{}')
    || coalesce((select array_agg('dataset:' || d.id order by d.id)
                     || array_agg('dataset:' || split_part(substr(d.ref, 9), '@', 1) order by d.id)
                 from lineage_edge e join node d on d.id = e.parent_id
                 where e.child_id = v.id and e.relation = 'tuned_on'), '{}')
    || search_grams(w.words) as terms
from version v join line l on l.id = v.line_id join node n on n.id = v.id,
lateral (select ' ' || array_to_string(regexp_split_to_array(lower(concat_ws(' ', l.team, l.name, l.domain)), '[^a-z0-9]+'), ' ')
         as words) w,
lateral (select array['kind:' || l.kind, 'state:' || v.state, 'team:' || l.team]
    || case when l.domain is null then '{}' else array['domain:' || lower(left(l.domain, 256))] end
    || case when jsonb_typeof(v.meta -> 'licence') = 'string'
       then array['licence:' || lower(left(v.meta ->> 'licence', 256))] else '{}' end
    || case when jsonb_typeof(v.facts -> 'method') = 'string'
       then array['method:' || lower(left(v.facts ->> 'method', 256))] else '{}' end
    || case when jsonb_typeof(v.facts -> 'variant') = 'string'
       then (select array_agg('variant:' || one) from regexp_split_to_table(lower(left(v.facts ->> 'variant', 256)), '[+]') one)
       else '{}' end
    || coalesce((select array_agg(distinct 'risk:' || lower(left(split_part(one #>> '{}', ':', 1), 256))) from jsonb_array_elements(
        case when jsonb_typeof(v.facts -> 'risks') = 'array' then v.facts -> 'risks' else '[]' end) one
        where jsonb_typeof(one) = 'string'), '{}')
    || coalesce((select array['base-ref:' || b.ref] from node b where b.id = v.base_version_id), '{}')
    || coalesce((select array_agg('tag:' || t.key order by t.key)
                     || array_agg('tag:' || t.key || ':' || t.value order by t.key)
                 from version_tag t where t.version_id = v.id and t.value is not null), '{}') as facets) f
"""

COPY = """insert into version_search (id, created_at, team, line, number, seq, deleted, words, facets, terms)
    select id, created_at, team, line, number, seq, deleted, words, facets, terms from search_row {which}
    on conflict (id) do update set created_at = excluded.created_at, number = excluded.number, seq = excluded.seq,
        deleted = excluded.deleted, words = excluded.words, facets = excluded.facets, terms = excluded.terms"""

# Written when this transaction sees no such row, and never waited for: two of a kind do no harm, a deadlock would.
ERAS = """insert into search_era (term, era) select distinct term, s.seq >> 12 from version_search s, unnest(s.terms) as unnest(term)
    where {which} term !~ '^(g|era|line|name):'
    and not exists (select 1 from search_era e where e.term = unnest.term and e.era = s.seq >> 12)"""

REFRESH = f"""
-- The search row of one version, made anew from the governed rows: derived, so it can always be rebuilt.
create or replace function search_refresh(which uuid) returns void language sql
security definer set search_path = public, pg_temp as $$
    {COPY.format(which="where id = which")};
    {ERAS.format(which="s.id = which and")};
$$
"""
REBUILD = f"""
-- All of them at once, some thirty times faster than one after the other; in the order of birth, so that an era's rows
-- lie side by side.
create function search_rebuild() returns void language sql security definer set search_path = public, pg_temp as $$
    {COPY.format(which="order by seq")};
    {ERAS.format(which="")};
$$
"""


# The version's files are many, but the index is made in about a second for a million of them.
FILES = """
-- squawk-ignore require-concurrent-index-creation
create index ix_version_file_blob on version_file (blob_id text_pattern_ops)
"""
BIRTHS = """
-- squawk-ignore require-concurrent-index-creation
create index ix_version_search_seq on version_search (seq)
"""


def upgrade() -> None:
    # Give up quickly rather than queue every writer behind a waiting lock.
    op.execute("SET LOCAL lock_timeout = '4s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.add_column("version_search", sa.Column("seq", sa.BigInteger(), nullable=True))
    op.add_column("version_search", sa.Column("words", sa.Text(), nullable=True))
    op.add_column("version_search", sa.Column("facets", postgresql.ARRAY(sa.Text()), nullable=True))
    op.create_table(
        "search_era",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("term", sa.Text(collation="C"), nullable=False),
        sa.Column("era", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_search_era")),
    )
    op.create_index("ix_search_era_term", "search_era", ["term", "era"], unique=False)
    op.execute("grant select on search_era to countersign_app, countersign_reader")
    for made in (GRAMS, ROWS, REFRESH, REBUILD, BIRTHS, FILES):
        op.execute(made)
    op.execute("revoke execute on function search_rebuild() from public")


def downgrade() -> None:
    raise RuntimeError(
        "This migration cannot be undone: the old search rows are no longer made. Restore a backup instead."
    )
