-- A ticket of which more is known, and a scan for which another one spoke. The same rows as in sql/sqlite/rows/05_tell_more_of_tickets.sql.
update tickets
set category = 'Under 12', note = 'Comes with her grandmother', valid_from = 1777572000000, valid_until = 4102444800000, mailed_at = 1777000000000,
    mailing_at = 1777000000001
where ticket_id = '00000000-0000-7000-8000-0000000000b2';

update events
set capacity = 5, category_colours = '{"Under 12":"teal"}', language = 'es', location = 'Teatro Principal, Plaza Mayor 1'
where event_id = '00000000-0000-7000-8000-0000000000e1';

-- An event of several days, with its doors, and two who came at the wrong time.
update events
set reentry = 'once_a_day', opens_at = 1777651200000, closes_at = 1777669200000
where event_id = '00000000-0000-7000-8000-0000000000e2';

insert into scans (scan_id, event_id, ticket_id, at_gate, direction, result, opens_at, closed_at, scanned_at, received_at,
    decided_at, key_id)
values
    ('00000000-0000-7000-8000-000000000f51', '00000000-0000-7000-8000-0000000000e1', '00000000-0000-7000-8000-0000000000b2', 'North', 'entry', 'too_early', 1777654800000, null, 1777651300000, 1777651300000, 1777651300000, '00000000-0000-7000-8000-0000000000c3'),
    ('00000000-0000-7000-8000-000000000f52', '00000000-0000-7000-8000-0000000000e1', '00000000-0000-7000-8000-0000000000b2', 'North', 'entry', 'too_late', null, 1777669200000, 1777669300000, 1777669300000, 1777669300000, '00000000-0000-7000-8000-0000000000c3');

update scans
set vouched_by = '00000000-0000-7000-8000-000000000f02'
where scan_id = '00000000-0000-7000-8000-000000000f05';

-- An event that takes whoever pays at the door, and forgets its people; a device that was heard of.
update events
set walk_ups = true, walk_up_price = 1200, currency = 'EUR', forget_after_days = 30, forgotten_at = 1780243200000, list_printed_at = 1777650000000
where event_id = '00000000-0000-7000-8000-0000000000e2';

update tickets
set walk_up = true, paid = 1200
where ticket_id = '00000000-0000-7000-8000-0000000000b4';

update keys
set heard_at = 1777652000000, unsent = 3
where key_id = '00000000-0000-7000-8000-0000000000c3';
