-- The groups that logins are members of, and the schema they may use. What a group may do with a
-- table stands beside the table.

-- Roles belong to the whole cluster: another database of ours may have made them already.
do $$
declare
    owner text := current_setting('role');
    wanted text;
begin
    foreach wanted in array
        array['countersign_app', 'countersign_sequencer', 'countersign_reader']
    loop
        begin
            begin
                if not exists (select 1 from pg_roles where rolname = wanted) then
                    execute format('create role %I nologin', wanted);
                end if;
            exception when duplicate_object or unique_violation then null;
            end;
            begin
                -- Since PostgreSQL 16 the maker of a role may administer it but not yet act as it.
                execute format('grant %I to %I', wanted, current_user);
            exception when insufficient_privilege then
                -- A superuser may have granted it already; to act as it is all that is needed.
                perform set_config('role', wanted, true), set_config('role', owner, true);
            end;
        exception when insufficient_privilege then
            raise exception 'the database role % is missing and % may not make it',
                wanted, current_user using hint = format(
                'As a superuser: create role %s nologin; grant %s to the owner.', wanted, wanted);
        end;
    end loop;
end $$;

revoke all on schema public from public;
grant usage on schema public to countersign_app, countersign_sequencer, countersign_reader;
grant select on alembic_version to countersign_app, countersign_reader;
