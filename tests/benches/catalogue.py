"""A seeded catalogue as a large organisation has it: many versions, skewed as life is, for benches
and for tests.

Straight into the tables as their owner, triggers off, in a dozen statements; the search rows are
then made as a rebuild makes them. Every choice is drawn from a digest of the row's own number, so
the same count gives the same rows.
"""

from __future__ import annotations

from typing import Any

import psycopg

# What is put in, and in this order; triggers are off meanwhile, for they would write each search
# row several times.
TABLES = ("node", "line", "version", "version_tag", "lineage_edge", "blob", "version_file")

# A line has 25 versions. Teams follow a curve: t19 has a tenth of all, t0 little. 'archive' owns
# the oldest third and made nothing since, so what it has is numerous and all old. Every twentieth
# line is a base; old bases are stood on most.
SEED = """
create function pg_temp.draw(i bigint, what text, upto int) returns int language sql immutable as
 $$ select (('x' || substr(md5(what || i), 1, 8))::bit(32)::bigint % upto)::int $$;
create temp table seeded_line as select i, md5('line' || i)::uuid as id,
 case when i < LINES / 3 then 'archive'
  else 't' || floor(sqrt(pg_temp.draw(i, 'team', 400))) end as team,
 case when i % 20 = 0 then 'base' when i % 7 = 0 then 'checkpoint' else 'adapter' end as kind,
 (array['claims', 'fraud', 'triage', 'summary', 'notice', 'medclaims', 'contract', 'router',
   'letters', 'coding'])[1 + pg_temp.draw(i, 'word', 10)]
  || '-' || (array['llama', 'qwen', 'mistral', 'gemma', 'smol'])[1 + pg_temp.draw(i, 'family', 5)]
  || '-' || i as name,
 (array['claims', 'legal', 'health', 'finance', 'support'])
   [1 + pg_temp.draw(i, 'domain', 5)] as domain,
 20 * floor((i / 20) * power(pg_temp.draw(i, 'base', 1000) / 1000.0, 3))::int as stands_on
 from generate_series(0, LINES - 1) i;
create temp table seeded as
 select l.i * 25 + n - 1 as i, md5('v' || l.i * 25 + n - 1)::uuid as id, l.id as line_id,
 l.team, l.kind, l.team || '/' || l.name || '@v' || n as ref, n,
 case when l.kind = 'adapter' then md5('v' || l.stands_on * 25)::uuid end as base_id
 from seeded_line l, generate_series(1, 25) n;
insert into node (id, kind, team, ref) select md5('data' || i)::uuid, 'dataset', 't' || i % 20,
 'dataset:t' || i % 20 || '/rows-' || i || '@v1' from generate_series(0, 199) i;
insert into line (id, kind, team, name, domain, created_at) select id, kind, team, name,
 case when kind = 'adapter' then domain end, now() from seeded_line;
insert into node (id, kind, team, ref) select id, kind, team, ref from seeded order by i;
insert into version (id, line_id, number, state, manifest_digest, tensor_root, base_version_id,
  meta, facts, created_at)
 select id, line_id, n, case when pg_temp.draw(i, 'state', 100) < 2 then 'recalled'
  when pg_temp.draw(i, 'state', 100) < 8 then 'deprecated' else 'registered' end,
 'sha256:' || encode(sha256(('m' || i)::bytea), 'hex'),
 'sha256:' || encode(sha256(('r' || i)::bytea), 'hex'), base_id,
 jsonb_build_object('licence', (array['apache-2.0', 'apache-2.0', 'apache-2.0', 'mit', 'mit',
  'llama3.1', 'cc-by-4.0', 'proprietary'])[1 + pg_temp.draw(i, 'licence', 8)]),
 case when kind = 'adapter' then jsonb_build_object(
  'variant', case pg_temp.draw(i, 'variant', 20) when 0 then 'dora' else 'plain' end,
  'method', case pg_temp.draw(i, 'method', 50) when 0 then 'prefix' else 'lora' end) else '{}' end,
 now() - interval '900 days' + i * interval '10 minutes' from seeded;
insert into version_tag (id, version_id, key, value, set_at)
 select md5('topic' || i)::uuid, id, 'topic', pg_temp.draw(i, 'topic', 100)::text, now()
 from seeded where pg_temp.draw(i, 'tagged', 10) < 6;
insert into version_tag (id, version_id, key, value, set_at)
 select md5('customer' || i)::uuid, id, 'customer', 'c' || pg_temp.draw(i, 'customer', 5000), now()
 from seeded where pg_temp.draw(i, 'bought', 20) = 0;
insert into lineage_edge (id, child_id, child_seq, parent_id, parent_seq, relation, grade,
  created_at)
 select md5('edge' || s.i)::uuid, s.id, n.seq, d.id, d.seq, 'tuned_on', 'observed', now()
 from seeded s join node n on n.id = s.id join node d on d.id =
  md5('data' || floor(200 * power(pg_temp.draw(s.i, 'rows', 1000) / 1000.0, 3)))::uuid
 where s.kind = 'adapter';
insert into blob (id, size) select encode(sha256(('f' || i)::bytea), 'hex'), 1000 from seeded;
insert into version_file (id, version_id, path, blob_id)
 select md5('file' || i)::uuid, id, 'adapter_model.safetensors',
 encode(sha256(('f' || i)::bytea), 'hex') from seeded;
drop index ix_version_search_terms;
select search_rebuild();
create index ix_version_search_terms on version_search using gin (terms) with (fastupdate = off);
insert into version_metric (version_id, name, value)
 select id, 'accuracy', pg_temp.draw(i, 'accuracy', 10000) / 10000.0
 from seeded where kind = 'adapter' and pg_temp.draw(i, 'measured', 3) > 0;
insert into version_metric (version_id, name, value)
 select id, 'exact_match', pg_temp.draw(i, 'match', 10000) / 10000.0
 from seeded where pg_temp.draw(i, 'matched', 200) = 0;
"""

