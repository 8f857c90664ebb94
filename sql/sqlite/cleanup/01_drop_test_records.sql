-- Removes what testdata/01_populate_tables.sql added: the event with its tickets, also those that were registered or
-- used meanwhile, the scans made on them and the keys made for it, then the two users.
-- A test user who was given a ticket of another event stays, with that ticket.
delete from scans where event_id = x'0000000000007000800000000000E001';
delete from tickets where event_id = x'0000000000007000800000000000E001';
delete from keys where event_id = x'0000000000007000800000000000E001';
delete from events where event_id = x'0000000000007000800000000000E001';
delete from users
where user_id in (x'0000000000007000800000000000A001', x'0000000000007000800000000000A002')
  and not exists (select 1 from tickets where tickets.user_id = users.user_id);
