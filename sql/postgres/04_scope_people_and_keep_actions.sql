-- People belong to an event or to the installation, keys and tickets know more of themselves, and what organizers and
-- supervisors do is kept. Scans wait while the tables are locked; rather than that it fails, and is run again.
set local lock_timeout = '2s';

-- Null: a person of the whole installation.
alter table users add column if not exists event_id uuid
    constraint users_event_id_fkey references events (event_id) on delete cascade;

-- A username is unique in its scope. The index keeps its name: file 1, which runs again at a restore, would make it anew.
do $$
begin
    if not exists (
        select 1 from pg_indexes where indexname = 'users_username_key' and indexdef like '%event_id%'
    ) then
        drop index if exists users_username_key;
        create unique index users_username_key
            on users (lower(username), coalesce(event_id, '00000000-0000-0000-0000-000000000000'::uuid));
    end if;
end;
$$;

create index if not exists users_event_id_idx on users (event_id, user_id) where event_id is not null;

-- The import that is being written: its tickets and people are there for nobody else until it is done.
alter table events
    add column if not exists issuing uuid,
    add column if not exists issuing_since bigint;

create index if not exists events_issuing_idx on events (issuing) where issuing is not null;

-- The event is gone for everybody, and its rows are being deleted.
alter table events add column if not exists deleted_at bigint;
create index if not exists events_deleted_at_idx on events (deleted_at) where deleted_at is not null;

alter table users add column if not exists issue_id uuid;

-- `issue_id` is the action by which the ticket was made, `seeded_at` when its present seed was (null: with the ticket),
-- `reference` the seller's own id of it, by which a list can come again.
alter table tickets
    add column if not exists holder_name text,
    add column if not exists reference text,
    add column if not exists issue_id uuid,
    add column if not exists seeded_at bigint;

create unique index if not exists tickets_reference_key on tickets (event_id, reference) where reference is not null;

-- As in file 2, but for its lock: with `for update` it waited for whoever wrote a scan of the ticket, and they for it.
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
    select * into v_ticket from tickets where ticket_id = p_ticket_id for no key update;
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

-- The order of what happened, which no clock tells. `scans.ticket_version` is the ticket's version after an accepted scan (null:
-- before there was this column), `tickets.reissued_version` after its last reissue. `change` is the number of the transaction
-- that wrote a ticket last: a gate asks for what has changed since its list was read.
alter table scans add column if not exists ticket_version bigint;
alter table tickets
    add column if not exists reissued_version bigint,
    add column if not exists change bigint;

create or replace function fn_number_change()
returns trigger
language plpgsql
as $$
begin
    new.change := pg_current_xact_id()::text::bigint;
    return new;
end;
$$;

create or replace trigger tickets_change
    before update of version on tickets
    for each row execute function fn_number_change();

-- What an import writes changes when it appears.
create or replace trigger tickets_new
    before insert on tickets
    for each row when (new.issue_id is null) execute function fn_number_change();

-- One holder's tickets are read in the order of their ids, some at a time; on SQLite each index has the id already.
do $$
begin
    if not exists (
        select 1 from pg_indexes where indexname = 'tickets_user_id_idx' and indexdef like '%(user_id, ticket_id)%'
    ) then
        drop index if exists tickets_user_id_idx;
        create index tickets_user_id_idx on tickets (user_id, ticket_id) where user_id is not null;
    end if;
end;
$$;

-- Text as people read it, folded by the service (src/fold.rs): `search` has the words of seat and names, and after a `|`
-- those of an address that not everybody may see; by the keys seats and gates are compared. Null: not folded yet.
alter table tickets
    add column if not exists search text collate "C",
    add column if not exists seat_key text collate "C",
    add column if not exists gate_key text collate "C";

-- A list of an event's tickets, whatever it looks for, reads this and no ticket that it leaves out; a scan changes nothing
-- in it.
do $$
begin
    if not exists (
        select 1 from pg_indexes where indexname = 'tickets_event_id_idx' and indexdef like '%search%'
    ) then
        drop index if exists tickets_event_id_idx;
        create index tickets_event_id_idx on tickets (event_id, ticket_id) include (search, gate_key, issue_id);
    end if;
