"""A quantisation's descent is graded as its bytes were judged, and only checkpoints are quantised of anything.

Must work beside the version of the code that is still running while it deploys: that one writes no such edges.
"""

from alembic import op

revision = "2026_11_25_templates"
down_revision = "2026_11_25_collections"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Give up quickly rather than queue every writer behind a waiting lock.
    op.execute("SET LOCAL lock_timeout = '4s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.execute(
        """
-- A descent nobody worked out must never read as verified, and one that was contradicted has no edge at all.
create function descent_as_judged() returns trigger language plpgsql set search_path = public, pg_temp as $$
declare child text; parent text; judged text;
begin
    select n.kind into child from node n where n.id = new.child_id;
    select n.kind into parent from node n where n.id = new.parent_id;
    select v.facts -> 'descent' ->> 'grade' into judged from version v where v.id = new.child_id;
    if child <> 'checkpoint' or parent not in ('base', 'checkpoint') then
        raise exception 'a % is no quantisation of a %', child, parent using errcode = 'CS010';
    end if;
    if judged is distinct from new.grade then
        raise exception 'the descent was judged %, not %', coalesce(judged, 'by nobody'), new.grade
            using errcode = 'CS010';
    end if;
    return new;
end $$
"""
    )
    op.execute(
        "create trigger descent before insert on lineage_edge for each row "
        "when (new.relation = 'quantised_from') execute function descent_as_judged()"
    )


def downgrade() -> None:
    raise RuntimeError(
        "This migration cannot be undone: without it a claim could be kept as verified. Restore a backup instead."
    )
