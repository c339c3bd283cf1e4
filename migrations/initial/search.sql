-- The derived rows that search reads; they can always be rebuilt.

-- A copy of search_row, one row for each version.
create table version_search (
    id uuid not null,
    created_at timestamptz not null,
    team text not null,
    line text collate "C" not null,
    number integer not null,
    deleted boolean not null,
    terms text[] not null,
    seq bigint,
    words text,
    facets text[],
    constraint pk_version_search primary key (id),
    constraint fk_version_search_id foreign key (id) references version(id) on delete cascade
);
create index ix_version_search_created on version_search (created_at, id);
create index ix_version_search_line on version_search (line, number, id);
create index ix_version_search_seq on version_search (seq);
create index ix_version_search_terms on version_search using gin (terms) with (fastupdate=off);

grant select on version_search to countersign_app, countersign_reader;

-- The newest value of each metric of a version.
create table version_metric (
    version_id uuid not null,
    name text not null,
    value double precision not null,
    constraint pk_version_metric primary key (version_id, name),
    constraint fk_version_metric_version_id foreign key (version_id) references version(id) on
        delete cascade
);
create index ix_version_metric_name on version_metric (name, value, version_id);

grant select on version_metric to countersign_app, countersign_reader;

-- The eras (4,096 consecutive nodes) in which a term occurs.
create table search_era (
    id bigint generated always as identity not null,
    term text collate "C" not null,
    era bigint not null,
    constraint pk_search_era primary key (id)
);
create index ix_search_era_term on search_era (term, era);

grant select on search_era to countersign_app, countersign_reader;

create function search_grams(words text) returns text[] language sql immutable as $$
    -- Each word as overlapping groups of three characters, with blanks before its start: a word
    -- that contains 'laim' has 'g:lai' and 'g:aim', and one that starts with 'cl' has 'g: cl'.
    -- pg_trgm makes the same groups, but may not be installed.
    select coalesce(array_agg(distinct 'g:' || substr('  ' || word, at, 3)), '{}')
    from regexp_split_to_table(words, ' ') word, generate_series(1, least(length(word), 64)) at
$$;

-- The source of version_search. Every list has a fixed order, whatever the query plan, so that a
-- row can be compared with its copy. The era is a term, so that the index can search one range of
-- nodes at a time.
create view search_row as
select v.id, v.created_at, l.team, l.team || '/' || l.name as line, coalesce(v.number, 0) as number,
    n.seq, exists (select from tombstone t where t.id = v.id) as deleted, w.words, f.facets,
    f.facets
    || array['name:' || l.name, 'line:' || l.team || '/' || l.name, 'era:' || (n.seq >> 12)]
    || case when v.created_by is null then '{}' else array['by:' || v.created_by] end
    || coalesce((select array['base:' || b.id, 'base:' || split_part(b.ref, '@', 1)]
                 from node b where b.id = v.base_version_id), '{}')
    || coalesce((select array_agg('dataset:' || d.id order by d.id)
                     || array_agg('dataset:' || split_part(substr(d.ref, 9), '@', 1) order by d.id)
                 from lineage_edge e join node d on d.id = e.parent_id
                 where e.child_id = v.id and e.relation = 'tuned_on'), '{}')
    || search_grams(w.words) as terms
from version v join line l on l.id = v.line_id join node n on n.id = v.id,
lateral (select ' ' || array_to_string(regexp_split_to_array(
    lower(concat_ws(' ', l.team, l.name, l.domain)), '[^a-z0-9]+'), ' ') as words) w,
lateral (select array['kind:' || l.kind, 'state:' || v.state, 'team:' || l.team]
    || case when l.domain is null then '{}' else array['domain:' || lower(left(l.domain, 256))] end
    || case when jsonb_typeof(v.meta -> 'licence') = 'string'
       then array['licence:' || lower(left(v.meta ->> 'licence', 256))] else '{}' end
    || case when jsonb_typeof(v.facts -> 'method') = 'string'
       then array['method:' || lower(left(v.facts ->> 'method', 256))] else '{}' end
    || case when jsonb_typeof(v.facts -> 'variant') = 'string'
       then (select array_agg('variant:' || one)
             from regexp_split_to_table(lower(left(v.facts ->> 'variant', 256)), '[+]') one)
       else '{}' end
    || coalesce((
        select array_agg(distinct 'risk:' || lower(left(split_part(one #>> '{}', ':', 1), 256)))
        from jsonb_array_elements(case when jsonb_typeof(v.facts -> 'risks') = 'array'
                                       then v.facts -> 'risks' else '[]' end) one
        where jsonb_typeof(one) = 'string'), '{}')
    || coalesce((select array['base-ref:' || b.ref]
                 from node b where b.id = v.base_version_id), '{}')
    || coalesce((select array_agg('tag:' || t.key order by t.key)
                     || array_agg('tag:' || t.key || ':' || t.value order by t.key)
                 from version_tag t where t.version_id = v.id and t.value is not null), '{}')
    as facets) f;

create function search_rebuild() returns void language sql
    security definer set search_path = public, pg_temp as $$
    -- Rebuild all search rows, about thirty times faster than one after the other. They are written
    -- in the order of creation, so that the rows of an era are next to each other.
    insert into version_search
        (id, created_at, team, line, number, seq, deleted, words, facets, terms)
    select id, created_at, team, line, number, seq, deleted, words, facets, terms
    from search_row order by seq
    on conflict (id) do update set created_at = excluded.created_at, number = excluded.number,
        seq = excluded.seq, deleted = excluded.deleted, words = excluded.words,
        facets = excluded.facets, terms = excluded.terms;
    insert into search_era (term, era)
    select distinct term, s.seq >> 12 from version_search s, unnest(s.terms) as unnest(term)
    where term !~ '^(g|era|line|name):'
    and not exists (select 1 from search_era e where e.term = unnest.term and e.era = s.seq >> 12);
$$;
revoke execute on function search_rebuild() from public;
