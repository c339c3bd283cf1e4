"""Guards of lineage, decisions and delivery: what is registered, who may vote, what a route may name.

Must work beside the version of the code that is still running while it deploys.
"""

from alembic import op

revision = "2026_11_22_decisions"
down_revision = "2026_11_22_guards"
branch_labels = None
depends_on = None

FUNCTIONS = (
    """
-- A version gets its number only on parents that stand. They are locked first and tested after: a recall under way
-- either sees this version among the descendants, or has recalled the parent that is tested here.
create function registration_guard() returns trigger language plpgsql as $$
declare its_line public.line; base version; unfit text;
begin
    select * into its_line from line where id = new.line_id;
    perform 1 from version where id in (select parent_id from lineage_edge where child_id = new.id)
        order by id for share;
    perform 1 from dataset_version where id in (select parent_id from lineage_edge where child_id = new.id)
        order by id for share;
    select n.ref || ' is ' || coalesce(v.state, d.state) into unfit
    from lineage_edge e join node n on n.id = e.parent_id
    left join version v on v.id = e.parent_id left join dataset_version d on d.id = e.parent_id
    where e.child_id = new.id and coalesce(v.state, d.state) not in ('registered', 'deprecated') limit 1;
    if unfit is not null then
        raise exception 'a parent is unfit: %', unfit using errcode = 'CS010';
    end if;
    if its_line.kind = 'adapter' then
        select * into base from version where id = new.base_version_id;
        if base.base_root is null or base.base_root is distinct from new.base_root or not exists (
            select 1 from lineage_edge where child_id = new.id and parent_id = base.id and relation = 'adapts'
        ) then
            raise exception 'the adapter is bound to no base by its base root' using errcode = 'CS010';
        end if;
    end if;
    if (select ref from node where id = new.id)
        is distinct from its_line.team || '/' || its_line.name || '@v' || new.number then
        raise exception 'version % does not bear the name of its number', new.id using errcode = 'CS003';
    end if;
    return new;
end $$
""",
    """
-- A review is opened under the policy in force, on a version that stands.
create function review_guard() returns trigger language plpgsql as $$
declare state text;
begin
    if new.policy_version_id is distinct from (
        select id from policy_version where environment = new.environment order by number desc limit 1
    ) then
        raise exception 'another policy is in force for %', new.environment using errcode = 'CS009';
    end if;
    select v.state into state from version v where v.id = new.version_id for share;
    if state is distinct from 'registered' and state is distinct from 'deprecated' then
        raise exception 'version % is %', new.version_id, coalesce(state, 'unknown') using errcode = 'CS010';
    end if;
    return new;
end $$
""",
    """
create function vote_guard() returns trigger language plpgsql as $$
declare judged review; policy policy_version; signer signing_key;
begin
    select * into judged from review where id = new.review_id for share;
    if judged.state <> 'open' then
        raise exception 'review % is %, not open', judged.number, judged.state using errcode = 'CS006';
    end if;
    if (select kind from account where id = new.account_id) is distinct from 'person' then
        raise exception 'only people vote' using errcode = 'CS006';
    end if;
    if new.account_id = judged.submitted_by
        or exists (select 1 from version v where v.id = judged.version_id and v.created_by = new.account_id)
        or exists (select 1 from version v join training_run t on t.id = v.training_run_id
                   where v.id = judged.version_id and t.requested_by = new.account_id)
        or exists (select 1 from lineage_edge e join dataset_version d on d.id = e.parent_id
                   where e.child_id = judged.version_id and e.relation = 'tuned_on' and d.created_by = new.account_id)
    then
        raise exception 'whoever made, submitted or fed a version may not vote on it' using errcode = 'CS006';
    end if;
    select * into policy from policy_version where id = judged.policy_version_id;
    if not exists (
        select 1 from role_grant g where g.account_id = new.account_id
        and policy.rules -> 'quorum' -> 'roles' ? g.role and g.team is not distinct from new.team
    ) then
        raise exception 'the voter holds no role that the policy names' using errcode = 'CS006';
    end if;
    select * into signer from signing_key where id = new.key_id;
    if signer.account_id is distinct from new.account_id or signer.revoked_at is not null
        or signer.enrolled_at > new.at then
        raise exception 'the key % is not an enrolled key of the voter', new.key_id using errcode = 'CS006';
    end if;
    if jsonb_build_object(
        'review', judged.number, 'version_id', judged.version_id, 'environment', judged.environment,
        'evidence_root', judged.evidence_root, 'policy_digest', policy.digest, 'account', new.account_id,
        'team', new.team, 'verdict', new.verdict, 'reason_commitment', new.reason_commitment
    ) <> (
        select coalesce(jsonb_object_agg(key, value), '{}') from jsonb_each(new.decision)
        where key in ('review', 'version_id', 'environment', 'evidence_root', 'policy_digest', 'account', 'team',
                      'verdict', 'reason_commitment')
    ) then
        raise exception 'the decision signed is not about this review' using errcode = 'CS006';
    end if;
    return new;
end $$
""",
    """
create function quorum_guard() returns trigger language plpgsql as $$
declare rules jsonb; quorum jsonb; wanted int; people int; teams int;
begin
    select p.rules into rules from policy_version p where p.id = new.policy_version_id;
    quorum := rules -> 'quorum';
    wanted := (quorum ->> 'approvals')::int;
    select count(distinct account_id), count(distinct team) into people, teams
    from vote where review_id = new.id and verdict = 'approve';
    if people < wanted or ((quorum ->> 'distinct_teams')::boolean and teams < wanted)
        or exists (select 1 from vote where review_id = new.id and verdict <> 'approve') then
        raise exception 'review % has % approvals from % teams; its policy asks for %', new.number, people, teams, wanted
            using errcode = 'CS007';
    end if;
    if new.verdict ->> 'outcome' is distinct from 'pass' then
        raise exception 'the gate of review % did not pass', new.number using errcode = 'CS007';
    end if;
    if new.expires_at > new.decided_at + (rules ->> 'approval_days')::int * interval '1 day' then
        raise exception 'the approval of review % lasts longer than its policy allows', new.number
            using errcode = 'CS007';
    end if;
    if (select state from version where id = new.version_id for share) in ('draft', 'recalled') then
        raise exception 'the version of review % does not stand any more', new.number using errcode = 'CS010';
    end if;
    return new;
end $$
""",
    """
-- May this version be newly named in a route of this environment? Rows are locked first and tested after:
-- counting unlocked rows would let a route name a version whose recall is not committed yet.
create function must_be_servable(wanted uuid, where_to channel) returns void language plpgsql as $$
declare found version; kind text; approval review;
begin
    select * into found from version where id = wanted for share;
    select l.kind into kind from line l where l.id = found.line_id;
    if found.state is null or found.state in ('draft', 'recalled') then
        raise exception 'version % is %', wanted, coalesce(found.state, 'unknown') using errcode = 'CS004';
    end if;
    if wanted = where_to.base_version_id then
        if not (select (p.rules ->> 'fallback_to_base')::boolean from policy_version p
                where p.environment = where_to.environment order by p.number desc limit 1) then
            raise exception 'the policy of % does not allow the base to serve', where_to.environment
                using errcode = 'CS004';
        end if;
        return;
    end if;
    if found.line_id <> where_to.line_id then
        raise exception 'version % is not of the adapter this channel serves', wanted using errcode = 'CS004';
    end if;
    if kind = 'adapter' and found.base_root is distinct from (
        select v.base_root from version v where v.id = where_to.base_version_id
    ) then
        raise exception 'version % stands on another base than this channel', wanted using errcode = 'CS004';
    end if;
    select * into approval from review
    where version_id = wanted and environment = where_to.environment and state = 'approved' for share;
    if approval.id is null or approval.expires_at <= clock_timestamp() then
        raise exception 'version % holds no approval in force for %', wanted, where_to.environment
            using errcode = 'CS004';
    end if;
end $$
""",
    """
create function route_guard() returns trigger language plpgsql as $$
declare place channel; before route_generation;
begin
    select * into place from channel where id = new.channel_id for update;
    select * into before from route_generation
    where channel_id = new.channel_id order by generation desc limit 1;
    if new.generation <> coalesce(before.generation, 0) + 1 then
        raise exception 'generation % does not follow %', new.generation, coalesce(before.generation, 0)
            using errcode = 'CS005';
    end if;
    if before.generation is not null and before.valid_to is distinct from new.valid_from then
        raise exception 'generation % does not begin where % ends', new.generation, before.generation
            using errcode = 'CS005';
    end if;
    if new.stable_version_id is not null then
        -- What stands already may go on standing when its approval runs out; only a recall ends it.
        if new.stable_version_id is distinct from before.stable_version_id then
            perform must_be_servable(new.stable_version_id, place);
        elsif (select state from version where id = new.stable_version_id for share) = 'recalled' then
            raise exception 'version % is recalled', new.stable_version_id using errcode = 'CS004';
        end if;
    end if;
    if new.candidate_version_id is not null then
        perform must_be_servable(new.candidate_version_id, place);
    end if;
    return new;
end $$
""",
    """
-- At COMMIT: a range that was closed is followed by the next, so that as-of queries meet no hole.
create function range_is_followed() returns trigger language plpgsql as $$
begin
    if not exists (
        select 1 from route_generation
        where channel_id = new.channel_id and generation = new.generation + 1 and valid_from = new.valid_to
    ) then
        raise exception 'nothing follows generation %', new.generation using errcode = 'CS005';
    end if;
    return null;
end $$
""",
    """
create function rollout_guard() returns trigger language plpgsql as $$
declare place channel; judged review;
begin
    select * into place from channel where id = new.channel_id;
    select * into judged from review where id = new.review_id;
    if judged.version_id <> new.version_id or judged.environment <> place.environment then
        raise exception 'review % is not about this rollout', judged.number using errcode = 'CS004';
    end if;
    perform must_be_servable(new.version_id, place);
    return new;
end $$
""",
    """
-- At COMMIT: of what was recalled and all that derives from it nothing stands, is approved, serves or is under way.
create function recall_is_complete() returns trigger language plpgsql as $$
declare standing uuid;
begin
    with recursive fallen(id) as (
        select new.id union select e.child_id from lineage_edge e join fallen f on e.parent_id = f.id
    )
    select f.id into standing from fallen f where
        exists (select 1 from version v where v.id = f.id and v.state in ('registered', 'deprecated'))
        or exists (select 1 from route_generation g where g.valid_to is null
                   and (g.stable_version_id = f.id or g.candidate_version_id = f.id))
        or exists (select 1 from rollout r where r.version_id = f.id and r.ended_at is null)
        or exists (select 1 from review r where r.version_id = f.id and r.state = 'approved')
    limit 1;
    if standing is not null then
        raise exception '% was recalled, but % still stands', new.id, standing using errcode = 'CS004';
    end if;
    return null;
end $$
""",
)


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '4s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    for function in FUNCTIONS:
        op.execute(function)
    op.execute(
        "create trigger guarded before insert or update of state on version for each row "
        "when (new.state = 'registered') execute function registration_guard()"
    )
    op.execute(
        "create trigger opened before insert on review for each row execute function review_guard()"
    )
    op.execute(
        "create trigger guarded before insert on vote for each row execute function vote_guard()"
    )
    op.execute(
        "create trigger guarded before insert or update of state on review for each row "
        "when (new.state = 'approved') execute function quorum_guard()"
    )
    op.execute(
        "create trigger guarded before insert on route_generation for each row execute function route_guard()"
    )
    op.execute(
        "create trigger guarded before insert on rollout for each row execute function rollout_guard()"
    )
    op.execute(
        "create constraint trigger followed after insert or update of valid_to on route_generation "
        "deferrable initially deferred for each row when (new.valid_to is not null) "
        "execute function range_is_followed()"
    )
    for table in ("version", "dataset_version"):
        op.execute(
            f"create constraint trigger complete after update of state on {table} deferrable initially deferred "
            "for each row when (new.state = 'recalled') execute function recall_is_complete()"
        )


def downgrade() -> None:
    # Votes and routes made without these guards could not be trusted afterwards.
    raise RuntimeError(
        "This migration cannot be undone: it guards decisions. Restore a backup instead."
    )
