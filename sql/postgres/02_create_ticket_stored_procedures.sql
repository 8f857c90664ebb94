-- The two operations through which the service registers and admits.
-- Their errors carry an SQLSTATE of their own (class RT), which the service maps to its error codes.
-- Adding a parameter later: drop the old signature first, or calls become ambiguous.

-- Gives a ticket to a user.
-- RT001 no such ticket · RT002 no such user · RT003 the ticket has a holder · RT004 the ticket is revoked
create or replace procedure sp_register_ticket_to_user(
    p_ticket_id uuid,
    p_user_id uuid,
    p_now bigint default null
)
language plpgsql
as $$
declare
    v_now bigint := coalesce(p_now, (extract(epoch from clock_timestamp()) * 1000)::bigint);
    v_ticket tickets%rowtype;
begin
    select * into v_ticket from tickets where ticket_id = p_ticket_id for update;
    if not found then
        raise exception 'there is no ticket %', p_ticket_id using errcode = 'RT001';
    end if;
    perform 1 from users where user_id = p_user_id for key share;
    if not found then
        raise exception 'there is no user %', p_user_id using errcode = 'RT002';
    end if;
    if v_ticket.user_id is not null then
        raise exception 'ticket % is registered already', p_ticket_id using errcode = 'RT003';
    end if;
    if v_ticket.status <> 'valid' then
        raise exception 'ticket % is %', p_ticket_id, v_ticket.status using errcode = 'RT004';
    end if;
    update tickets
    set user_id = p_user_id, registered_at = v_now, changed_at = v_now, version = version + 1
    where ticket_id = p_ticket_id;
end;
$$;

-- Marks a ticket as used (p_inside true, an entry) or as used and left (p_inside false, an exit).
-- Compare-and-set: with p_version it writes only the row that the caller read; with the id alone only a valid ticket.
-- Returns whether it wrote. p_step is the TOTP step of the code, null for a manual admission.
create or replace function fn_mark_ticket_as_used(
    p_ticket_id uuid,
    p_version bigint default null,
    p_step bigint default null,
    p_inside boolean default true,
    p_used_at bigint default null,
    p_now bigint default null
)
returns boolean
language plpgsql
as $$
declare
    v_now bigint := coalesce(p_now, (extract(epoch from clock_timestamp()) * 1000)::bigint);
begin
    update tickets
    set status = 'used',
        inside = p_inside,
        last_step = greatest(last_step, p_step),
        used_at = coalesce(used_at, p_used_at, v_now),
        changed_at = v_now,
        version = version + 1
    where ticket_id = p_ticket_id
      and case when p_version is null then status = 'valid' else version = p_version and status <> 'revoked' end;
    return found;
end;
$$;

-- Tells the planner at once what an import has written; autovacuum would do it a minute or more later. Until then an
-- event looks small, and every page of its manifest sorts all of its tickets. Only the owner may analyze, so this runs
-- as the owner.
create or replace function fn_analyze_tickets()
returns void
language plpgsql
security definer
set search_path = public, pg_temp
as $$
begin
    analyze tickets, users;
end;
$$;

revoke execute on function fn_analyze_tickets() from public;
