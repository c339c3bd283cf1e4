"""A line's business domain is said once, at first or when what began without one is completed; bytes wait for holds.

Must work beside the version of the code that is still running while it deploys: that never changes a line, and collects as before.
"""

from alembic import op

revision = "2026_11_26_retention"
down_revision = "2026_11_26_possession"
branch_labels = None
depends_on = None

FOLLOW = """
-- The search rows of a line's versions, when it is told of what domain it is.
create function search_follow_line() returns trigger language plpgsql
security definer set search_path = public, pg_temp as $$
begin
    perform search_refresh(v.id) from version v where v.line_id = new.id;
    return null;
end $$
"""
# As before, but that it waits for a hold that is being placed: its own statement sees what was committed by then.
COLLECTED = """
create or replace function collected_unnamed() returns trigger language plpgsql as $$
begin
    {wait}if blob_is_named(new.id) then
        raise exception 'the bytes % are named by a row', new.id using errcode = 'CS025';
    end if;
    return new;
end $$
"""
FROZEN = "create trigger frozen before update on line for each row execute function only_these_change({})"


def upgrade() -> None:
    # Give up quickly rather than queue every writer behind a waiting lock.
    op.execute("SET LOCAL lock_timeout = '4s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.execute(COLLECTED.format(wait="perform one_keeper();\n    "))
    op.execute(FOLLOW)
    op.execute("drop trigger frozen on line")
    op.execute(FROZEN.format("'domain'"))
    op.execute(
        "create trigger settled before update on line for each row "
        "when (old.domain is not null or btrim(coalesce(new.domain, '')) = '') execute function only_these_change()"
    )
    op.execute(
        "create trigger searchable after update of domain on line for each row execute function search_follow_line()"
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '4s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    for trigger in ("searchable", "settled", "frozen"):
        op.execute(f"drop trigger {trigger} on line")
    op.execute(FROZEN.format(""))
    op.execute("drop function search_follow_line()")
    op.execute(COLLECTED.format(wait=""))
