-- The same test data as sql/postgres/testdata/01_populate_tables.sql.
insert into events (event_id, slug, name, created_at)
values (x'0000000000007000800000000000E001', 'testdata', 'Test data', unixepoch() * 1000)
on conflict do nothing;

insert into users (user_id, username, full_name, email, created_at)
values
    (x'0000000000007000800000000000A001', 'spuertaf', 'Santiago Puerta', 'spuertaf@example.com', unixepoch() * 1000),
    (x'0000000000007000800000000000A002', 'juanperez', 'Juan Pérez', 'juanperez@example.com', unixepoch() * 1000)
on conflict do nothing;

insert into tickets (ticket_id, event_id, seat, gate, seed, created_at, changed_at)
values
    (x'0000000000007000800000000000B001', x'0000000000007000800000000000E001', 'A1', 'North', randomblob(20), unixepoch() * 1000, unixepoch() * 1000),
    (x'0000000000007000800000000000B002', x'0000000000007000800000000000E001', 'A2', 'North', randomblob(20), unixepoch() * 1000, unixepoch() * 1000),
    (x'0000000000007000800000000000B003', x'0000000000007000800000000000E001', 'A3', 'North', randomblob(20), unixepoch() * 1000, unixepoch() * 1000),
    (x'0000000000007000800000000000B004', x'0000000000007000800000000000E001', 'A4', 'South', randomblob(20), unixepoch() * 1000, unixepoch() * 1000),
    (x'0000000000007000800000000000B005', x'0000000000007000800000000000E001', 'A5', 'South', randomblob(20), unixepoch() * 1000, unixepoch() * 1000),
    (x'0000000000007000800000000000B006', x'0000000000007000800000000000E001', 'A6', 'South', randomblob(20), unixepoch() * 1000, unixepoch() * 1000)
on conflict do nothing;