# Filters that find something here, alone and by two.
MIXED: list[dict[str, Any]] = [
    {"q": "claims"},
    {"q": "me"},
    {"kind": "adapter"},
    {"kind": "base"},
    {"team": "archive"},
    {"team": "t19"},
    {"tag": ["topic:5"]},
    {"tag": ["topic"]},
    {"licence": "mit"},
    {"domain": "health"},
    {"metric": ["accuracy>=0.5"]},
    {"metric": ["accuracy<0.02"]},
    {"state": "recalled"},
    {"state": "registered"},
    {"method": "prefix"},
    {"variant": "dora"},
    {"since": "2024-06-01"},
    {"name": "claims-llama-7"},
    {"base": "archive/claims-smol-0"},
    {"dataset": "t0/rows-0"},
]
SORTS = ("created", "name", "metric:accuracy", "metric:accuracy:lowest")


def mixed(*filters: dict[str, Any]) -> dict[str, Any]:
    """Several filters as one; of the same filter twice the last stands."""
    return {name: value for one in filters for name, value in one.items()}


def pairs() -> list[dict[str, Any]]:
    """Every filter by itself and with every other."""
    return [mixed(one, other) for at, one in enumerate(MIXED) for other in MIXED[at:]]


def seed(url: str, count: int) -> None:
    """Fill a migrated database with so many versions, a multiple of 25."""
    statements = SEED.replace("LINES", str(max(count // 25, 1))).split(";\n")
    with psycopg.connect(
        url.replace("postgresql+psycopg", "postgresql"), autocommit=True
    ) as connection:
        for what in ("disable", "enable"):
            for table in TABLES:
                connection.execute(f"alter table {table} {what} trigger user")
            if what == "disable":
                for statement in filter(str.strip, statements):
                    connection.execute(statement)
        connection.execute("vacuum analyze")
