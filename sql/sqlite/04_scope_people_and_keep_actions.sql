-- The same changes as in sql/postgres/04_scope_people_and_keep_actions.sql, where they are explained.
alter table users add column event_id blob constraint users_event_id_fkey references events (event_id) on delete cascade;

drop index users_username_key;
create unique index users_username_key on users (lower(username), coalesce(event_id, x'00'));
create index users_event_id_idx on users (event_id, user_id) where event_id is not null;

alter table events add column issuing blob;
alter table events add column issuing_since bigint;
create index events_issuing_idx on events (issuing) where issuing is not null;
alter table events add column deleted_at bigint;
create index events_deleted_at_idx on events (deleted_at) where deleted_at is not null;

alter table users add column issue_id blob;

alter table tickets add column holder_name text;
alter table tickets add column reference text;
create unique index tickets_reference_key on tickets (event_id, reference) where reference is not null;
alter table tickets add column issue_id blob;
alter table tickets add column seeded_at bigint;

alter table tickets add column search text;
alter table tickets add column seat_key text;
alter table tickets add column gate_key text;

drop index tickets_event_id_idx;
create index tickets_event_id_idx on tickets (event_id, ticket_id, search, gate_key, issue_id);
create index tickets_place_idx on tickets (seat_key, gate_key, event_id);
create index tickets_unfolded_idx on tickets (event_id, ticket_id) where search is null;

create trigger tickets_forget_search after update of user_id, holder_name on tickets when new.search is not null
begin
    update tickets set search = null where ticket_id = new.ticket_id;
end;
alter table scans add column ticket_version bigint;
alter table tickets add column reissued_version bigint;
alter table tickets add column change bigint;

alter table keys add column created_by blob;
alter table keys add column manifest_at bigint;
alter table keys add column taken_at bigint;

update keys set manifest_at = unixepoch() * 1000 where offline;

create index keys_created_by_idx on keys (created_by) where created_by is not null;

create table former_secrets (
    secret_hash blob not null,
    key_id blob not null,
    ended_at bigint not null,
    constraint former_secrets_pkey primary key (secret_hash),
    constraint former_secrets_key_id_fkey foreign key (key_id) references keys (key_id) on delete cascade
) without rowid;

create index former_secrets_key_id_idx on former_secrets (key_id);

create index scans_refused_idx
    on scans (coalesce(key_id, x'00'), received_at)
    where result in ('wrong_code', 'stale_code');

create table actions (
    action_id blob not null,
    at bigint not null,
    action text not null,
    key_id blob,
    event_id blob,
    ticket_id blob,
    subject_id blob,
    count bigint,
    change bigint,
    constraint actions_pkey primary key (action_id),
    constraint actions_event_id_fkey foreign key (event_id) references events (event_id) on delete cascade
) without rowid;

create index actions_at_idx on actions (at, action_id);
create index actions_event_id_idx on actions (event_id, at, action_id);
create index actions_ticket_id_idx on actions (ticket_id) where ticket_id is not null;
create index actions_of_all_idx on actions (event_id, at)
    where ticket_id is null and subject_id is null and action in ('reissued', 'links_exported');
create index actions_loss_idx on actions (subject_id, ticket_id) where action in ('renewed', 'phone_lost');
create index actions_issued_idx on actions (event_id, change) where action = 'issued';

-- The number of the newest change. One writes at a time, so whoever reads it has all changes up to it.
insert into settings (name, value)
values ('change', 0)
on conflict do nothing;

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

create trigger actions_change after insert on actions when new.action = 'issued'
begin
    update settings set value = value + 1 where name = 'change';
    update actions set change = (select value from settings where name = 'change') where action_id = new.action_id;
end;

insert into settings (name, value)
values ('link_salt', randomblob(32))
on conflict do nothing;

insert into settings (name, value)
values ('history', randomblob(4))
on conflict do nothing;
