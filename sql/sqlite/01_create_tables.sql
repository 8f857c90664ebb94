-- The same tables as sql/postgres/01_create_tables.sql, in SQLite's dialect: ids are 16-byte blobs, booleans 0 or 1.
-- What PostgreSQL does in sp_register_ticket_to_user and fn_mark_ticket_as_used, src/store/sqlite.rs does in one
-- `begin immediate` transaction.

create table if not exists events (
    event_id blob not null,
    slug text not null,
    name text not null,
    time_zone text not null default 'UTC',
    starts_at bigint,
    ends_at bigint,
    reentry text not null default 'none',
    version bigint not null default 1,
    created_at bigint not null,
    constraint events_pkey primary key (event_id),
    constraint events_slug_key unique (slug),
    constraint events_reentry_check check (reentry in ('none', 'after_exit'))
) without rowid;

create table if not exists users (
    user_id blob not null,
    username text not null,
    full_name text,
    email text,
    created_at bigint not null,
    constraint users_pkey primary key (user_id),
    constraint users_username_check check (
        length(username) between 1 and 64
        and username not glob '*[^A-Za-z0-9._@+-]*'
        and lower(username) <> 'attendance'
    )
) without rowid;

create unique index if not exists users_username_key on users (lower(username));

create table if not exists tickets (
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
    constraint tickets_pkey primary key (ticket_id),
    constraint tickets_event_id_fkey foreign key (event_id) references events (event_id) on delete cascade,
    constraint tickets_user_id_fkey foreign key (user_id) references users (user_id),
    constraint tickets_seat_key unique (event_id, seat, gate),
    constraint tickets_seed_check check (length(seed) = 20),
    constraint tickets_status_check check (status in ('valid', 'used', 'revoked'))
) without rowid;

create index if not exists tickets_event_id_idx on tickets (event_id, ticket_id);
create index if not exists tickets_user_id_idx on tickets (user_id) where user_id is not null;

create table if not exists keys (
    key_id blob not null,
    name text not null,
    role text not null,
    event_id blob,
    gate text,
    offline boolean not null default 0,
    secret_hash blob not null,
    created_at bigint not null,
    expires_at bigint,
    revoked_at bigint,
    enrol_hash blob,
    enrol_expires_at bigint,
    constraint keys_pkey primary key (key_id),
    constraint keys_secret_hash_key unique (secret_hash),
    constraint keys_event_id_fkey foreign key (event_id) references events (event_id) on delete cascade,
    constraint keys_role_check check (role in ('organizer', 'supervisor', 'gate'))
) without rowid;

create index if not exists keys_event_id_idx on keys (event_id);

-- `presented` is what an unknown ticket claimed to be, so that its retry is recognised.
-- `decided_at` is the moment the verdict holds for: `received_at`, or in an offline batch `scanned_at`.
create table if not exists scans (
    scan_id blob not null,
    event_id blob not null,
    ticket_id blob,
    presented blob,
    at_gate text,
    direction text not null,
    result text not null,
    offline_result text,
    manual boolean not null default 0,
    note text,
    seconds_off bigint,
    first_used_at bigint,
    first_used_gate text,
    scanned_at bigint not null,
    received_at bigint not null,
    decided_at bigint not null,
    key_id blob,
    undone_at bigint,
    undone_by blob,
    constraint scans_pkey primary key (scan_id),
    constraint scans_event_id_fkey foreign key (event_id) references events (event_id) on delete cascade,
    constraint scans_ticket_id_fkey foreign key (ticket_id) references tickets (ticket_id) on delete cascade,
    constraint scans_direction_check check (direction in ('entry', 'exit'))
) without rowid;

create index if not exists scans_ticket_id_idx on scans (ticket_id, received_at);
create index if not exists scans_event_id_idx on scans (event_id, received_at, scan_id);

create table if not exists settings (
    name text not null,
    value blob not null,
    constraint settings_pkey primary key (name)
) without rowid;

insert into events (event_id, slug, name, created_at)
values (x'00000000000070008000000000000001', 'default', 'Default event', unixepoch() * 1000)
on conflict do nothing;
