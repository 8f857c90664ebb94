-- The role of the running service: it reads and writes rows and owns nothing.
-- Its login becomes a member with `grant ticket_service to …`, which `register-ticket-api migrate` does.
do $$
begin
    create role ticket_service nologin;
exception
    -- Roles belong to the whole cluster: another database, perhaps at this very moment, may have made it.
    when duplicate_object or unique_violation then null;
end;
$$;

grant usage on schema public to ticket_service;
grant select, insert, update, delete on events, users, tickets, keys, scans, settings to ticket_service;
grant execute on procedure sp_register_ticket_to_user(uuid, uuid, bigint) to ticket_service;
grant execute on function fn_mark_ticket_as_used(uuid, bigint, bigint, boolean, bigint, bigint) to ticket_service;
grant execute on function fn_analyze_tickets() to ticket_service;
