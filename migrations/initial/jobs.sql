-- Rights on procrastinate's tables, which its own SQL has created in a schema of their own.

grant usage on schema procrastinate to countersign_app;
grant select, insert, update, delete on all tables in schema procrastinate to countersign_app;
grant usage on all sequences in schema procrastinate to countersign_app;
