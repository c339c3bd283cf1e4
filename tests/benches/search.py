"""Search pages among a thousand and among many versions: median and 95th percentile by filter, and what growth costs."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg

from registry.db import migrate
from registry.db.store import Store, open_engine
from registry.queries import search as queries
from registry.rules import searches
from registry.rules.actors import SYSTEM
from tests.database import open_databases

PAGES = 30
FILTERS: dict[str, dict[str, Any]] = {
    "everything": {}, "by name": {"sort": "name"}, "word, all": {"q": "line"}, "word, one line": {"q": "line 77"},
    "word, none": {"q": "absent"}, "name": {"name": "line-7"}, "kind, most": {"kind": "adapter"},
    "kind, one": {"kind": "base"}, "team": {"team": "t1"}, "tag, 1 %": {"tag": ["topic:5"]},
    "tag, all": {"tag": ["topic"]}, "tag, none": {"tag": ["absent"]}, "licence": {"licence": "mit"},
    "base, all": {"base": "t0/base"}, "data set, 1": {"dataset": "t0/rows"}, "metric, all": {"metric": ["accuracy>=0"]},
    "metric, few": {"metric": ["accuracy>=0.999"]}, "metric, none": {"metric": ["accuracy>2"]},
    "state, 1 %": {"state": "recalled"}, "state, most": {"state": "registered"}, "digest": {"digest": "00000a"},
    "tag and state": {"tag": ["topic:5"], "state": "registered"}, "disjoint pair": {"kind": "base", "state": "recalled"},
    "word and metric": {"q": "line", "metric": ["accuracy>=0.5"]}, "old team and state": {"team": "t0", "state": "registered"},
}  # fmt: skip

# Straight into the tables as their owner, triggers off: the search rows are then made as a rebuild makes them.
SEED = """
alter table node disable trigger user;
alter table line disable trigger user;
alter table version disable trigger user;
alter table version_tag disable trigger user;
alter table lineage_edge disable trigger user;
insert into node (id, kind, team, ref) values ('00000000-0000-4000-8000-000000000000', 'base', 't0', 't0/base@v1'),
 ('00000000-0000-4000-8000-00000000000d', 'dataset', 't0', 'dataset:t0/rows@v1');
insert into line (id, kind, team, name, created_at) values ('00000000-0000-4000-8000-000000000000', 'base', 't0', 'base', now());
insert into version (id, line_id, number, state, manifest_digest, tensor_root, meta, facts, created_at) values
 ('00000000-0000-4000-8000-000000000000', '00000000-0000-4000-8000-000000000000', 1, 'registered',
  'sha256:' || repeat('f', 64), 'sha256:' || repeat('e', 64), '{"licence": "apache-2.0"}', '{}', now() - interval '1 year');
insert into line (id, kind, team, name, domain, created_at) select md5('line' || i)::uuid, 'adapter', 't' || i % 10,
 'line-' || i, 'd' || i % 5, now() from generate_series(0, greatest(COUNT / 20 - 1, 0)) i;
insert into node (id, kind, team, ref) select md5('v' || i)::uuid, 'adapter', 't' || (i / 20) % 10,
 't' || (i / 20) % 10 || '/line-' || i / 20 || '@v' || i % 20 + 1 from generate_series(0, COUNT - 1) i;
insert into version (id, line_id, number, state, manifest_digest, tensor_root, base_version_id, meta, facts, created_at)
 select md5('v' || i)::uuid, md5('line' || i / 20)::uuid, i % 20 + 1, case when i % 100 = 3 then 'recalled' else 'registered' end,
 'sha256:' || lpad(to_hex(i), 8, '0') || repeat('a', 56), 'sha256:' || encode(sha256(i::text::bytea), 'hex'),
 '00000000-0000-4000-8000-000000000000', jsonb_build_object('licence', case when i % 4 = 0 then 'mit' else 'apache-2.0' end),
 '{}', now() - interval '300 days' + i * interval '1 second' from generate_series(0, COUNT - 1) i;
insert into version_tag select gen_random_uuid(), md5('v' || i)::uuid, 'topic', (i % 100)::text, null, now()
 from generate_series(0, COUNT - 1) i;
insert into lineage_edge select gen_random_uuid(), n.id, n.seq, d.id, d.seq, 'tuned_on', 'claimed', now()
 from generate_series(0, COUNT - 1, 100) i join node n on n.id = md5('v' || i)::uuid, node d where d.ref = 'dataset:t0/rows@v1';
select search_refresh(id) from version;
insert into version_metric select md5('v' || i)::uuid, 'accuracy', (i * 7919 % 10000) / 10000.0 from generate_series(0, COUNT - 1) i;
alter table node enable trigger user;
alter table line enable trigger user;
alter table version enable trigger user;
alter table version_tag enable trigger user;
alter table lineage_edge enable trigger user
"""


def seed(url: str, count: int) -> None:
    """Fill a migrated database with so many adapter versions, twenty a line, in ten teams."""
    with psycopg.connect(url.replace("postgresql+psycopg", "postgresql"), autocommit=True) as connection:
        for statement in SEED.replace("COUNT", str(count)).split(";\n"):
            connection.execute(statement)  # type: ignore[arg-type]
        connection.execute("analyze")


def pages(store: Store) -> dict[str, tuple[float, float]]:
    """Median and 95th percentile of a page, in milliseconds, by filter."""
    found = {}
    for name, filters in FILTERS.items():
        wanted = searches.parse(**filters)
        for facets in (False, True) if name in ("everything", "tag, 1 %") else (False,):
            took = []
            for _ in range(PAGES):
                began = time.perf_counter()
                queries.search(store, SYSTEM, wanted, facets=facets)
                took.append((time.perf_counter() - began) * 1000)
            found[name + (", facets" if facets else "")] = (
                statistics.median(took),
                statistics.quantiles(took, n=20)[18],
            )
    return found


def run() -> None:
    """Print every filter's page at 1,000 versions and at COUNTERSIGN_BENCH_VERSIONS (100,000), and their ratio."""
    many = int(os.environ.get("COUNTERSIGN_BENCH_VERSIONS", "100000"))
    figures = []
    with tempfile.TemporaryDirectory(prefix="cs") as home, open_databases(Path(home)) as databases:
        for count in (1000, many):
            url = databases.create(f"search_{count}")
            migrate.upgrade(url)
            seed(url, count)
            store = Store(open_engine(url, "countersign_app"))
            figures.append(pages(store))
            store.engine.dispose()
    for name, (small, _) in figures[0].items():
        median, p95 = figures[1][name]
        print(
            f"search: {name:<28}{median:>7.1f} ms  p95 {p95:>7.1f} ms   at 1,000 {small:.1f} ms   ratio {median / small:.2f}"
        )


if __name__ == "__main__":
    run()
