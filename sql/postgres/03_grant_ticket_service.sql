-- The role of the running service: it reads and writes rows and owns nothing.
-- Its login becomes a member with `grant ticket_service to …`, which `register-ticket-api migrate` does.
-- An owner that may not create roles goes on without it: then the service runs as the owner.
do $$
begin
    begin
        create role ticket_service nologin;
    exception
        -- Roles belong to the whole cluster: another database, perhaps at this very moment, may have made it.
        when duplicate_object or unique_violation then null;
        when insufficient_privilege then raise notice 'no right to create the role ticket_service';
    end;
    if exists (select 1 from pg_roles where rolname = 'ticket_service') then
        grant usage on schema public to ticket_service;
        grant select, insert, update, delete on events, users, tickets, keys, scans, settings to ticket_service;
        grant execute on procedure sp_register_ticket_to_user(uuid, uuid, bigint) to ticket_service;
        grant execute on function fn_mark_ticket_as_used(uuid, bigint, bigint, boolean, bigint, bigint)
            to ticket_service;
        grant execute on function fn_analyze_tickets() to ticket_service;
    end if;
end;
$$;
