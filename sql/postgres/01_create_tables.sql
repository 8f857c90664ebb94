-- The five tables of the service, and its one small table of settings.
-- Times are milliseconds since 1970-01-01T00:00:00Z. What is looked up is compared byte by byte (collate "C"): the same on
-- every server, and several times as fast as by the rules of a language. Every file here can be run again without harm.

create table if not exists events (
    event_id uuid not null,
    slug text collate "C" not null,
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
);

create table if not exists users (
    user_id uuid not null,
    username text collate "C" not null,
    full_name text,
    email text,
    created_at bigint not null,
    constraint users_pkey primary key (user_id),
    -- Not one pattern with {1,64}: that takes a hundred times as long, which an import of many people feels.
    constraint users_username_check check (
        username !~ '[^A-Za-z0-9._@+-]' and length(username) between 1 and 64 and lower(username) <> 'attendance'
    )
);

create unique index if not exists users_username_key on users (lower(username));

-- A scan changes no indexed column, so with free space in the page PostgreSQL touches no index (a HOT update).
create table if not exists tickets (
    ticket_id uuid not null,
    event_id uuid not null,
    user_id uuid,
    seat text collate "C" not null,
    gate text collate "C" not null,
    seed bytea not null,
    status text not null default 'valid',
    inside boolean not null default false,
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
    constraint tickets_seed_check check (octet_length(seed) = 20),
    constraint tickets_status_check check (status in ('valid', 'used', 'revoked'))
) with (fillfactor = 80);

create index if not exists tickets_event_id_idx on tickets (event_id, ticket_id);
create index if not exists tickets_user_id_idx on tickets (user_id) where user_id is not null;

create table if not exists keys (
    key_id uuid not null,
    name text not null,
    role text not null,
    event_id uuid,
    gate text,
    offline boolean not null default false,
    secret_hash bytea not null,
    created_at bigint not null,
    expires_at bigint,
    revoked_at bigint,
    enrol_hash bytea,
    enrol_expires_at bigint,
    constraint keys_pkey primary key (key_id),
    constraint keys_secret_hash_key unique (secret_hash),
    constraint keys_event_id_fkey foreign key (event_id) references events (event_id) on delete cascade,
    constraint keys_role_check check (role in ('organizer', 'supervisor', 'gate'))
);

create index if not exists keys_event_id_idx on keys (event_id);

-- `presented` is what an unknown ticket claimed to be, so that its retry is recognised.
-- `decided_at` is the moment the verdict holds for: `received_at`, or in an offline batch `scanned_at`.
create table if not exists scans (
    scan_id uuid not null,
    event_id uuid not null,
    ticket_id uuid,
    presented uuid,
    at_gate text,
    direction text not null,
    result text not null,
    offline_result text,
    manual boolean not null default false,
    note text,
    seconds_off bigint,
    first_used_at bigint,
    first_used_gate text,
    scanned_at bigint not null,
    received_at bigint not null,
    decided_at bigint not null,
    key_id uuid,
    undone_at bigint,
    undone_by uuid,
    constraint scans_pkey primary key (scan_id),
    constraint scans_event_id_fkey foreign key (event_id) references events (event_id) on delete cascade,
    constraint scans_ticket_id_fkey foreign key (ticket_id) references tickets (ticket_id) on delete cascade,
    constraint scans_direction_check check (direction in ('entry', 'exit'))
);

create index if not exists scans_ticket_id_idx on scans (ticket_id, received_at);
create index if not exists scans_event_id_idx on scans (event_id, received_at, scan_id);

create table if not exists settings (
    name text not null,
    value bytea not null,
    constraint settings_pkey primary key (name)
);

insert into events (event_id, slug, name, created_at)
values ('00000000-0000-7000-8000-000000000001', 'default', 'Default event', (extract(epoch from now()) * 1000)::bigint)
on conflict do nothing;
