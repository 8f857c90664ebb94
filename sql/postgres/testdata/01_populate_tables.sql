-- Test data: the event `testdata`, two users and six valid tickets, with fixed ids and random seeds.
-- sql/postgres/cleanup/01_drop_test_records.sql removes exactly this.

insert into events (event_id, slug, name, created_at)
values ('00000000-0000-7000-8000-00000000e001', 'testdata', 'Test data', (extract(epoch from now()) * 1000)::bigint)
on conflict do nothing;

insert into users (user_id, username, full_name, email, created_at)
values
    ('00000000-0000-7000-8000-00000000a001', 'spuertaf', 'Santiago Puerta', 'spuertaf@example.com', (extract(epoch from now()) * 1000)::bigint),
    ('00000000-0000-7000-8000-00000000a002', 'juanperez', 'Juan Pérez', 'juanperez@example.com', (extract(epoch from now()) * 1000)::bigint)
on conflict do nothing;

insert into tickets (ticket_id, event_id, seat, gate, seed, created_at, changed_at)
select
    ('00000000-0000-7000-8000-00000000b00' || n)::uuid,
    '00000000-0000-7000-8000-00000000e001',
    'A' || n,
    case when n <= 3 then 'North' else 'South' end,
    substr(sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())), 1, 20),
    (extract(epoch from now()) * 1000)::bigint,
    (extract(epoch from now()) * 1000)::bigint
from generate_series(1, 6) as n
on conflict do nothing;