end;
$$;

-- Not unique: 0.1.0 told seats apart that people read as the same. The event is last, so that what reads all of an event
-- takes the index in the order of the tickets.
create index if not exists tickets_place_idx on tickets (seat_key, gate_key, event_id);
create index if not exists tickets_unfolded_idx on tickets (event_id, ticket_id) where search is null;

-- What a ticket was found by goes with its holder, in the same transaction, whoever takes them away.
create or replace function fn_forget_search()
returns trigger
language plpgsql
as $$
begin
    new.search := null;
    return new;
end;
$$;

create or replace trigger tickets_forget_search
    before update of user_id, holder_name on tickets
    for each row execute function fn_forget_search();

-- `created_by` is the key that made this one, `manifest_at` when its device last downloaded keys of tickets, `taken_at` when
-- an organizer agreed to take what its devices had scanned before they had it no more.
alter table keys
    add column if not exists created_by uuid,
    add column if not exists manifest_at bigint,
    add column if not exists taken_at bigint;

-- What was downloaded before it was noted may be all that there is now.
update keys
set manifest_at = (extract(epoch from now()) * 1000)::bigint
where offline and manifest_at is null;

create index if not exists keys_created_by_idx on keys (created_by) where created_by is not null;

-- What a key was before another device got it: good for nothing any more but to prove what its device scanned until then.
create table if not exists former_secrets (
    secret_hash bytea not null,
    key_id uuid not null,
    ended_at bigint not null,
    constraint former_secrets_pkey primary key (secret_hash),
    constraint former_secrets_key_id_fkey foreign key (key_id) references keys (key_id) on delete cascade
);

create index if not exists former_secrets_key_id_idx on former_secrets (key_id);

-- How many codes of a key were refused lately. What is accepted is not in it, so an admission pays nothing for it.
create index if not exists scans_refused_idx
    on scans (coalesce(key_id, '00000000-0000-0000-0000-000000000000'::uuid), received_at)
    where result in ('wrong_code', 'stale_code');

-- What was done, by which key, when: append-only, without personal data. `subject_id` is what it was done to besides the
-- ticket: a user, a key, a scan, an event that is gone.
create table if not exists actions (
    action_id uuid not null,
    at bigint not null,
    action text not null,
    key_id uuid,
    event_id uuid,
    ticket_id uuid,
    subject_id uuid,
    count bigint,
    change bigint,
    constraint actions_pkey primary key (action_id),
    constraint actions_event_id_fkey foreign key (event_id) references events (event_id) on delete cascade
);

-- In the order in which it was done: an import's id is older than its end.
create index if not exists actions_at_idx on actions (at, action_id);
create index if not exists actions_event_id_idx on actions (event_id, at, action_id);
create index if not exists actions_ticket_id_idx on actions (ticket_id) where ticket_id is not null;

-- What was done to all tickets of an event at once.
create index if not exists actions_of_all_idx on actions (event_id, at)
    where ticket_id is null and subject_id is null and action in ('reissued', 'links_exported');
create index if not exists actions_issued_idx on actions (event_id, change) where action = 'issued';

create or replace trigger actions_change
    before insert on actions
    for each row when (new.action = 'issued') execute function fn_number_change();

-- Which tickets the loss of a key's device has renewed.
create index if not exists actions_loss_idx on actions (subject_id, ticket_id) where action in ('renewed', 'phone_lost');

-- Part of every link to a ticket's page, so that whoever has the key of a ticket's codes has not its link.
insert into settings (name, value)
values ('link_salt', decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex'))
on conflict do nothing;

-- What tells this database's numbers of changes from those of what it was restored from.
insert into settings (name, value)
values ('history', decode(left(replace(gen_random_uuid()::text, '-', ''), 8), 'hex'))
on conflict do nothing;

do $$
begin
    if exists (select 1 from pg_roles where rolname = 'ticket_service') then
        -- It may add to them and never change them; they go with their event alone.
        grant select, insert on actions to ticket_service;
        grant select, insert on former_secrets to ticket_service;
    end if;
end;
$$;
