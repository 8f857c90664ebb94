-- A migration that is not shipped: how to change a CHECK on SQLite (docs/development.md). tests/suite/migrations.rs
-- applies it after the newest one while an old process scans. It repeats the whole table, so it changes with the table.
create table new_tickets (
    ticket_id blob not null,
    event_id blob not null,
    user_id blob,
    seat text not null,
    gate text not null,
    seed blob not null,
    status text not null default 'valid',
    inside boolean not null default 0,
    last_step bigint,
    version bigint not null default 1,
    created_at bigint not null,
    changed_at bigint not null,
    registered_at bigint,
    used_at bigint,
    printed_at bigint,
    holder_name text,
    reference text,
    issue_id blob,
    seeded_at bigint,
    search text,
    seat_key text,
    gate_key text,
    reissued_version bigint,
    change bigint,
    category text,
    note text,
    valid_from bigint,
    valid_until bigint,
    mailed_at bigint,
    mailing_at bigint,
    walk_up boolean not null default 0,
    paid bigint,
    constraint tickets_pkey primary key (ticket_id),
    constraint tickets_event_id_fkey foreign key (event_id) references events (event_id) on delete cascade,
    constraint tickets_user_id_fkey foreign key (user_id) references users (user_id),
    constraint tickets_seat_key unique (event_id, seat, gate),
    constraint tickets_seed_check check (length(seed) = 20),
    constraint tickets_status_check check (status in ('valid', 'used', 'revoked', 'held'))
) without rowid;

insert into new_tickets (
    ticket_id, event_id, user_id, seat, gate, seed, status, inside, last_step, version, created_at, changed_at,
    registered_at, used_at, printed_at, holder_name, reference, issue_id, seeded_at,
    search, seat_key, gate_key, reissued_version, change, category, note, valid_from, valid_until,
    mailed_at, mailing_at, walk_up, paid
)
select
    ticket_id, event_id, user_id, seat, gate, seed, status, inside, last_step, version, created_at, changed_at,
    registered_at, used_at, printed_at, holder_name, reference, issue_id, seeded_at,
    search, seat_key, gate_key, reissued_version, change, category, note, valid_from, valid_until,
    mailed_at, mailing_at, walk_up, paid
from tickets;

drop table tickets;
alter table new_tickets rename to tickets;

create index tickets_event_id_idx on tickets (event_id, ticket_id, search, gate_key, issue_id);
create index tickets_place_idx on tickets (seat_key, gate_key, event_id);
create index tickets_unfolded_idx on tickets (event_id, ticket_id) where search is null;
create index tickets_user_id_idx on tickets (user_id) where user_id is not null;
create unique index tickets_reference_key on tickets (event_id, reference) where reference is not null;

create trigger tickets_forget_search after update of user_id, holder_name on tickets when new.search is not null
begin
    update tickets set search = null where ticket_id = new.ticket_id;
end;

create trigger tickets_change after update of version on tickets when new.version <> old.version
begin
    update settings set value = value + 1 where name = 'change';
    update tickets set change = (select value from settings where name = 'change') where ticket_id = new.ticket_id;
end;

-- What an import writes changes when it appears.
create trigger tickets_new after insert on tickets when new.issue_id is null
begin
    update settings set value = value + 1 where name = 'change';
    update tickets set change = (select value from settings where name = 'change') where ticket_id = new.ticket_id;
end;
