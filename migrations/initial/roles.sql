-- The roles that logins are members of, and the schema that they may use. The rights on a table are
-- granted in the file of the table.

-- Roles belong to the whole cluster, so another database of ours may have created them already.
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
                -- Since PostgreSQL 16, who creates a role may administer it, but not act as it.
                execute format('grant %I to %I', wanted, current_user);
            exception when insufficient_privilege then
                -- A superuser may have granted the role already. It is enough to be able to use it.
                perform set_config('role', wanted, true), set_config('role', owner, true);
            end;
        exception when insufficient_privilege then
            raise exception 'the database role % is missing and % may not create it',
                wanted, current_user using hint = format(
                'As a superuser: create role %s nologin; grant %s to the owner.', wanted, wanted);
        end;
    end loop;
end $$;

revoke all on schema public from public;
grant usage on schema public to countersign_app, countersign_sequencer, countersign_reader;
grant select on alembic_version to countersign_app, countersign_reader;
